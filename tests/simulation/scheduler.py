"""Simulated time: replacements for ``time``, ``threading`` and ``queue``.

Every simulated thread is a greenlet. One runs until it waits. When all wait, the clock jumps to the next event. Code
between two waits takes no simulated time. Equal seeds give equal runs.
"""

from __future__ import annotations

import heapq
import itertools
import queue
from collections import deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from greenlet import greenlet

EPOCH_S = 1_700_000_000.0
"""``time.time()`` at the start of a simulation."""


class _Wakeup:
    """Wakes a waiting thread once."""

    __slots__ = ("is_over", "thread", "timed_out")

    def __init__(self, thread: Thread) -> None:
        self.thread = thread
        self.is_over = False
        self.timed_out = False


class Scheduler:
    """Runs threads in the order of simulated time."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._hub = greenlet.getcurrent()
        self._current: Thread | None = None

    def at(self, moment_s: float, action: Callable[[], None]) -> None:
        """Run ``action`` at a moment, outside any simulated thread. It must not wait."""
        heapq.heappush(self._due, (max(moment_s, self.now_s), next(self._order), action))

    def run(self) -> None:
        """Run until no event is left. Raises any exception that a thread raises."""
        while self._due:
            self.now_s, _order, action = heapq.heappop(self._due)
            action()

    def start(self, function: Callable[[], object]) -> None:
        """Start a thread."""
        Thread(self, function).start()

    def sleep(self, seconds: float) -> None:
        self.wait(deque(), seconds)

    def wait(self, waiting: deque[_Wakeup], timeout_s: float | None) -> bool:
        """Wait until :meth:`wake` is called for ``waiting``. Returns False on a timeout."""
        assert self._current is not None, "only a simulated thread can wait"
        wakeup = _Wakeup(self._current)
        waiting.append(wakeup)
        if timeout_s is not None:
            self.at(self.now_s + max(timeout_s, 0.0), lambda: self._time_out(wakeup))
        self._hub.switch()
        return not wakeup.timed_out

    def wake(self, waiting: deque[_Wakeup], count: int = 1) -> None:
        """Wake up to ``count`` threads, in the order in which they began to wait."""
        while count and waiting:
            wakeup = waiting.popleft()
            if not wakeup.is_over:
                wakeup.is_over = True
                self.at(self.now_s, wakeup.thread.switch)
                count -= 1

    def _time_out(self, wakeup: _Wakeup) -> None:
        if not wakeup.is_over:
            wakeup.is_over = wakeup.timed_out = True
            wakeup.thread.switch()

    def modules(self) -> dict[str, Any]:
        """The parts of ``time``, ``threading`` and ``queue`` that the project uses."""

        def clock() -> float:
            return EPOCH_S + self.now_s

        return {
            "time": SimpleNamespace(
                monotonic=lambda: self.now_s,
                perf_counter=lambda: self.now_s,
                time=clock,
                time_ns=lambda: int(clock() * 1e9),
                sleep=self.sleep,
            ),
            "threading": SimpleNamespace(
                Thread=lambda target, **_options: Thread(self, target),
                Lock=lambda: Lock(self),
                Event=lambda: Event(self),
            ),
            "queue": SimpleNamespace(SimpleQueue=_SubscriptedQueue(self), Empty=queue.Empty),
        }


class Thread:
    """A greenlet that the scheduler runs."""

    def __init__(self, scheduler: Scheduler, function: Callable[[], object]) -> None:
        self._scheduler = scheduler
        self._greenlet = greenlet(function, parent=scheduler._hub)

    def start(self) -> None:
        self._scheduler.at(self._scheduler.now_s, self.switch)

    def switch(self) -> None:
        """Run the thread until it waits or ends. Only the scheduler calls this."""
        scheduler = self._scheduler
        scheduler._current = self
        self._greenlet.switch()


class Lock:
    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._waiting: deque[_Wakeup] = deque()
        self._is_held = False

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        ends = None if timeout < 0 else self._scheduler.now_s + timeout
        while self._is_held:
            left_s = None if ends is None else ends - self._scheduler.now_s
            if not blocking or (left_s is not None and left_s <= 0) or not self._scheduler.wait(self._waiting, left_s):
                return False
        self._is_held = True
        return True

    def release(self) -> None:
        self._is_held = False
        self._scheduler.wake(self._waiting)

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class Event:
    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._waiting: deque[_Wakeup] = deque()
        self._is_set = False

    def is_set(self) -> bool:
        return self._is_set

    def set(self) -> None:
        self._is_set = True
        self._scheduler.wake(self._waiting, len(self._waiting))

    def wait(self, timeout: float | None = None) -> bool:
        if not self._is_set:
            self._scheduler.wait(self._waiting, timeout)
        return self._is_set


class SimpleQueue:
    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._waiting: deque[_Wakeup] = deque()
        self._items: deque[Any] = deque()

    def put(self, item: Any) -> None:
        self._items.append(item)
        self._scheduler.wake(self._waiting)

    def get(self) -> Any:
        while not self._items:
            self._scheduler.wait(self._waiting, None)
        return self._items.popleft()

    def get_nowait(self) -> Any:
        if not self._items:
            raise queue.Empty
        return self._items.popleft()


class _SubscriptedQueue:
    """``SimpleQueue`` that supports ``SimpleQueue[T]``, which annotations evaluate at run time."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    def __getitem__(self, _item: object) -> _SubscriptedQueue:
        return self

    def __call__(self) -> SimpleQueue:
        return SimpleQueue(self._scheduler)
