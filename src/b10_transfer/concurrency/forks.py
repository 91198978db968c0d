"""Makes locks safe where the program forks: a child inherits each lock, but only the thread that forked.

A lock that another thread held in that moment would never be released in the child. ``functools.cached_property``
(before Python 3.12) and ``import`` hold such locks, too.
"""

from __future__ import annotations

import logging  # noqa: F401  # see ForkGuard
import os
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Generic, TypeVar, overload

T = TypeVar("T")

_FORK_WAITS_S = 5.0
"""A hung driver or disk must not block a fork for longer."""


class ForkGuard:
    """A lock that each fork of this process waits for, so that no child inherits what the holder has half done.

    A thread may acquire it again while it holds it. A fork waits for at most a few seconds. If it has waited in vain,
    the child has a lock that nobody holds.
    """

    # A fork takes the lock of ``logging`` as well, and the holder of this one may log. So this one must come first, and
    # of those who registered the last comes first. Hence the import of logging above.

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._forking = threading.local()
        os.register_at_fork(
            before=self._before_fork, after_in_parent=self._after_in_parent, after_in_child=self._after_in_child
        )

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()

    def _before_fork(self) -> None:
        self._forking.holds = self._lock.acquire(timeout=_FORK_WAITS_S)

    def _after_in_parent(self) -> None:
        if self._forking.holds:
            self._lock.release()

    def _after_in_child(self) -> None:
        if self._forking.holds:
            self._lock.release()
        else:
            self._lock = threading.RLock()


no_fork = ForkGuard()
"""Held around what holds a lock of the standard library for long: an ``import``, the first use of ``tempfile``."""


class cached_property(Generic[T]):  # noqa: N801  # it stands for the one of functools
    """An attribute that is computed when it is first read. Unlike that of ``functools`` it holds no lock.

    Two threads may both compute it. So the function must give equal results.
    """

    def __init__(self, compute: Callable[[Any], T]) -> None:
        self._compute = compute
        self.__doc__ = compute.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> cached_property[T]: ...

    @overload
    def __get__(self, instance: object, owner: type) -> T: ...

    def __get__(self, instance: object | None, owner: type) -> T | cached_property[T]:
        if instance is None:
            return self
        value = self._compute(instance)
        # Not by setattr: dataclasses may be frozen. From now on Python finds the value before this descriptor.
        instance.__dict__[self._name] = value
        return value
