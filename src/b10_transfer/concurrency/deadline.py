"""Deadlines: an operation never blocks its caller longer than its deadline, even if a file system hangs.

Python cannot interrupt a call into a hung mount. So an operation runs in a daemon thread, and the caller waits for the
result until the deadline. Then it abandons the thread. The thread checks the same deadline between steps: when the
mount answers again, the thread stops before it places or publishes anything. Daemon threads do not delay the exit of
the interpreter; ``concurrent.futures`` joins its threads there and is therefore not used.
"""

from __future__ import annotations

import atexit
import logging
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from ..errors import DeadlineExceededError, NoThreadError

logger = logging.getLogger(__name__)

T = TypeVar("T")


class Deadline:
    """The time by which an operation must end. A call's ``observe`` argument receives it.

    Args:
        operation: Name of the operation, for messages.
        seconds: Seconds from now.
    """

    def __init__(self, operation: str, seconds: float) -> None:
        self.operation = operation
        self.seconds = seconds
        self._end = time.monotonic() + seconds
        self._cancelled = threading.Event()
        self.activity = "starting"
        """What the operation is doing now."""

    @property
    def remaining_s(self) -> float:
        """Seconds left; 0.0 after the deadline, or after :meth:`cancel`."""
        if self._cancelled.is_set():
            return 0.0
        return max(0.0, self._end - time.monotonic())

    def check(self, activity: str | None = None) -> None:
        """Raise an error if no time is left.

        Args:
            activity: What the operation does next. Default: what it did before.

        Raises:
            DeadlineExceededError: The deadline has passed, or the operation was cancelled.
        """
        if activity is not None:
            self.activity = activity
        if self.remaining_s <= 0:
            raise self.error()

    def sleep(self, seconds: float) -> None:
        """Sleep, at most until the deadline.

        Args:
            seconds: Seconds to sleep.

        Raises:
            DeadlineExceededError: The deadline has passed, or the operation was cancelled.
        """
        self._cancelled.wait(min(seconds, self.remaining_s))
        self.check()

    def cancel(self) -> None:
        """Make every later :meth:`check` fail, because no caller waits for this operation any more."""
        self._cancelled.set()

    @property
    def is_cancelled(self) -> bool:
        """Whether :meth:`cancel` was called."""
        return self._cancelled.is_set()

    def error(self) -> DeadlineExceededError:
        """The error of an operation that did not end in time.

        Returns:
            An error that names the operation and what it was doing.
        """
        return DeadlineExceededError(self.operation, self.seconds, self.activity)


def run_within(deadline: Deadline, function: Callable[[], T]) -> T:
    """Run ``function`` in a daemon thread and return its result.

    If the deadline passes, or KeyboardInterrupt interrupts the wait, the deadline is cancelled, so that the thread
    stops at its next check. Raises the exception of ``function``, :class:`DeadlineExceededError`, or
    :class:`NoThreadError`.
    """
    return run_until_delivered(deadline, lambda _deliver: function())


def run_until_delivered(deadline: Deadline, function: Callable[[Callable[[T], None]], T]) -> T:
    """Run ``function`` as :func:`run_within` does. It may deliver its result early, and then go on until the deadline.

    The interpreter's exit waits for what follows the result. An exception of that is logged.
    """
    done = threading.Event()
    results: list[T] = []
    failures: list[BaseException] = []

    def wait() -> None:
        thread.join(deadline.remaining_s)

    def deliver(result: T) -> None:
        results.append(result)
        atexit.register(wait)
        done.set()

    def work() -> None:
        try:
            result = function(deliver)
            results.append(result)
        except BaseException as error:  # noqa: BLE001 - raised in the caller, if it still waits
            failures.append(error)
            if results:
                logger.warning("%s: the part after its result failed: %s", deadline.operation, error)
        finally:
            atexit.unregister(wait)
            done.set()

    thread = threading.Thread(target=work, name=f"b10-transfer-{deadline.operation}", daemon=True)
    try:
        try:
            thread.start()
        except RuntimeError as error:
            raise NoThreadError(error) from error
        # 0.1 s more, so that the thread's own check can report the deadline and the step.
        finished = done.wait(deadline.remaining_s + 0.1)
    except BaseException:
        deadline.cancel()
        raise
    if not finished:
        deadline.cancel()
        raise deadline.error()
    if not results:
        raise failures[0]
    return results[0]
