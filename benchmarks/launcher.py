"""The memory of ``b10-compile-cache`` while a server runs, and its CPU time while the server is idle.

The server is a small one that answers like vLLM's, with the cache of 300 kernels. The command runs in both ways: as
``run -- SERVER`` and in the background. Each first saves the cache, then restores it for a second server. The figures
are those of the command alone, from ``/proc``. CPU time has ticks of 10 ms, so 20 s resolve 0.05 % of a core. Fails if
a limit is missed.
"""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs as a script

from benchmarks import corpus, harness
from benchmarks.harness import OURS, OperationFailedError, Session
from benchmarks.processes import cpu_seconds, status_mb

SERVER = Path(__file__).resolve().parents[1] / "tests" / "launcher" / "fake_server.py"
COMMAND = str(Path(sys.executable).with_name("b10-compile-cache"))
PEAK_MB, IDLE_PERCENT = 60.0, 1.0
_WAIT_S, _SETTLE_S, _IDLE_S, _QUICK_IDLE_S = 120.0, 6.0, 20.0, 5.0


class Pod:
    """A server, with its store and its cache."""

    def __init__(self, session: Session) -> None:
        folder = session.fresh()
        self.cache = folder / "inductor"
        program = folder / "vllm"
        program.symlink_to(SERVER)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.server = [sys.executable, str(program), "serve", "model", "--port", str(port)]
        self.log = folder / "log"
        self.environ = session.environment(
            OURS,
            folder / "store",
            HOME=str(folder),
            TORCHINDUCTOR_CACHE_DIR=str(self.cache),
            FAKE_LOG=str(folder / "noted"),
            FAKE_COMPILES="0",
        )

    @contextmanager
    def served(self, *, background: bool) -> Iterator[int]:
        """Run the server and the command; yields the command's process id."""
        with self.log.open("w") as log:
            arguments = [COMMAND] if background else [COMMAND, "run", "--", *self.server]
            command = subprocess.Popen(arguments, env=self.environ, stderr=log)
            server = subprocess.Popen(self.server, env=self.environ) if background else command
            try:
                yield command.pid
            finally:
                server.send_signal(signal.SIGTERM)
                server.wait()
                command.wait()

    def wait_for(self, text: str) -> None:
        """Wait for a text in the log. Raises OperationFailedError on a timeout."""
        until = time.monotonic() + _WAIT_S
        while text not in (log := self.log.read_text()):
            if time.monotonic() > until:
                raise OperationFailedError(f"the log has no {text!r}: {log}")
            time.sleep(0.05)


def watch(session: Session, pod: Pod, *, background: bool, operation: str) -> None:
    """Add the rows of the command after one operation."""
    with pod.served(background=background) as pid:
        pod.wait_for("the server is ready")
        pod.wait_for(f"{operation}: SUCCESS")
        time.sleep(_SETTLE_S)  # until it has imported everything that it uses
        used, began = cpu_seconds(pid), time.monotonic()
        time.sleep(_QUICK_IDLE_S if session.quick else _IDLE_S)
        idle = (cpu_seconds(pid) - used) / (time.monotonic() - began) * 100
        start = f"{'background' if background else 'run'}, after a {operation}"
        for measure, unit, value, at_most in (
            ("in memory", "MB", status_mb(pid, "VmRSS"), None),
            ("at most", "MB", status_mb(pid, "VmHWM"), PEAK_MB),
            ("idle", "%", idle, IDLE_PERCENT),
        ):
            labels = {"start": start, "measure": measure}
            session.results.add(f"{start}: {measure}", unit, [value], labels=labels, at_most=at_most)


def measure(session: Session) -> None:
    kernels = corpus.triton_corpus(session.corpus, 30 if session.quick else 300)
    for background in (False, True):
        pod = Pod(session)
        corpus.install_triton(kernels, pod.cache)
        for operation in ("save", "load"):
            watch(session, pod, background=background, operation=operation)
            shutil.rmtree(pod.cache)


if __name__ == "__main__":
    sys.exit(harness.run("launcher", "The command beside a server", __doc__, measure, rounds=1, quick_rounds=1))
