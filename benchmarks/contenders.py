"""The programs that save a tree to a store and load it: two packages, and three commands that people use instead."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks.harness import OURS, OperationFailedError, Program, Samples, Session
from benchmarks.tables import PUBLISHED
from benchmarks.trees import differences, extent


class Contender(ABC):
    """A program that saves and loads. A failed operation raises OperationFailedError."""

    name: str
    save_command = "save_compile_cache()"
    load_command = "load_compile_cache()"
    relocates = False
    """Whether restored group files name their files at the new path, as Triton needs it."""
    keeps_times = False

    @abstractmethod
    def save(self, session: Session, tree: Path, store: Path) -> Mapping[str, float]:
        """Save ``tree``, whose parent is TMPDIR, to the new folder ``store``. Returns costs as Session.operate does."""

    @abstractmethod
    def load(self, session: Session, store: Path, target: Path) -> Mapping[str, float]:
        """Load into the new folder ``target``. Returns costs as Session.operate does."""

    def check(self, tree: Path, restored: Path, *, in_full: bool) -> None:
        """Raise OperationFailedError unless the files were restored; ``in_full`` compares every byte."""
        if in_full and (wrong := differences(tree, restored, relocated=self.relocates, with_times=self.keeps_times)):
            raise OperationFailedError(f"{len(wrong)} files were not restored as they were: {wrong[0]}")
        found, expected = extent(restored), extent(tree)
        if found.files != expected.files or (not self.relocates and found != expected):
            raise OperationFailedError(f"it restored {found} instead of {expected}")

    def turn(self, session: Session, tree: Path, name: str = "") -> Callable[[Path, int], dict[str, float]]:
        """A save and a load in one round, for :meth:`Samples.take_turns`. ``name`` tells two trees apart."""

        def act(folder: Path, number: int) -> dict[str, float]:
            store, target = folder / f"store-{name}{self.slug}", folder / f"restored-{name}{self.slug}"
            saved = self.save(session, tree, store)
            loaded = self.load(session, store, target)
            self.check(tree, target, in_full=number == 0)
            found = {"stored": extent(store).bytes / 1e6}
            for operation, costs in (("save", saved), ("load", loaded)):
                found |= {operation: costs["seconds"], f"{operation} process": costs["process"]}
                found |= {f"{operation} {name}": costs[name] for name in ("peak", "costly") if name in costs}
            return found

        return act

    @property
    def slug(self) -> str:
        """Its name as a part of a file name."""
        return re.sub(r"\W+", "-", self.name)


class Package(Contender):
    """An installed b10_transfer."""

    def __init__(self, program: Program) -> None:
        self.name, self.program = program.name, program
        self.relocates = self.keeps_times = program is OURS

    def save(self, session: Session, tree: Path, store: Path) -> Mapping[str, float]:
        # torch keeps precompiled headers in TMPDIR, outside its cache.
        return session.operate(self.program, "save_compile_cache", store, tree, tree.parent)

    def load(self, session: Session, store: Path, target: Path) -> Mapping[str, float]:
        return session.operate(self.program, "load_compile_cache", store, target)


class Commands(Contender):
    """A command for each operation, with ``STORE`` and ``TREE`` for the folders."""

    def __init__(self, name: str, save: str, load: str) -> None:
        self.name, self.save_command, self.load_command = name, save, load

    def save(self, session: Session, tree: Path, store: Path) -> Mapping[str, float]:
        store.mkdir()
        return self._run(session, _filled(self.save_command, store, tree))

    def load(self, session: Session, store: Path, target: Path) -> Mapping[str, float]:
        target.mkdir()
        return self._run(session, _filled(self.load_command, store, target))

    def _run(self, session: Session, command: list[str]) -> Mapping[str, float]:
        finished = session.run(command, session.environment())
        return {"seconds": finished.seconds, "process": finished.seconds, "cpu": finished.cpu_seconds}


def _filled(command: str, store: Path, tree: Path) -> list[str]:
    folders = {"STORE": str(store), "TREE": str(tree)}
    words = re.findall(r"'[^']*'|\S+", command)
    return [re.sub("STORE|TREE", lambda found: folders[found.group()], word.strip("'")) for word in words]


COMMANDS = (
    Commands("tar -czf", "tar -C TREE -czf STORE/cache.tar.gz .", "tar -C TREE -xzf STORE/cache.tar.gz"),
    Commands(
        "tar, zstd -T0",
        "tar -C TREE -I 'zstd -T0 -q' -cf STORE/cache.tar.zst .",
        "tar -C TREE -I 'zstd -T0 -q' -xf STORE/cache.tar.zst",
    ),
    Commands("cp -r", "cp -r TREE/. STORE", "cp -r STORE/. TREE"),
)


def packages(session: Session, samples: Samples) -> list[Package]:
    """This project, and the published package if it works here; otherwise notes why not."""
    if session.peer:
        return [Package(OURS), Package(session.peer)]
    samples.failed[PUBLISHED] = session.why_no_peer
    return [Package(OURS)]
