"""What ``b10-compile-cache`` costs a server while it looks after it: memory, and processor time while idle.

``python benchmarks/launcher.py [--seconds 20]``

Both ways of it, ``run`` and the command in the background, beside a small server that answers like vLLM's. The cache
is that of 300 kernels (2,424 files, 51 MB): a first server has it saved, a second one has it restored, and each then
serves and does nothing for so many seconds. Figures are of our process alone, from ``/proc/<pid>``; the times that it
uses are the kernel's, in ticks of 10 ms, so 20 s tell 0.05 % of a core. Exit status 1 if a bound is missed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs as a script

from benchmarks import corpus
from benchmarks.results import Results

SERVER = Path(__file__).resolve().parents[1] / "tests" / "launcher" / "fake_server.py"
COMMAND = str(Path(sys.executable).with_name("b10-compile-cache"))
PEAK_MB = 60.0
"""What the command may keep in memory, at any time."""
IDLE_PERCENT = 1.0
"""Of a core, while the server serves and nothing is compiled."""
_PATIENCE_S = 120.0
_NOTES = """\
A server that does nothing, and beside it the command, which has saved the cache of 300 kernels, or has restored it. Of
the command alone: what it has in memory then, had at most, and how much of a core it takes while nothing is
compiled."""


class Pod:
    """A home, a store and a cache, and a server named ``vllm``."""

    def __init__(self, folder: Path) -> None:
        self.cache = folder / "inductor"
        program = folder / "vllm"
        program.symlink_to(SERVER)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.server = [sys.executable, str(program), "serve", "model", "--port", str(port)]
        self.log = folder / "log"
        self.environ = os.environ | {
            "HOME": str(folder),
            "TMPDIR": str(folder),
            "LOCAL_WORK_DIR": "/tmp",
            "B10_STORE": str(folder / "store"),
            "TORCHINDUCTOR_CACHE_DIR": str(self.cache),
            "TRITON_CACHE_DIR": str(folder / "triton"),
            "FAKE_LOG": str(folder / "noted"),
            "FAKE_COMPILES": "0",
        }

    @contextmanager
    def kept(self, *, background: bool) -> Iterator[int]:
        """A server that is looked after; yields the process id of what does so."""
        with self.log.open("w") as log:
            arguments = [COMMAND] if background else [COMMAND, "run", "--", *self.server]
            ours = subprocess.Popen(arguments, env=self.environ, stderr=log)
            server = subprocess.Popen(self.server, env=self.environ) if background else ours
            try:
                yield ours.pid
            finally:
                server.send_signal(signal.SIGTERM)
                server.wait()
                ours.wait()

    def says(self, text: str) -> None:
        """Wait for a line of the log."""
        until = time.monotonic() + _PATIENCE_S
        while text not in (log := self.log.read_text()):
            if time.monotonic() > until:
                raise SystemExit(f"{text!r} did not come: {log}")
            time.sleep(0.05)


def memory_mb(pid: int, field: str) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise ValueError(field)


def processor_s(pid: int) -> float:
    """Seconds that a process has used, its threads' included and its children's not."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Cost:
    """What our process cost."""

    what: str
    now_mb: float
    peak_mb: float
    idle_percent: float
    """Of a core."""

    @property
    def is_kept(self) -> bool:
        """Whether no bound is missed."""
        return self.peak_mb < PEAK_MB and self.idle_percent < IDLE_PERCENT

    def __str__(self) -> str:
        figures = f"{self.now_mb:6.1f} MB{self.peak_mb:8.1f} MB{self.idle_percent:8.2f} % of a core"
        return f"  {self.what:<34}{figures}{'' if self.is_kept else '  MISSED'}"

    def add_to(self, results: Results) -> None:
        for measure, unit, figure, bound in (
            ("in memory", "MB", self.now_mb, ""),
            ("at most", "MB", self.peak_mb, f"under {PEAK_MB:.0f} MB"),
            ("idle", "%", self.idle_percent, f"under {IDLE_PERCENT:g} % of a core"),
        ):
            labels = {"start": self.what, "measure": measure}
            results.add(f"{self.what}: {measure}", unit, [figure], labels=labels, detail=bound)


def measure(pod: Pod, *, background: bool, awaited: str, seconds: float) -> Cost:
    with pod.kept(background=background) as pid:
        pod.says("the server serves")
        pod.says(awaited)
        # A look or two, so that all there is to import has been.
        time.sleep(6)
        used_s, began = processor_s(pid), time.monotonic()
        time.sleep(seconds)
        percent = (processor_s(pid) - used_s) / (time.monotonic() - began) * 100
        what = f"{'background' if background else 'run'}, after a {awaited.partition(':')[0]}"
        return Cost(what, memory_mb(pid, "VmRSS"), memory_mb(pid, "VmHWM"), percent)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20, help="how long to watch an idle command")
    parser.add_argument("--quick", action="store_const", const=5, dest="seconds", help="5 s")
    parser.add_argument("--cache", type=Path, default=corpus.DEFAULT_CACHE, help="where the kernels are kept")
    parser.add_argument("--peer", help="of no use here: the published command ends when it has loaded")
    parser.add_argument("--results", type=Path, metavar="FILE", help="also write the results to a file")
    arguments = parser.parse_args()
    kernels = corpus.triton_corpus(arguments.cache)
    results = Results.begin(
        "launcher",
        "The command in front of a server",
        versions={"b10-transfer": version("b10-transfer")},
        file_system="",
        notes=_NOTES,
    )
    print(f"  {'':<34}{'now':>9}{'peak':>11}{'idle':>8}")
    costs = []
    for background in (False, True):
        with tempfile.TemporaryDirectory(prefix="b10-launcher-") as name:
            pod = Pod(Path(name))
            corpus.install_triton(kernels, pod.cache)
            for awaited in ("save: SUCCESS", "load: SUCCESS"):
                costs.append(measure(pod, background=background, awaited=awaited, seconds=arguments.seconds))
                print(costs[-1], flush=True)
                shutil.rmtree(pod.cache)
    print(f"  bounds: {PEAK_MB:.0f} MB, {IDLE_PERCENT:g} % of a core")
    for cost in costs:
        cost.add_to(results)
    if arguments.results:
        results.write(arguments.results)
    return 0 if all(cost.is_kept for cost in costs) else 1


if __name__ == "__main__":
    sys.exit(main())
