"""The programs that are compared: each can save a tree of files to a store, and load it from there.

Two are packages with the same two functions, this project and the published b10-transfer; the others are commands that
people use for the same purpose, with ``cp -r`` as the limit of what copying files costs on the machine.
"""

from __future__ import annotations

import re
import subprocess
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measure import OPERATION, Bench, OperationFailed, Program, differences, ours, published
from benchmarks.workspace import suits_peer

_POLL_S = 0.001


class Contender(ABC):
    """A program that saves and loads. Its operations raise OperationFailed unless they did their work."""

    name: str
    """As rows and plots call it."""
    save_command: str
    load_command: str
    relocates = False
    """Whether what it restored elsewhere names files where they are now, as Triton's group files must."""
    keeps_times = False

    @abstractmethod
    def save(self, bench: Bench, series: str, tree: Path, store: Path) -> None:
        """Save ``tree``, whose parent is TMPDIR, to ``store``, which is not there yet; note what that cost."""

    @abstractmethod
    def load(self, bench: Bench, series: str, store: Path, target: Path) -> None:
        """Load into ``target``, a folder that is not there yet, and note what that cost."""

    @abstractmethod
    def peak_bytes(self, bench: Bench, operation: str, store: Path, tree: Path) -> int:
        """The most memory that its largest process has resident while it saves ``tree`` to ``store`` or loads it."""

    def wrong(self, tree: Path, restored: Path) -> list[str]:
        """What a load did not restore as it was; a line for each file."""
        return differences(tree, restored, moved=self.relocates, with_times=self.keeps_times)


class Package(Contender):
    """An installed b10_transfer."""

    def __init__(self, program: Program, *, relocates: bool, keeps_times: bool) -> None:
        self.program = program
        self.name = "b10-transfer" if program.name == "ours" else "published 0.4.1"
        self.save_command, self.load_command = "save_compile_cache()", "load_compile_cache()"
        self.relocates, self.keeps_times = relocates, keeps_times

    def save(self, bench: Bench, series: str, tree: Path, store: Path) -> None:
        # torch keeps precompiled headers below TMPDIR, wherever its cache is.
        bench.operate(series, self.program, "save_compile_cache", store, tree, tmp=tree.parent)

    def load(self, bench: Bench, series: str, store: Path, target: Path) -> None:
        bench.operate(series, self.program, "load_compile_cache", store, target)

    def peak_bytes(self, bench: Bench, operation: str, store: Path, tree: Path) -> int:
        command = [self.program.python, str(OPERATION), f"{operation}_compile_cache"]
        return peak_bytes(command, bench.environment(self.program, store, tree), bench.folder)


class Commands(Contender):
    """A command for each operation, with ``STORE`` and ``TREE`` for the folders."""

    def __init__(self, name: str, save: str, load: str) -> None:
        self.name, self.save_command, self.load_command = name, save, load

    def save(self, bench: Bench, series: str, tree: Path, store: Path) -> None:
        store.mkdir()
        self._run(bench, series, self.save_command, store, tree)

    def load(self, bench: Bench, series: str, store: Path, target: Path) -> None:
        target.mkdir()
        self._run(bench, series, self.load_command, store, target)

    def peak_bytes(self, bench: Bench, operation: str, store: Path, tree: Path) -> int:
        folder = store if operation == "save" else tree
        folder.mkdir()
        command = self.save_command if operation == "save" else self.load_command
        return peak_bytes(_filled(command, store, tree), bench.bare_environment, bench.folder)

    def _run(self, bench: Bench, series: str, command: str, store: Path, tree: Path) -> None:
        try:
            bench.command(series, *_filled(command, store, tree))
        except (OSError, subprocess.CalledProcessError) as error:
            raise OperationFailed(f"{series}: {error}") from error


def _filled(command: str, store: Path, tree: Path) -> list[str]:
    replaced = {"STORE": str(store), "TREE": str(tree)}
    # An option's value that holds a blank is quoted in what people read.
    words = re.findall(r"'[^']*'|\S+", command)
    return [re.sub("STORE|TREE", lambda found: replaced[found.group()], word.strip("'")) for word in words]


COMMANDS = (
    # None keeps times to the nanosecond, unless asked in ways that few know.
    Commands("tar -czf", "tar -C TREE -czf STORE/cache.tar.gz .", "tar -C TREE -xzf STORE/cache.tar.gz"),
    Commands(
        "tar, zstd -T0",
        "tar -C TREE -I 'zstd -T0 -q' -cf STORE/cache.tar.zst .",
        "tar -C TREE -I 'zstd -T0 -q' -xf STORE/cache.tar.zst",
    ),
    Commands("cp -r", "cp -r TREE/. STORE", "cp -r STORE/. TREE"),
)


@dataclass(frozen=True)
class Absent:
    """A program that cannot run here."""

    name: str
    why: str


def our_package() -> Package:
    """This project, as it is installed for the interpreter that runs the benchmark."""
    return Package(ours(), relocates=True, keeps_times=True)


def published_package(python: str | None, folder: Path) -> Package | Absent:
    """The published package, if it can work in ``folder``."""
    if not python:
        return Absent("published 0.4.1", "no interpreter that has it was named (--peer)")
    if not suits_peer(folder):
        return Absent("published 0.4.1", "its store must lie under /cache/model, where this run may not write")
    return Package(published(python), relocates=False, keeps_times=False)


def contenders(peer: str | None, folder: Path) -> list[Contender | Absent]:
    """All of them, in the order in which they are shown."""
    return [our_package(), published_package(peer, folder), *COMMANDS]


def peak_bytes(command: list[str], environ: dict[str, str], folder: Path) -> int:
    """Run a command; the most memory that the largest of it and its children had resident, by its high-water mark.

    The largest, not their sum: forked processes share pages. Looked at every millisecond, which slows the command: its
    time means nothing. Raises OperationFailed.
    """
    marks: dict[int, int] = {}
    # Not a pipe, which could fill up.
    process = subprocess.Popen(
        command, env=environ, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    while process.poll() is None:
        for pid in _family(process.pid):
            if mark := _high_water_bytes(pid):
                marks[pid] = max(mark, marks.get(pid, 0))
        time.sleep(_POLL_S)
    if process.returncode:
        raise OperationFailed(f"{command[0]} ended with exit status {process.returncode}")
    return max(marks.values(), default=0)


def _family(pid: int) -> list[int]:
    """A process and all that descend from it, as far as they live."""
    found = [pid]
    for parent in found:
        try:
            for task in Path(f"/proc/{parent}/task").iterdir():
                found += [int(child) for child in (task / "children").read_text().split()]
        except OSError:  # it has just ended
            continue
    return found


def _high_water_bytes(pid: int) -> int:
    try:
        found = re.search(r"^VmHWM:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    except OSError:
        return 0
    return int(found.group(1)) * 1024 if found else 0
