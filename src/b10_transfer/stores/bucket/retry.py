"""Retries the requests of a client of a bucket.

Lost requests are retried with exponential backoff and jitter. A bucket may also refuse requests because it is
overloaded ("503 SlowDown"). Then thousands of clients may have started at the same moment, and retries at the same rate
would be refused again. So a refusal slows down all requests of the client (:class:`Pace`).
"""

from __future__ import annotations

import os
import time
from _thread import allocate_lock

from .. import traffic

FIRST_PAUSE_S = 0.1
_MOST_PAUSE_S = 3.0
_PAUSES = 15
"""A pause is at most this fraction of the deadline: the last one may begin just before repeating ends."""
_FIRST_WINDOW_S = 2.0
_MOST_WINDOW_S = 8.0
_WINDOWS = 7
"""A window is at most this fraction of the deadline."""
REPEATING = 0.7
"""The part of the deadline after which a request is not repeated any more: its error says more than the deadline's."""


class Pace:
    """How fast one client makes requests: as fast as it likes, until one is refused.

    Then they begin one after another, each at a random moment of a window behind the one before. The window doubles
    with every refusal and halves with every answer, so a fleet that starts at once spreads over the time it takes, and
    a client that is alone is soon as fast as before. Nothing waits before the first refusal.
    """

    def __init__(self, timeout_s: float) -> None:
        self._most_window_s = min(_MOST_WINDOW_S, timeout_s / _WINDOWS)
        self._window_s = 0.0
        self._slowed_s = float("-inf")
        self._turn = allocate_lock()

    def wait(self) -> None:
        """Wait until a request may begin."""
        with self._turn:
            if self._window_s:
                time.sleep(chance() * self._window_s)

    def answered(self) -> None:
        """A request was answered."""
        self._window_s = self._window_s / 2 if self._window_s > _FIRST_WINDOW_S else 0.0

    def refused(self, began_s: float) -> None:
        """A request that had begun at that moment was refused.

        Those that had begun before this client slowed down say nothing new.
        """
        if began_s >= self._slowed_s:
            self._window_s = min(2 * self._window_s or _FIRST_WINDOW_S, self._most_window_s)
            self._slowed_s = time.monotonic()


class Attempts:
    """The attempts at one request. Of each :meth:`begin` is called, and then :meth:`succeeded` or :meth:`failed`."""

    def __init__(self, pace: Pace, timeout_s: float) -> None:
        self._pace = pace
        self._longest_s = timeout_s * REPEATING
        self._most_pause_s = most_pause_s(timeout_s)
        self._pause_s = FIRST_PAUSE_S
        self._first_s = self._began_s = time.monotonic()
        self._failures = 0

    def begin(self) -> None:
        """Wait until it is this request's turn."""
        self._pace.wait()
        traffic.total.requests += 1
        self._began_s = time.monotonic()

    def succeeded(self) -> None:
        """The request was answered, also if the answer is that there is no such object."""
        self._pace.answered()

    def failed(self, error: BaseException, *, is_refused: bool = False, most_s: float | None = None) -> None:
        """Pause before the next attempt. Raises ``error`` if retries have taken most of the deadline, or ``most_s``.

        ``most_s`` does not count before the second attempt.
        """
        self._failures += 1
        if is_refused:
            traffic.total.throttled += 1
        else:
            traffic.total.failed += 1
        longest_s = self._longest_s
        if most_s is not None and self._failures > 1:
            longest_s = min(most_s, longest_s)
        ends_s = self._first_s + longest_s
        if is_refused:
            self._pace.refused(self._began_s)
            if time.monotonic() > ends_s:
                raise error
            return
        self._pause_s = min(self._pause_s * (1 + 2 * chance()), self._most_pause_s)
        if time.monotonic() + self._pause_s > ends_s:
            raise error
        time.sleep(self._pause_s)


def most_pause_s(timeout_s: float) -> float:
    """The longest pause between two attempts."""
    return max(min(_MOST_PAUSE_S, timeout_s / _PAUSES), FIRST_PAUSE_S)


def chance() -> float:
    """At random, from 0 to 1. (The module ``random`` takes 5 ms to import.)"""
    return int.from_bytes(os.urandom(4), "big") / 0x1_0000_0000
