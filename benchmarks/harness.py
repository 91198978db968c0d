"""The parts that all benchmarks share: options, processes and their costs, alternating rounds, the results file."""

from __future__ import annotations

import argparse
import compileall
import ctypes
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import b10_transfer
from benchmarks import corpus, tables
from benchmarks.processes import children
from benchmarks.results import FOLDER, Label, Results
from benchmarks.workspace import file_system, run_again_on_tmpfs, suits_peer, workspace

OPERATION = Path(__file__).resolve().with_name("operation.py")
_OWN_VARIABLES = ("B10", "BASETEN", "TORCH", "TRITON", "VLLM", "MAX_", "MIN_", "LOCAL_WORK_DIR", "CLEANUP_", "PYTHON")
_SET_CHILD_SUBREAPER = 36
_VERSIONS = """
import json, importlib.metadata as metadata
found = {distribution.metadata["Name"]: distribution.version for distribution in metadata.distributions()}
print(json.dumps({name: found[name] for name in ("b10-transfer", "torch", "triton", "zstandard") if name in found}))
"""


class OperationFailedError(Exception):
    """An operation failed, so there is no figure."""


@dataclass(frozen=True)
class Program:
    """An installed b10_transfer."""

    name: str
    python: str
    store_variable: str
    settings: Mapping[str, str] = field(default_factory=dict)


OURS = Program(tables.OURS, sys.executable, "B10_STORE")


def published(python: str | os.PathLike[str]) -> Program:
    """The published package, with its limits for free disk space lowered."""
    settings = {
        "BASETEN_FS_ENABLED": "1",
        "MAX_CONCURRENT_SAVES": "1",
        "MIN_LOCAL_SPACE_MB": "1",
        "MIN_B10FS_SPACE_MB": "1",
    }
    # Not resolved: a virtual environment's interpreter is a link.
    return Program(tables.PUBLISHED, os.path.abspath(python), "B10FS_CACHE_DIR", settings)


@dataclass(frozen=True)
class Finished:
    """A process that ended with status 0."""

    seconds: float
    """From its start to its end."""
    cpu_seconds: float
    """Of the process and all its descendants."""
    output: str

    @property
    def answer(self) -> dict[str, Any]:
        """The JSON on its last line."""
        answer: dict[str, Any] = json.loads(self.output.splitlines()[-1])
        return answer


class Session:
    """One run of one benchmark: every operation has a new process, and a new folder below ``folder``."""

    def __init__(self, folder: Path, results: Results, options: argparse.Namespace) -> None:
        self.folder, self.results = folder, results
        self.corpus: Path = options.corpus
        self.quick: bool = options.quick
        self.rounds: int = options.rounds
        self.peer: Program | None = None
        self.why_no_peer = "no interpreter with it was given (--peer)"
        if options.peer:
            self.why_no_peer = "its store must be below /cache/model, which is not writable here"
            self.peer = published(options.peer) if suits_peer(folder) else None
        self.warm_bytes = 0
        """Memory that the next operations need on a tmpfs."""
        self._on_tmpfs = results.machine["file system"] == "tmpfs"
        self._folders = 0
        self._environ = {name: value for name, value in os.environ.items() if not name.startswith(_OWN_VARIABLES)}
        for variable, name in (("HOME", "home"), ("TMPDIR", "tmp"), ("LOCAL_WORK_DIR", "work")):
            self._environ[variable] = str(folder / name)
            (folder / name).mkdir()
        # Orphans become children of this process, so that their CPU time is counted.
        ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1)

    def fresh(self) -> Path:
        """Create a new folder."""
        self._folders += 1
        folder = self.folder / f"{self._folders:04d}"
        folder.mkdir()
        return folder

    def discard(self, folder: Path) -> None:
        """Remove a folder. On a disk it stays until the end: ext4 is slow to reuse inodes that were just freed."""
        if self._on_tmpfs:
            shutil.rmtree(folder)

    def triton_tree(self, kernels: int) -> Path:
        """A new tree of Triton kernels."""
        made = corpus.triton_corpus(self.corpus, kernels)
        keys = sorted(os.listdir(made))[:kernels]
        return corpus.install_triton(made, self.fresh() / "tree", keys)

    def environment(self, program: Program | None = None, store: Path | str = "", **variables: str) -> dict[str, str]:
        """Variables of a process: no variable of this project or of a compiler but those given."""
        given = {"TRITON_CACHE_DIR": str(self.folder / "home" / "no-triton-cache")} | variables
        if program:
            given |= {**program.settings, program.store_variable: str(store)}
        return self._environ | given

    def set(self, **variables: str) -> None:
        """Set variables of all further processes."""
        self._environ |= variables

    def run(self, command: Sequence[str], environ: Mapping[str, str]) -> Finished:
        """Run a process to its end. Raises OperationFailedError."""
        self.warm(self.warm_bytes)
        known, used, started = set(children(os.getpid())), os.times(), time.perf_counter()
        process = subprocess.run(command, env=environ, cwd=self.folder, capture_output=True, text=True)
        seconds = time.perf_counter() - started
        for orphan in set(children(os.getpid())) - known:
            os.waitpid(orphan, 0)
        now = os.times()
        if process.returncode:
            raise OperationFailedError(f"{command[0]} ended with {process.returncode}: {process.stderr[-2000:]}")
        cpu = now.children_user + now.children_system - used.children_user - used.children_system
        return Finished(seconds, cpu, process.stdout)

    def operate(
        self,
        program: Program,
        operation: str,
        store: Path | str,
        root: Path,
        tmp: Path | None = None,
        after: str = "",
        **variables: str,
    ) -> dict[str, float]:
        """Run ``operation`` on the cache directory ``root``. Raises OperationFailedError unless it succeeds.

        Args:
            after: Modules that the process imports first, separated by commas.

        Returns:
            ``seconds`` of the call, ``first`` with the import of the function, ``objects`` in the process before it,
            ``process`` and ``cpu`` seconds of the whole process, ``peak`` and ``read`` in MB, ``packed`` in bytes and
            ``costly``, the number of imported costly modules.
        """
        variables |= {"TORCHINDUCTOR_CACHE_DIR": str(root)} | ({"TMPDIR": str(tmp)} if tmp else {})
        environ = self.environment(program, store, **variables)
        options = [f"--after={after}"] if after else []
        finished = self.run([program.python, str(OPERATION), operation, *options], environ)
        answer = finished.answer
        if answer["status"] != "SUCCESS":
            raise OperationFailedError(f"{program.name}: {operation}: {answer['status']}: {answer['reason']}")
        return {
            "seconds": answer["seconds"],
            "first": answer["seconds"] + answer["import_seconds"],
            "objects": answer["objects"],
            "process": finished.seconds,
            "cpu": finished.cpu_seconds,
            "peak": answer["peak_bytes"] / 1e6,
            "packed": answer["packed_bytes"],
            "read": answer["read_bytes"] / 1e6,
            "costly": len(answer["costly_modules"]),
        }

    def warm(self, size_bytes: int) -> None:
        """Touch memory on a tmpfs: the host of a virtual machine takes back free memory after two seconds."""
        if self._on_tmpfs and size_bytes:
            path, part = self.folder / "warm", bytes(1 << 20)
            with path.open("wb") as file:
                for _ in range(size_bytes >> 20):
                    file.write(part)
            path.unlink()


class Samples:
    """Values of several programs that take turns."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, str], list[float]] = defaultdict(list)
        self.failed: dict[str, str] = {}
        """Programs without figures, and the reason."""

    def take_turns(
        self, session: Session, programs: Mapping[str, Callable[[Path, int], Mapping[str, float]]], rounds: int
    ) -> None:
        """Call every program once a round, with a folder and the number of the round, each round in another order.

        A program that raises OperationFailedError has no figures and no further turns.
        """
        names = list(programs)
        for number in range(rounds):
            folder = session.fresh()
            for name in names[number % len(names) :] + names[: number % len(names)]:
                if name in self.failed:
                    continue
                try:
                    for measure, value in programs[name](folder, number).items():
                        self.values[name, measure].append(value)
                except OperationFailedError as failure:
                    self.failed[name] = str(failure)
                    print(f"{name}: {failure}", file=sys.stderr)
            session.discard(folder)
            print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)

    def median(self, program: str, measure: str) -> float:
        return statistics.median(self.values[program, measure])

    def ratios(self, program: str, other: str, measure: str) -> list[float]:
        """The ratio of two programs' values in each round. Raises OperationFailedError if one has none."""
        if why := self.failed.get(program) or self.failed.get(other):
            raise OperationFailedError(why)
        pairs = zip(self.values[program, measure], self.values[other, measure], strict=True)
        return [mine / theirs for mine, theirs in pairs]

    def add_to(
        self,
        results: Results,
        title: str,
        program: str,
        measure: str,
        unit: str,
        labels: Mapping[str, Label],
        **row: Any,
    ) -> None:
        """Add a row for one measure of one program; nothing if it was not measured."""
        if program in self.failed:
            results.cannot(title, unit, why=self.failed[program], labels=labels)
        elif values := self.values[program, measure]:
            results.add(title, unit, values, labels=labels, **row)


def run(
    name: str,
    title: str,
    description: str | None,
    measure: Callable[[Session], None],
    *,
    rounds: int,
    quick_rounds: int,
) -> int:
    """Measure in a new workspace, write and print the rows. ``measure`` adds them to the session's results.

    Returns:
        The exit status: 1 if an operation failed or a limit was missed.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=FOLDER / f"{name}.json", help="write them here (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="smaller sizes and fewer rounds")
    parser.add_argument("--rounds", type=int, help=f"({rounds}; {quick_rounds} with --quick)")
    parser.add_argument("--peer", help="Python interpreter with the published b10-transfer")
    parser.add_argument("--corpus", type=Path, default=corpus.DEFAULT_CACHE, help="folder of the trees (%(default)s)")
    options = parser.parse_args()
    options.rounds = options.rounds or (quick_rounds if options.quick else rounds)
    target = options.results.absolute()
    if (status := run_again_on_tmpfs()) is not None:
        return status
    # As pip does: the environment may forbid Python to write its own bytecode.
    compileall.compile_dir(Path(b10_transfer.__file__).parent, quiet=1)
    with workspace() as folder:
        results = Results.begin(name, title, versions=_versions(OURS.python), file_system=file_system(folder))
        session = Session(folder, results, options)
        if session.peer:
            version = _versions(session.peer.python)["b10-transfer"]
            results.versions = {**results.versions, "published b10-transfer": version}
        try:
            measure(session)
        except OperationFailedError as failure:
            print(failure, file=sys.stderr)
            return 1
        results.write(target)
    for row in results.rows:
        print(f"{row.name}: {tables.value(row)} {row.detail or row.why_not}".rstrip())
    print("\n".join(["", *(f"MISSED {missed}" for missed in results.missed), f"{len(results.rows)} rows in {target}"]))
    return 1 if results.missed else 0


def _versions(python: str) -> dict[str, str]:
    shown = subprocess.run([python, "-c", _VERSIONS], check=True, capture_output=True, text=True).stdout
    versions: dict[str, str] = json.loads(shown)
    return versions
