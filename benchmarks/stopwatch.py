"""Counts the seconds of several activities, and no second twice."""

from __future__ import annotations

import importlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from threading import Lock, local
from typing import Any


class Stopwatch:
    """Seconds of each activity by ``clock``. A nested activity interrupts the outer one; each thread has its own stack.

    ``time.thread_time`` counts CPU time, ``time.perf_counter`` elapsed time.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._clock = clock
        self._threads = local()
        self._adding = Lock()

    def begin(self, activity: str | None) -> None:
        """Begin an activity; None continues the running one."""
        stack = self._count()
        if activity is not None or stack:
            stack.append(activity or stack[-1])

    def end(self) -> None:
        """End the latest activity of this thread, if there is one."""
        if stack := self._count():
            stack.pop()

    @contextmanager
    def during(self, activity: str) -> Iterator[None]:
        """Count the block as an activity."""
        self.begin(activity)
        try:
            yield
        finally:
            self.end()

    def counted(self, function: Callable[..., Any], activity: str) -> Callable[..., Any]:
        """``function``, whose calls count as an activity."""

        @wraps(function)
        def counted(*arguments: Any, **named: Any) -> Any:
            with self.during(activity):
                return function(*arguments, **named)

        return counted

    def watch_imports(self, activity: str) -> None:
        """Count every import of a module that is not yet loaded."""
        bootstrap: Any = importlib._bootstrap
        bootstrap._find_and_load = self.counted(bootstrap._find_and_load, activity)

    def _count(self) -> list[str]:
        """Add the time since the last call to the running activity; the stack of this thread."""
        stack: list[str] = self._threads.__dict__.setdefault("stack", [])
        now = self._clock()
        if stack:
            with self._adding:
                self.seconds[stack[-1]] += now - self._threads.since
        self._threads.since = now
        return stack
