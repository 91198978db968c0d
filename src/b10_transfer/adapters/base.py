"""The seam between the cache of one compiler and everything else."""

from __future__ import annotations

import fcntl
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable
from enum import Enum
from pathlib import Path
from typing import NamedTuple

from ..config.reader import EnvReader, Variable

_TRANSIENT = re.compile(
    r"""(?x)
    (?:^|/)
    (?: [^/]*\.lock | lock
      | [^/]*\.tmp | tmp\.[^/]* | \.nfs[0-9a-f]+
      | (?:\.[^/]*)?\.b10-[^/]*   # our own staging and locks
      | __pycache__
    )
    (?:/|$)
    """
)
"""Names, of files or folders, that are never artifacts: locks, half-written files, leftovers.

``.<pid>.<thread>.tmp`` and ``<name>.<pid>.tmp`` (Inductor, vLLM) end in ``.tmp``; ``tmp.pid_…`` is Triton's.
"""


class UnitKind(str, Enum):
    """How the files of a unit lie, and so how they are put in place."""

    FOLDER = "folder"
    """Everything below one folder; the folder is renamed into place whole."""
    STEM = "stem"
    """Files in one folder that share the beginning of their name; each is linked into place by itself."""

    __hash__ = str.__hash__


class Unit(NamedTuple):
    """The smallest thing that is published, restored or replaced whole.

    ``path`` is relative to the cache root, ``/``-separated. The unit's files are those below it (FOLDER), or those
    whose path is it, or begins with it and a dot (STEM).
    """

    path: str
    kind: UnitKind


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
    variables: tuple[Variable, ...] = ()
    """The environment variables that say where the root is, for docs/configuration.md."""

    @abstractmethod
    def locate(self, env: EnvReader) -> Path | None:
        """The root's absolute path on this machine, links resolved; None if it is where it cannot be taken.

        Raises ConfigurationError.
        """

    def check_place(self, env: EnvReader, path: Path) -> None:
        """Raise ConfigurationError if the cache must not be at a path that :meth:`locate` returned, links resolved."""
        return

    @abstractmethod
    def unit_of(self, path: str) -> Unit | None:
        """The unit that the file at ``path`` (relative to the root, ``/``-separated) belongs to.

        None if the file is no artifact: a lock, a half-written file, something that is of no use elsewhere.
        """

    def skips_folder(self, path: str) -> bool:
        """Whether a folder holds no artifacts at all, so that it need not be looked into."""
        return is_transient(path)

    def is_complete(self, root: Path, unit: Unit, files: Collection[str]) -> bool:
        """Whether the compiler is done with a unit that has the given files (paths relative to the root)."""
        return bool(files)

    def may_be_replaced(self, unit: Unit) -> bool:
        """Whether the compiler may find a unit out of date and write it anew under the same name."""
        return False

    def covers(self, root: str, other: str) -> bool:
        """Whether the cache at path ``other`` lies in this ``root`` in a place where this adapter takes it along.

        Paths are text here: comparing those of all caches as ``Path`` takes milliseconds.
        """
        return root == other

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


def is_transient(path: str) -> bool:
    """Whether any component of a path names something that is never an artifact."""
    return _is_hinted(path) and _TRANSIENT.search(path) is not None


def any_transient(paths: Iterable[str]) -> bool:
    """The same of many paths at once."""
    lines = "\n".join(paths)
    return _is_hinted(lines) and any(map(is_transient, lines.split("\n")))


def _is_hinted(text: str) -> bool:
    # Nearly every path is dismissed by this, in a fraction of the expression's time.
    return "lock" in text or "tmp" in text or ".nfs" in text or ".b10-" in text or "__pycache__" in text


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
