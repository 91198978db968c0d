"""Units that a load restores after it has returned.

A compiler that needs such a unit looks for it under the unit's lock, and builds it if it is missing. So the load holds
that lock until the unit is in place: the compiler waits for a moment, instead of building for seconds. The lock is
held in shared mode, in which the compiler cannot take it, and the restore does not take it for the compiler's.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress

from ..adapters import CacheRoot, Unit, UnitKind
from ..errors import LocalCacheError
from ..stores.folders import make_folders
from .ownership import user_to_restore_as
from .presence import below_root

_held: set[int] = set()
"""Descriptors of the locks of this process."""


def split(names: Iterable[str], roots: Iterable[CacheRoot]) -> tuple[list[str], list[str]]:
    """Units that a load restores before it returns, and those that may follow.

    None follows if nothing else is restored, or if another user's compiler has to open the lock.
    """
    deferred = {root.name for root in roots if root.adapter.is_deferred and _is_own(root)}
    now: list[str] = []
    later: list[str] = []
    for name in names:
        (later if name.partition("/")[0] in deferred else now).append(name)
    return (now, later) if now else (later, [])


def _is_own(root: CacheRoot) -> bool:
    try:
        return not root.may_be_shared and user_to_restore_as(root) is None
    except LocalCacheError:
        return False


@contextmanager
def compilers_wait(names: Iterable[str], roots: Iterable[CacheRoot]) -> Iterator[None]:
    """Hold the locks of stems. One that a compiler holds is left to it."""
    by_name = {root.name: root for root in roots}
    descriptors = [_locked(by_name, name) for name in names]
    try:
        yield
    finally:
        for descriptor in descriptors:
            if descriptor is not None:
                _held.discard(descriptor)
                # Explicitly, because a process forked meanwhile has the same open file and would keep the lock.
                with suppress(OSError):
                    fcntl.flock(descriptor, fcntl.LOCK_UN)
                os.close(descriptor)


def _locked(roots: Mapping[str, CacheRoot], name: str) -> int | None:
    """Lock a unit. None if its compiler has locked it, or if that is impossible: the compiler may build it then."""
    root = roots[name.partition("/")[0]]
    lock = root.adapter.lock_of(root.path, Unit(below_root(name), UnitKind.STEM))
    if lock is None:
        return None
    with suppress(OSError):
        make_folders(lock.parent)
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise
        _held.add(descriptor)
        return descriptor
    return None


def _close_in_child() -> None:
    """Let go of the locks in a forked process, which would otherwise keep them if this one is killed meanwhile."""
    while _held:
        os.close(_held.pop())


os.register_at_fork(after_in_child=_close_in_child)
