"""Tells how long a program spent on each of several activities, none counted twice."""

from __future__ import annotations

import importlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from threading import Lock, local
from typing import Any


class Stopwatch:
    """Seconds of each activity by ``clock``. An activity within another interrupts that one; threads have their own.

    With ``time.thread_time`` as clock it is the work that counts, so that the sum over threads which work at the same
    time means something; with ``time.perf_counter`` it is what somebody waits for.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._clock = clock
        self._threads = local()
        self._adding = Lock()

    def begin(self, activity: str | None) -> None:
        """Begin an activity; None means: go on with the one that is running."""
        stack = self._stack()
        now = self._clock()
        if stack:
            self._add(stack[-1], now - self._threads.since)
        if activity is not None or stack:
            stack.append(activity or stack[-1])
        self._threads.since = now

    def end(self) -> None:
        """End the activity that was begun last in this thread; without one, nothing happens."""
        stack = self._stack()
        if stack:
            now = self._clock()
            self._add(stack.pop(), now - self._threads.since)
            self._threads.since = now

    @contextmanager
    def during(self, activity: str) -> Iterator[None]:
        """Count what runs within as this activity."""
        self.begin(activity)
        try:
            yield
        finally:
            self.end()

    def watch(self, owner: Any, name: str, activity: str) -> None:
        """Count calls of a function as this activity, from now on; ``owner`` is the class or module that has it."""
        function = getattr(owner, name)

        @wraps(function)
        def watched(*arguments: Any, **named: Any) -> Any:
            self.begin(activity)
            try:
                return function(*arguments, **named)
            finally:
                self.end()

        setattr(owner, name, watched)

    def watch_iterator(self, owner: Any, name: str, activity: str) -> None:
        """The same for a function that returns an iterator: each step counts."""
        function = getattr(owner, name)

        @wraps(function)
        def watched(*arguments: Any, **named: Any) -> Iterator[Any]:
            steps = iter(function(*arguments, **named))
            while True:
                self.begin(activity)
                try:
                    step = next(steps)
                except StopIteration:
                    return
                finally:
                    self.end()
                yield step

        setattr(owner, name, watched)

    def watch_imports(self, activity: str = "imports") -> None:
        """Count every import of a module that is not loaded yet, wherever it happens."""
        # The function that the interpreter itself calls for those.
        self.watch(importlib._bootstrap, "_find_and_load", activity)

    def _add(self, activity: str, seconds: float) -> None:
        with self._adding:
            self.seconds[activity] += seconds

    def _stack(self) -> list[str]:
        if not hasattr(self._threads, "stack"):
            self._threads.stack = []
            self._threads.since = self._clock()
        stack: list[str] = self._threads.stack
        return stack
