"""Which programs of this pod compile into a set of caches, and which process saves what they compile.

Both are file locks in a folder of this user. The kernel releases a lock when its last holder ends, by SIGKILL too. A
forked process holds the locks of its parent, a program that it executes does not.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from ..adapters import CacheRoot
from .state import make_private, state_folder

_CREATE = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
_PROGRAMS, _LOG = ".programs", ".log"
_PAUSE_S = 0.01
"""Between tries to get a lock: another process may hold it for a moment, only to find out whether it is free."""
_held: dict[str, int] = {}
"""Descriptors of the locks that this process holds as a program, by path."""


class Supervision:
    """The programs and the supervisor of one set of caches."""

    def __init__(self, folder: Path, name: str) -> None:
        """
        Args:
            folder: The folder of the locks.
            name: The name of the set.
        """
        self.folder = folder
        self.name = name
        self.log = folder / (name + _LOG)
        """The log of the supervisor. Its lock is the supervisor's."""
        self._programs = folder / (name + _PROGRAMS)
        self._supervisor = -1

    @classmethod
    def of(cls, roots: Iterable[CacheRoot], store: object, namespace: str, environment_id: str) -> Supervision:
        """That of some caches, whose units are saved to one place."""
        facts = [str(store), namespace, environment_id, *sorted(f"{root.name} {root.path}" for root in roots)]
        name = hashlib.sha256("\0".join(facts).encode("utf-8", "surrogateescape")).hexdigest()[:16]
        return cls(state_folder(), name)

    def join(self) -> None:
        """Note that this process, with those that it forks, is a program. Raises OSError."""
        path = str(self._programs)
        if path in _held:
            return
        make_private(self.folder)
        if (descriptor := _locked(self._programs, fcntl.LOCK_SH)) is None:
            raise BlockingIOError(errno.EAGAIN, "another process holds its lock", path)
        _held[path] = descriptor

    def has_programs(self) -> bool:
        """Whether any program has not ended."""
        if (descriptor := self._locked_if_alone()) is None:
            return True
        os.close(descriptor)
        return False

    def has_supervisor(self) -> bool:
        """Whether a process saves this set. False if that is unknown."""
        with suppress(OSError):
            if not os.path.lexists(self.log):
                return False
            if (descriptor := _locked(self.log, fcntl.LOCK_EX, tries=1)) is None:
                return True
            os.close(descriptor)
        return False

    def supervise(self, *, alone: bool) -> bool:
        """Become a supervisor of this set until this process ends.

        Args:
            alone: Whether this is to be the only supervisor.

        Returns:
            Whether this is one now. False if another process is the only supervisor.

        Raises:
            OSError: There can be no locks.
        """
        make_private(self.folder)
        if (descriptor := _locked(self.log, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)) is None:
            return False
        self._supervisor = descriptor
        return True

    def leave(self) -> bool:
        """End the supervision if no program is left; whether that is so.

        A program that joins meanwhile finds either this supervisor, which goes on, or none.
        """
        if (descriptor := self._locked_if_alone()) is None:
            return False
        os.close(self._supervisor)
        os.close(descriptor)
        return True

    def _locked_if_alone(self) -> int | None:
        """The lock of the programs if there is none, else None."""
        return _locked(self._programs, fcntl.LOCK_EX, tries=1)


def _locked(path: Path, kind: int, tries: int = 10) -> int | None:
    """Open a file and lock it; its descriptor, or None if another process holds the lock. Raises OSError."""
    descriptor = os.open(path, _CREATE, 0o600)
    try:
        while True:
            with suppress(BlockingIOError):
                fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
                return descriptor
            tries -= 1
            if not tries:
                os.close(descriptor)
                return None
            time.sleep(_PAUSE_S)
    except OSError:
        os.close(descriptor)
        raise
