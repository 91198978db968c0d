"""A few daemon threads that make requests in the background.

``concurrent.futures`` would do, but it takes 15 ms to import, which every load from a bucket would wait for.
"""

from __future__ import annotations

from _thread import allocate_lock, start_new_thread
from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar  # obstore imports it, too

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

T = TypeVar("T")


class Task(Generic[T]):
    """A function that a thread runs, or will run."""

    def __init__(self, function: Callable[[], T]) -> None:
        self._function = function
        self._is_cancelled = False
        self._results: list[T] = []
        self._error: BaseException | None = None
        self._pending = allocate_lock()
        self._pending.acquire()

    def run(self) -> None:
        if not self._is_cancelled:
            try:
                self._results.append(self._function())
            except BaseException as error:  # noqa: BLE001 - raised again by result()
                self._error = error
        self._pending.release()

    def result(self) -> T:
        """Wait for the result. Raises the error of the function."""
        with self._pending:
            pass
        if self._error is not None:
            raise self._error
        return self._results[0]

    def cancel(self) -> None:
        """Do not start it. Its result must not be requested any more."""
        self._is_cancelled = True


class Background:
    """Runs at most ``threads`` tasks at once, in the order in which they were submitted."""

    def __init__(self, threads: int) -> None:
        self._free = threads
        self._lock = allocate_lock()
        self._tasks: deque[Task[Any]] = deque()

    def start(self, function: Callable[[], T]) -> Task[T]:
        task = Task(function)
        with self._lock:
            self._tasks.append(task)
            is_free = self._free > 0
            self._free -= is_free
        if is_free:
            start_new_thread(self._work, ())
        return task

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._tasks:
                    self._free += 1
                    return
                task = self._tasks.popleft()
            task.run()
