"""A pipeline of daemon threads: one function over many items, results in order, a bounded number in flight."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Generic, TypeVar

from ..errors import NoThreadError
from .deadline import Deadline

T = TypeVar("T")
R = TypeVar("R")


def has_idle_processor() -> bool:
    """Whether a processor is idle now, so that a second thread would run in parallel."""
    # Several samples: a thread that has just ended, or one of the kernel's, shows as running for some microseconds.
    for pause_s in (0.0, 0.0002, 0.0002):
        time.sleep(pause_s)
        try:
            running = int(Path("/proc/loadavg").read_text().split()[3].partition("/")[0])
        except (OSError, ValueError, IndexError):
            return False
        # Threads of the whole machine against the processors of this process: a cautious comparison.
        if running < len(os.sched_getaffinity(0)):
            return True
    return False


class _Task(Generic[T, R]):
    """One item in the pipeline."""

    __slots__ = ("done", "error", "item", "result")

    def __init__(self, item: T) -> None:
        self.item = item
        self.result: R | None = None
        self.error: BaseException | None = None
        self.done = threading.Lock()
        self.done.acquire()


class Pipeline(Generic[T, R]):
    """Applies ``function`` to submitted items in ``threads`` daemon threads.

    ``concurrent.futures`` joins its threads when the interpreter exits, so a thread that waits for a hung mount would
    keep the process alive for ever. Use the pipeline as a context manager: leaving it stops the threads and does not
    wait for one that hangs. Raises :class:`~b10_transfer.errors.NoThreadError` if no thread can be started.
    """

    def __init__(self, function: Callable[[T], R], threads: int, deadline: Deadline) -> None:
        self._function = function
        self._deadline = deadline
        self._queue: queue.SimpleQueue[_Task[T, R] | None] = queue.SimpleQueue()
        self._pending: deque[_Task[T, R]] = deque()
        self._threads = [
            threading.Thread(target=self._work, name="b10-transfer-worker", daemon=True) for _ in range(threads)
        ]
        started = 0
        try:
            for thread in self._threads:
                thread.start()
                started += 1
        except RuntimeError as error:
            self._stop(started)
            raise NoThreadError(error) from error

    def __enter__(self) -> Pipeline[T, R]:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop(len(self._threads))

    def _stop(self, threads: int) -> None:
        """Drop items that no thread has started, and end this many threads."""
        self.drop()
        for _thread in range(threads):
            self._queue.put(None)

    @property
    def in_flight(self) -> int:
        """The number of submitted items whose result was not taken."""
        return len(self._pending)

    def submit(self, item: T) -> None:
        task: _Task[T, R] = _Task(item)
        self._pending.append(task)
        self._queue.put(task)

    def take(self) -> R:
        """Wait for the result of the oldest item.

        Raises the exception of the function, or :class:`DeadlineExceededError`.
        """
        task = self._pending.popleft()
        if not task.done.acquire(timeout=self._deadline.remaining_s):
            raise self._deadline.error()
        if task.error is not None:
            raise task.error
        return task.result  # type: ignore[return-value]

    def map(self, items: Iterable[T], in_flight: int) -> Iterator[R]:
        """Results in the order of ``items``; at most ``in_flight`` items are ahead of the consumer."""
        for item in items:
            if self.in_flight >= in_flight:
                yield self.take()
            self.submit(item)
        while self.in_flight:
            yield self.take()

    def help(self) -> None:
        """Work in this thread on items that no thread has started, until one fails. Raises DeadlineExceededError."""
        while (task := self._next()) is not None:
            self._do(task)
            if task.error is not None:
                break  # take() raises it
            self._deadline.check()

    def drop(self) -> None:
        """Drop items that no thread has started."""
        while (task := self._next()) is not None:
            with suppress(ValueError):  # take() timed out on it
                self._pending.remove(task)

    def _next(self) -> _Task[T, R] | None:
        try:
            return self._queue.get_nowait()
        except queue.Empty:
            return None

    def _work(self) -> None:
        while (task := self._queue.get()) is not None:
            self._do(task)

    def _do(self, task: _Task[T, R]) -> None:
        try:
            task.result = self._function(task.item)
        except BaseException as error:  # noqa: BLE001 - raised again by take()
            task.error = error
        finally:
            task.done.release()


@contextmanager
def shared(function: Callable[[T], object], deadline: Deadline) -> Iterator[Callable[[Iterable[T]], None]]:
    """Share calls of a function between this thread and another one.

    Each call takes items, completes those of the call before, and returns while the other thread starts with the new
    ones. Leaving the context completes the last items. An exception is raised by the next call, or on leaving.
    """
    with Pipeline(function, 1, deadline) as pipeline:

        def finish() -> None:
            pipeline.help()
            while pipeline.in_flight:
                pipeline.take()

        def call(items: Iterable[T]) -> None:
            ready = list(items)  # may take work, which the other thread does not wait for
            finish()
            for item in ready:
                pipeline.submit(item)

        try:
            yield call
            finish()
        except BaseException:
            pipeline.drop()
            while pipeline.in_flight:  # a caller that cleans up must not meet a running call
                with suppress(BaseException):
                    pipeline.take()
            raise
