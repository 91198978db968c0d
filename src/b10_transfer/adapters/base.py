"""The interface between the cache of one compiler and the rest of this package."""

from __future__ import annotations

import fcntl
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from ..config.reader import EnvReader, Variable
from .accumulation import Results
from .layout import Layout
from .units import Unit, UnitKind, any_transient, is_transient

__all__ = ["Adapter", "Unit", "UnitKind", "any_transient", "is_being_built", "is_locked", "is_transient"]


class Adapter(ABC):
    """Knows the cache of one compiler."""

    name: str
    """The name of the cache in packs: the first component of its files' paths, or the beginning of it (:attr:`root`).
    It never changes once released."""

    title: str
    """The contents of the cache in a few words."""
    units: str
    """Its units in a few words."""
    accompanies: bool = False
    """Whether the cache is auxiliary: its units are saved and restored only together with artifacts of others."""
    is_deferred: bool = False
    """Whether a load returns before it restores this cache. The compiler needs the cache late in a start, and waits for
    :meth:`lock_of`. Reports do not count its units."""
    layout: Layout
    """The paths that the compiler writes."""
    variables: tuple[Variable, ...] = ()
    """The environment variables that decide where the root is, for docs/configuration.md."""
    version: str = ""
    """Of another package's adapter: the version that its units are bound to. A pod with another version does not load
    them. Empty if the names of the units, or the environment key, hold all that they depend on."""

    most_rewritten_bytes = 256 * 1024
    """The largest file that :meth:`to_portable` and :meth:`to_local` take. Both take it whole, and taking it apart may
    take 500 times its size."""

    takes_everything = False
    """Whether every file in the root is an artifact. A unit of which an entry cannot be saved is then left out."""

    is_plugin = False
    """Whether another package adds it."""

    @property
    def is_reported(self) -> bool:
        """Whether reports of use count the units of the cache."""
        return not (self.accompanies or self.is_deferred)

    @property
    def root(self) -> str:
        """The name under which packs hold the units: :attr:`name`, and what they are bound to on this pod."""
        return self.name

    @property
    def cache(self) -> str:
        """The name of the cache in B10_CACHES."""
        return self.name

    @abstractmethod
    def locate(self, env: EnvReader) -> Path | None:
        """The root's absolute path on this machine, links resolved; None if the cache cannot be saved where it is.

        Raises:
            ConfigurationError: A variable has a wrong value.
        """

    def check_place(self, env: EnvReader, path: Path) -> None:
        """Raise ConfigurationError if the cache must not be at a path that :meth:`locate` returned, links resolved."""
        return

    def unit_of(self, path: str) -> Unit | None:
        """The unit that the file at ``path`` (relative to the root, ``/``-separated) belongs to.

        None if the compiler writes no artifact of such a path: a lock, a half-written file, a file of another program.
        """
        return self.layout.unit_of(path)

    def skips_folder(self, path: str) -> bool:
        """Whether the compiler writes no artifacts into a folder. Such a folder is not entered."""
        return not self.layout.may_hold(path)

    def leaves_here(self, path: str) -> bool:
        """Whether the compiler writes such a file or folder, which is of no use elsewhere."""
        return self.layout.is_left_here(path)

    def written(self, unit: Unit, files: Collection[str], *, is_mixed: bool = False) -> Collection[str]:
        """The files of a unit that the compiler wrote, judged by their names.

        If a name is ambiguous (``config.json`` may be a kernel's), the names beside it decide.

        Args:
            unit: A unit.
            files: Paths for which :meth:`unit_of` names the unit.
            is_mixed: Whether its folder also holds entries that no compiler writes.
        """
        return files

    def is_complete(self, root: Path, unit: Unit, files: Collection[str]) -> bool:
        """Whether the compiler has finished a unit that has the given files (paths relative to the root)."""
        return bool(files)

    def lock_of(self, root: Path, unit: Unit) -> Path | None:
        """The lock of a unit: the compiler holds it exclusively while it looks whether the unit is there or writes it.

        None if there is no such lock. A cache that is deferred has one for each unit.
        """
        return None

    def is_held(self, root: Path, unit: Unit) -> bool:
        """Whether a live process holds the lock under which the compiler writes a unit."""
        return False

    def may_be_replaced(self, unit: Unit, files: Collection[str] = ()) -> bool:
        """Whether the compiler may write a unit again under the same name: because it is outdated, or to improve it."""
        return False

    def depends_on_host(self, unit: Unit, files: Collection[str]) -> bool:
        """Whether a unit may be of no use, or harmful, on another CPU or with another C library.

        False only for GPU code and for the results of tuning a GPU. A load that finds nothing else restores such units
        from pods with another CPU. It refuses libraries and objects for a host in any case.

        Args:
            unit: A unit.
            files: Its files, relative to the root.
        """
        return True

    def may_follow(self, unit: Unit, files: Collection[str]) -> bool:
        """Whether a load may restore a unit after it has returned, if earlier starts did not use it.

        True only if the compiler looks for the unit when it needs it, and makes it if it is not there: for the results
        of candidates that were compiled, measured and never used again.

        Args:
            unit: A unit.
            files: Its files, relative to the root.
        """
        return False

    def results_of(self, path: str) -> Results | None:
        """The format of a file that collects results, and is a unit of its own; None for any other file."""
        return None

    def key_facts(self, env: EnvReader, root: Path) -> Mapping[str, str]:
        """The values on this pod of what only the compiler's keys hold, by name (:mod:`.key_facts`).

        Args:
            env: The variables.
            root: The root.
        """
        return {}

    def covers(self, root: str, other: str, adapter: Adapter) -> bool:
        """Whether this adapter, at ``root``, covers the cache of ``adapter`` at the path ``other``.

        Paths are text here: comparing those of all caches as ``Path`` takes milliseconds.
        """
        return root == other and self.layout is adapter.layout

    def is_rewritten(self, path: str) -> bool:
        """Whether a file contains paths of this machine, and so passes through the next two methods."""
        return False

    def to_portable(self, root: Path, path: str, data: bytes, files: Collection[str]) -> bytes:
        """Remove this machine's paths from the content of a file.

        Args:
            root: The root's path on this machine.
            path: The file, relative to the root.
            data: Its content.
            files: The files of its unit.

        Raises:
            ValueError: The content is not as the compiler writes it.
        """
        raise NotImplementedError

    def to_local(self, root: Path, path: str, data: bytes) -> bytes:
        """Put this machine's paths into portable content. Raises ValueError if the content is not valid."""
        raise NotImplementedError

    def fitting(self, root: Path, staged: Path, check: Callable[[], None]) -> Callable[[Unit], str] | None:
        """How staged units are adapted to this machine, just before they are put in place; None if they need not be.

        Args:
            root: The root.
            staged: The folder that holds the files, by their paths relative to the root.
            check: Called now and then while that takes long. What it raises ends the operation.

        Returns:
            A function that adapts a unit. It returns why the unit is of no use on this machine, and is not restored;
            empty if it is. It raises OSError if a file cannot be written.
        """
        return None


def json_object(data: bytes, otherwise: str) -> dict[str, Any]:
    """The JSON object in a file.

    Args:
        data: The content of the file.
        otherwise: The message if that is no such object.

    Raises:
        ValueError: It is none.
    """
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ValueError(otherwise) from error
    if not isinstance(content, dict):
        raise ValueError(otherwise)
    return content


def is_locked(lock: Path) -> bool:
    """Whether a compiler holds a lock file (with ``flock``), so that it may still write what the lock protects."""
    try:
        descriptor = os.open(lock, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:  # it was never locked here: the unit was restored
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
    """Whether Inductor has begun to build a library or header and has not finished, for example because it was killed.

    Its C++ builder makes the folder ``<name>_CxxBuild`` first and removes it last (torch 2.13,
    ``torch/_inductor/cpp_builder.py``, ``CppBuilder.build``); the compiler writes straight to the binary's final name.
    """
    return (binary.parent / f"{binary.stem}_CxxBuild").is_dir()
