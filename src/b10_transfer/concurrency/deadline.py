"""Deadlines: an operation costs its caller that long and no more, whatever the file system does.

A call into a hung mount cannot be interrupted from Python. So an operation runs in a daemon thread and the caller
waits for the result only as long as its deadline allows; the thread is then abandoned. It checks the same deadline
between steps, so that it stops by itself as soon as the mount answers again, before it places or publishes anything.
Daemon threads do not hold up interpreter exit (``concurrent.futures`` joins its threads there, hence not used), and
waits on NFS and FUSE are killable, so the process can end too.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from ..errors import DeadlineExceededError, NoThreadError

T = TypeVar("T")


class Deadline:
    """A point on the monotonic clock by which an operation must be over."""

    def __init__(self, operation: str, seconds: float) -> None:
        self.operation = operation
        self.seconds = seconds
        self._end = time.monotonic() + seconds
        self._cancelled = threading.Event()
        self.activity = "starting"
        """What the operation is doing now, for the message of a deadline that passes."""

    @property
    def remaining_s(self) -> float:
        """Seconds left, 0.0 once the deadline has passed or the operation was cancelled."""
        if self._cancelled.is_set():
            return 0.0
        return max(0.0, self._end - time.monotonic())

    def check(self, activity: str | None = None) -> None:
        """Note what is done next, and raise :class:`DeadlineExceededError` if there is no time left for it."""
        if activity is not None:
            self.activity = activity
        if self.remaining_s <= 0:
            raise self.error()

    def sleep(self, seconds: float) -> None:
        """Sleep, at most until the deadline; raise if that has passed."""
        self._cancelled.wait(min(seconds, self.remaining_s))
        self.check()

    def cancel(self) -> None:
        """Let every later :meth:`check` fail: nobody waits for this operation any more."""
        self._cancelled.set()

    def error(self) -> DeadlineExceededError:
        return DeadlineExceededError(self.operation, self.seconds, self.activity)


def run_within(deadline: Deadline, function: Callable[[], T]) -> T:
    """Run ``function`` in a daemon thread and return its result.

    Raises what ``function`` raises, :class:`DeadlineExceededError` when the deadline passes first, or
    :class:`NoThreadError`. On a deadline that passed, and
    on KeyboardInterrupt in the waiting caller, the deadline is cancelled so that the thread stops at its next check.
    """
    done = threading.Event()
    results: list[T] = []
    failures: list[BaseException] = []

    def work() -> None:
        try:
            results.append(function())
        except BaseException as error:  # noqa: BLE001 - handed to the caller, whatever it is
            failures.append(error)
        finally:
            done.set()

    thread = threading.Thread(target=work, name=f"b10-transfer-{deadline.operation}", daemon=True)
    try:
        try:
            thread.start()
        except RuntimeError as error:
            raise NoThreadError(error) from error
        # A little grace lets the thread's own check report the deadline, with the step that was running.
        finished = done.wait(deadline.remaining_s + 0.1)
    except BaseException:
        deadline.cancel()
        raise
    if not finished:
        deadline.cancel()
        raise deadline.error()
    if failures:
        raise failures[0]
    return results[0]
