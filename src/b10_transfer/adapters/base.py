"""The seam between the cache of one compiler and everything else."""

from __future__ import annotations

import fcntl
import os
from abc import ABC, abstractmethod
from collections.abc import Collection
from pathlib import Path

from ..config.reader import EnvReader, Variable
from .accumulation import Results
from .layout import Layout
from .units import Unit, UnitKind, any_transient, is_transient

__all__ = ["Adapter", "Unit", "UnitKind", "any_transient", "is_being_built", "is_locked", "is_transient"]


class Adapter(ABC):
    """Knows the cache of one compiler."""

    name: str
    """What the cache is called in packs: the first component of its members' paths. Never changes once released."""

    title: str
    """What the cache is, in a few words, for people."""
    units: str
    """What its units are, in a few words, for people."""
    accompanies: bool = False
    """Whether its units only go along with compile artifacts: alone they neither make a cache nor are worth a save."""
    layout: Layout
    """What the compiler writes."""
    variables: tuple[Variable, ...] = ()
    """The environment variables that say where the root is, for docs/configuration.md."""
    version: str = ""
    """Of another package's adapter: the version that its units are bound to. A pod with another version does not load
    them. Empty if the names of the units, or the environment key, hold all that they depend on."""

    is_plugin = False
    """Whether another package adds it."""

    @property
    def cache(self) -> str:
        """The name of the cache in B10_CACHES."""
        return self.name

    @abstractmethod
    def locate(self, env: EnvReader) -> Path | None:
        """The root's absolute path on this machine, links resolved; None if it is where it cannot be taken.

        Raises ConfigurationError.
        """

    def check_place(self, env: EnvReader, path: Path) -> None:
        """Raise ConfigurationError if the cache must not be at a path that :meth:`locate` returned, links resolved."""
        return

    def unit_of(self, path: str) -> Unit | None:
        """The unit that the file at ``path`` (relative to the root, ``/``-separated) belongs to.

        None if the compiler writes no artifact of such a path: a lock, a half-written file, a file of somebody else.
        """
        return self.layout.unit_of(path)

    def skips_folder(self, path: str) -> bool:
        """Whether the compiler writes no artifacts into a folder, so that it need not be looked into."""
        return not self.layout.may_hold(path)

    def leaves_here(self, path: str) -> bool:
        """Whether the compiler writes such a file or folder, which is of no use elsewhere."""
        return self.layout.is_left_here(path)

    def written(self, unit: Unit, files: Collection[str], *, is_mixed: bool = False) -> Collection[str]:
        """Which of the files that may belong to a unit the compiler wrote, as far as their names tell.

        Where a name says little (``config.json`` may be a kernel's), the names beside it decide.

        Args:
            unit: A unit.
            files: Paths for which :meth:`unit_of` names the unit.
            is_mixed: Whether its folder also holds entries that no compiler writes.
        """
        return files

    def is_complete(self, root: Path, unit: Unit, files: Collection[str]) -> bool:
        """Whether the compiler has finished a unit that has the given files (paths relative to the root)."""
        return bool(files)

    def is_held(self, root: Path, unit: Unit) -> bool:
        """Whether a live process holds the lock under which the compiler writes a unit."""
        return False

    def may_be_replaced(self, unit: Unit, files: Collection[str] = ()) -> bool:
        """Whether the compiler may find a unit out of date, or improve it, and write it anew under the same name."""
        return False

    def results_of(self, path: str) -> Results | None:
        """How results are merged that a file, a unit of its own, collects; None if the file is another one."""
        return None

    def covers(self, root: str, other: str, adapter: Adapter) -> bool:
        """Whether this adapter, at ``root``, saves and restores all that ``adapter`` would at the path ``other``.

        Paths are text here: comparing those of all caches as ``Path`` takes milliseconds.
        """
        return root == other and self.layout is adapter.layout

    def is_rewritten(self, path: str) -> bool:
        """Whether a file holds paths of this machine, and so passes through the next two methods."""
        return False

    def to_portable(self, path: str, data: bytes, files: Collection[str]) -> bytes:
        """The content of the file at ``path`` with paths of this machine taken out; ``files`` are its unit's.

        Raises ValueError if the content is not as the compiler writes it.
        """
        raise NotImplementedError

    def to_local(self, root: Path, path: str, data: bytes) -> bytes:
        """The inverse: portable content with this machine's paths put in. Raises ValueError if it is not sound."""
        raise NotImplementedError


def is_locked(lock: Path) -> bool:
    """Whether a compiler holds a lock file (with ``flock``), that is, may still be writing what the lock stands for."""
    try:
        descriptor = os.open(lock, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:  # never locked here: what it stands for was restored
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        # Explicitly, because a process forked meanwhile has the same open file and would keep the lock.
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks
        return False
    finally:
        os.close(descriptor)
    return False


def is_being_built(binary: Path) -> bool:
    """Whether Inductor has begun to build a library or header and not finished, be it because it was killed.

    Its C++ builder makes the folder ``<name>_CxxBuild`` first and removes it last (torch 2.13,
    ``torch/_inductor/cpp_builder.py``, ``CppBuilder.build``); the compiler writes straight to the binary's final name.
    """
    return (binary.parent / f"{binary.stem}_CxxBuild").is_dir()
