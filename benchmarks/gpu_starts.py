"""Starts replicas for :mod:`benchmarks.gpu_cold_start`: each in a process and folders of its own, within a budget."""

from __future__ import annotations

import json
import os
import signal
import site
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
_OPERATION = Path(__file__).resolve().with_name("operation.py")
_FOREIGN = ("B10", "BASETEN", "MAX_CACHE", "MAX_CONCURRENT", "MIN_LOCAL", "MIN_B10FS", "CLEANUP_")
_CACHES = ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "TRITON_HOME", "XDG_CACHE_HOME", "TORCH_CACHING_PRECOMPILE")
_LOG_TAIL = 3000


class StartError(Exception):
    """A start came to nothing; says why in words for a table."""


class Budget:
    """Seconds for everything, from now on."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._began = time.monotonic()

    @property
    def left_s(self) -> float:
        return self._began + self.seconds - time.monotonic()

    def at(self, share: float) -> float:
        """When that share of the budget is spent, by ``time.monotonic``."""
        return self._began + share * self.seconds


@dataclass(frozen=True)
class Request:
    """What a replica is to do."""

    device: str
    size: str
    kind: str
    """Of the model: ``diffusers`` or ``own``."""
    dtype: str
    restore: str = "nothing"
    """``nothing``, ``ours``, ``instant``, ``mega-cache``, or ``placed``: somebody else has put files in place."""
    parts: tuple[str, ...] = ()
    steps: int = 10
    """Calls that are timed once everything is compiled."""
    saves: bool = False
    """With b10_transfer after each part, and at the end as a mega-cache."""
    mega_cache: str = ""
    """Path of its file."""
    reference: str = ""
    """Folder of a replica whose outputs are compared with."""
    began: float = 0.0
    """When the process was started. This and the next by ``time.monotonic``, which all processes share."""
    begin_until: float = float("inf")
    """No part but the first is begun later than this."""


@dataclass(frozen=True)
class Peer:
    """The published b10-transfer: a Python that has it, or a folder that ``pip install --target`` has put it in."""

    path: Path

    def environment(self) -> dict[str, str]:
        """Settings that turn its demands for free disk space down to what is needed here."""
        settings = {
            "BASETEN_FS_ENABLED": "1",
            "MAX_CONCURRENT_SAVES": "1",
            "MIN_LOCAL_SPACE_MB": "1",
            "MIN_B10FS_SPACE_MB": "1",
        }
        return settings | ({"PYTHONPATH": str(self.path)} if self.path.is_dir() else {"PYTHONPATH": ""})

    @property
    def python(self) -> str:
        return sys.executable if self.path.is_dir() else str(self.path)


class Starts:
    """Runs replicas in folders below ``folder``; what they share is a store."""

    def __init__(self, folder: Path, budget: Budget) -> None:
        self.folder, self.budget = folder, budget
        self.mega_cache = folder / "mega-cache.bin"
        self.store = folder / "store"
        self.store.mkdir()

    def facts(self) -> dict[str, Any]:
        """What :func:`benchmarks.gpu_replica.facts` finds. Raises StartError if it cannot be run."""
        folder = self._folder("facts")
        self._run(folder, self.budget.left_s, "--facts")
        found: dict[str, Any] = json.loads((folder / "stdout.txt").read_text().splitlines()[-1])
        return found

    def run(self, name: str, request: Request, *, limit_s: float | None = None) -> dict[str, Any]:
        """A replica's outcome, of as far as it came in the time. Raises StartError if it did not answer even once."""
        folder = self._folder(name)
        given = replace(request, mega_cache=str(self.mega_cache), began=time.monotonic())
        (folder / "request.json").write_text(json.dumps(_plain(given)))
        trouble = ""
        try:
            self._run(folder, min(self.budget.left_s, limit_s or self.budget.left_s), str(folder))
        except StartError as error:
            trouble = str(error)
        path = folder / "outcome.json"
        if not path.exists():
            raise StartError(trouble or "it ended without a word")
        outcome: dict[str, Any] = json.loads(path.read_text())
        return outcome | {"trouble": trouble, "whole_s": time.monotonic() - given.began}

    def inductor(self, name: str) -> Path:
        """Inductor's cache directory of a replica that is run, or will be."""
        return self._folder(name) / "inductor"

    def outputs(self, name: str) -> Path:
        """Where a replica has left what it answered."""
        return self._folder(name)

    def operate(self, peer: Peer, operation: str, name: str) -> dict[str, Any]:
        """Have the published package save or load a replica's Inductor directory. Raises StartError."""
        store = self.folder / "store-of-peer"
        store.mkdir(exist_ok=True)
        folder = self._folder(name)
        environ = self._environment(folder) | peer.environment() | {"B10FS_CACHE_DIR": str(store)}
        command = [peer.python, str(_OPERATION), operation]
        limit_s = max(1.0, self.budget.left_s)
        try:
            done = subprocess.run(command, env=environ, cwd=folder, capture_output=True, text=True, timeout=limit_s)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise StartError(f"its {operation} could not be run to its end: {error}") from error
        told = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else {"status": "a crash"}
        if told["status"] != "SUCCESS":
            last = (done.stderr.strip().splitlines() or ["nothing on its log"])[-1]
            raise StartError(f"its {operation} ended with {told['status']}: {last[-300:]}")
        result: dict[str, Any] = told
        return result

    def _folder(self, name: str) -> Path:
        folder = self.folder / name.replace(" ", "-")
        folder.mkdir(exist_ok=True)
        return folder

    def _environment(self, folder: Path) -> dict[str, str]:
        """The caller's, with a home and caches of its own, so that every cache is empty at first."""
        kept = {n: v for n, v in os.environ.items() if not n.startswith(_FOREIGN) and n not in _CACHES}
        paths = [ROOT, *(Path(path).resolve() for path in kept.get("PYTHONPATH", "").split(os.pathsep) if path)]
        for part in ("home", "tmp", "cuda"):
            (folder / part).mkdir(exist_ok=True)
        return kept | {
            "PYTHONPATH": os.pathsep.join(map(str, paths)),
            # Packages that were installed for the user are found by the home directory.
            "PYTHONUSERBASE": site.getuserbase(),
            "HOME": str(folder / "home"),
            "TMPDIR": str(folder / "tmp"),
            "LOCAL_WORK_DIR": str(folder),
            "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"),
            # TRITON_CACHE_DIR stays unset, as for most services: Inductor keeps Triton's kernels below its own then.
            "CUDA_CACHE_PATH": str(folder / "cuda"),
            "B10_STORE": str(self.store),
            "B10_NAMESPACE": "flux",
        }

    def _run(self, folder: Path, limit_s: float, *arguments: str) -> None:
        """Run the replica program to its end, or end it with all that it has started."""
        command = [sys.executable, "-m", "benchmarks.gpu_replica", *arguments]
        with (folder / "stdout.txt").open("w") as out, (folder / "stderr.txt").open("w") as log:
            process = subprocess.Popen(
                command, env=self._environment(folder), cwd=ROOT, stdout=out, stderr=log, start_new_session=True
            )
            try:
                status = process.wait(max(1.0, limit_s))
            except subprocess.TimeoutExpired:
                raise StartError(f"ended after {limit_s:.0f} s, all the time it had") from None
            finally:
                if process.poll() is None:
                    with suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
        if status:
            tail = (folder / "stderr.txt").read_text(errors="replace")[-_LOG_TAIL:]
            raise StartError(f"ended with status {status}: {_last_line(tail)}\n{tail}")


def _plain(request: Request) -> dict[str, Any]:
    # JSON has no infinity that every reader takes.
    return {name: value for name, value in asdict(request).items() if value != float("inf")}


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else "nothing on its log"
