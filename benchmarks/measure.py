"""Runs one operation in a fresh process, and compares what it restored with the original."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

OPERATION = Path(__file__).resolve().with_name("operation.py")
_GROUP = "__grp__"
_MEBIBYTE = bytes(1 << 20)
_OURS_TO_SET = ("B10", "BASETEN", "TORCH", "TRITON", "VLLM", "MAX_", "MIN_", "LOCAL_WORK_DIR", "CLEANUP_", "PYTHON")


class OperationFailed(Exception):  # noqa: N818 - it says what it is
    """An operation did not answer SUCCESS, so there is nothing to measure."""


@dataclass(frozen=True)
class Run:
    """What one operation cost."""

    seconds: float
    """Of the call, in its process. Of the whole process where that is all there is, as for ``cp``."""
    wall_seconds: float
    """From starting the process to its end: the interpreter, the import and the call."""
    peak_bytes: int = 0
    costly_modules: tuple[str, ...] = ()


@dataclass
class Series:
    """Repetitions of one operation."""

    name: str
    runs: list[Run] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """The median."""
        return statistics.median(run.seconds for run in self.runs)

    def over(self, other: Series) -> float:
        """The median ratio to what was measured in the same rounds."""
        pairs = zip(self.runs, other.runs, strict=True)
        return statistics.median(mine.seconds / theirs.seconds for mine, theirs in pairs)

    @property
    def peak_bytes(self) -> int:
        return max(run.peak_bytes for run in self.runs)

    def __str__(self) -> str:
        ordered = sorted(run.seconds for run in self.runs)
        wall = statistics.median(run.wall_seconds for run in self.runs)
        return f"{_ms(self.seconds)} ({_ms(ordered[0])}–{_ms(ordered[-1])}, process {_ms(wall)})"

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "median_seconds": self.seconds, "runs": [asdict(run) for run in self.runs]}


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 10 else f"{seconds:.1f} s"


@dataclass(frozen=True)
class Program:
    """An installed b10_transfer."""

    name: str
    python: str
    store_variable: str
    settings: Mapping[str, str]


def ours() -> Program:
    """The package as it is installed for the interpreter that runs the benchmark."""
    return Program("ours", sys.executable, "B10_STORE", {})


def published(python: str) -> Program:
    """The published package, with its demands for free disk space turned down to what the benchmark needs."""
    settings = {
        "BASETEN_FS_ENABLED": "1",
        "MAX_CONCURRENT_SAVES": "1",
        "MIN_LOCAL_SPACE_MB": "1",
        "MIN_B10FS_SPACE_MB": "1",
    }
    # Its processes run in folders of their own. A link stays one: it is how Python finds its environment.
    return Program("published", os.path.abspath(python), "B10FS_CACHE_DIR", settings)


class Bench:
    """Measures in ``folder``: every operation in a fresh process, every result in a fresh folder."""

    def __init__(self, folder: Path, *, on_tmpfs: bool) -> None:
        self.folder = folder
        self._on_tmpfs = on_tmpfs
        self.touched_bytes = 0
        """Memory that the operations to come will need, on a tmpfs."""
        self.series: dict[str, Series] = {}
        self._fresh = 0
        self._environ = {name: value for name, value in os.environ.items() if not name.startswith(_OURS_TO_SET)}
        for variable, name in (("HOME", "home"), ("TMPDIR", "tmp"), ("LOCAL_WORK_DIR", "work")):
            self._environ[variable] = str(folder / name)
            (folder / name).mkdir()

    def fresh(self) -> Path:
        """A new folder."""
        self._fresh += 1
        folder = self.folder / f"{self._fresh:04d}"
        folder.mkdir()
        return folder

    def discard(self, folder: Path) -> None:
        """Remove a folder that is no longer needed.

        On a disk that waits for the end: ext4 is slow to hand out inodes that were just freed.
        """
        if self._on_tmpfs:
            shutil.rmtree(folder)

    def touch(self, size_bytes: int) -> None:
        """Let what comes next find so much memory that is there, if this is a tmpfs."""
        self.touched_bytes, kept = size_bytes, self.touched_bytes
        self._touch_memory()
        self.touched_bytes = kept

    def _touch_memory(self) -> None:
        """Let the operation that comes next find memory that is there.

        The host of a virtual machine takes back what has been free for two seconds, and touching it again can take
        several times as long as the operation does.
        """
        if self._on_tmpfs:
            path = self.folder / "touched"
            with path.open("wb") as file:
                for _ in range(self.touched_bytes >> 20):
                    file.write(_MEBIBYTE)
            path.unlink()

    def environment(self, program: Program, store: Path, root: Path, tmp: Path | None = None) -> dict[str, str]:
        """The variables with which a program's process works on ``store`` and ``root``; ``tmp`` is its TMPDIR."""
        return {
            **self._environ,
            **program.settings,
            program.store_variable: str(store),
            "TORCHINDUCTOR_CACHE_DIR": str(root),
            "TRITON_CACHE_DIR": str(self.folder / "home" / "no-triton-cache"),
            "TMPDIR": str(tmp or self.folder / "tmp"),
        }

    @property
    def bare_environment(self) -> dict[str, str]:
        """The variables of a process that is neither program's: of the caller's own, nothing that could matter."""
        return dict(self._environ)

    def operate(
        self, series: str, program: Program, operation: str, store: Path, root: Path, tmp: Path | None = None
    ) -> None:
        """Run ``load_compile_cache`` or ``save_compile_cache`` on ``root``; anything but SUCCESS is an error."""
        environ = self.environment(program, store, root, tmp)
        self._touch_memory()
        started = time.perf_counter()
        process = subprocess.run(
            [program.python, str(OPERATION), operation], env=environ, cwd=self.folder, capture_output=True, text=True
        )
        wall_seconds = time.perf_counter() - started
        told: dict[str, Any] = {"status": "it crashed"}
        if process.returncode == 0:
            told = json.loads(process.stdout.splitlines()[-1])
        if told["status"] != "SUCCESS":
            raise OperationFailed(f"{series}: {program.name} {operation}: {told['status']}\n{process.stderr[-3000:]}")
        run = Run(told["seconds"], wall_seconds, told["peak_bytes"], tuple(told["costly_modules"]))
        self._add(series, run)

    def command(self, series: str, *command: str) -> None:
        """Run a command that is one operation as a whole."""
        self._touch_memory()
        started = time.perf_counter()
        subprocess.run(command, check=True, env=self._environ, cwd=self.folder)
        seconds = time.perf_counter() - started
        self._add(series, Run(seconds, seconds))

    def _add(self, name: str, run: Run) -> None:
        self.series.setdefault(name, Series(name)).runs.append(run)


@dataclass(frozen=True)
class Extent:
    """How much there is in a folder."""

    files: int
    bytes: int

    def __str__(self) -> str:
        return f"{self.files:,} files, {self.bytes / 1e6:.1f} MB"


def extent(folder: Path) -> Extent:
    """Count the files below a folder, and the bytes in them."""
    sizes = [file.stat().st_size for file in _files(folder)]
    return Extent(len(sizes), sum(sizes))


def differences(original: Path, restored: Path, *, moved: bool = True, with_times: bool = True) -> list[str]:
    """What is not as it was: a line for each file whose bytes, mode or time (to the nanosecond) differ.

    Triton's group files name files by absolute path. They must name the same files where they are now, unless
    ``moved`` is false: then their bytes are compared, too. Without ``with_times`` modes and times are not looked at.
    """
    expected = {str(file.relative_to(original)) for file in _files(original)}
    found = {str(file.relative_to(restored)) for file in _files(restored)}
    lines = [f"{path} is missing or was not expected" for path in sorted(expected ^ found)]
    for path in sorted(expected & found):
        before, after = (original / path).stat(), (restored / path).stat()
        if with_times and (before.st_mode, before.st_mtime_ns) != (after.st_mode, after.st_mtime_ns):
            lines.append(f"{path} has another mode or time")
        if not _same_content(original / path, restored / path, moved):
            lines.append(f"{path} has other content")
    return lines


def _same_content(original: Path, restored: Path, moved: bool) -> bool:
    if moved and original.name.startswith(_GROUP):
        names = json.loads(original.read_bytes())["child_paths"]
        expected = {"child_paths": {child: str(restored.with_name(Path(path).name)) for child, path in names.items()}}
        return bool(json.loads(restored.read_bytes()) == expected)
    with original.open("rb") as first, restored.open("rb") as second:
        while chunk := first.read(1 << 20):
            if second.read(1 << 20) != chunk:
                return False
        return not second.read(1)


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())
