"""How a client of a bucket repeats requests, on a clock of the tests' own."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from b10_transfer.errors import StoreError
from b10_transfer.stores.bucket import retry as patience
from b10_transfer.stores.bucket.retry import Attempts, Pace

TIMEOUT_S = 60
ERROR = StoreError("read", "it", "it failed")


class Clock:
    """Whoever sleeps finds that the time has passed, and chance always takes the middle."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        self.slept.append(seconds)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(patience, "time", SimpleNamespace(monotonic=lambda: found.now_s, sleep=found.sleep))
    monkeypatch.setattr(patience, "chance", lambda: 0.5)
    return found


def answered(pace: Pace) -> None:
    attempts = Attempts(pace, TIMEOUT_S)
    attempts.begin()
    attempts.succeeded()


def refused(pace: Pace) -> Attempts:
    attempts = Attempts(pace, TIMEOUT_S)
    attempts.begin()
    attempts.failed(ERROR, is_refused=True)
    return attempts


def test_nobody_waits_before_the_first_refusal(clock: Clock) -> None:
    pace = Pace(TIMEOUT_S)
    for _ in range(20):
        answered(pace)
    assert clock.slept == []


def test_refusal_slows_all_requests_of_a_client_down_and_answers_make_it_fast_again(clock: Clock) -> None:
    pace = Pace(TIMEOUT_S)
    for _ in range(3):
        refused(pace)
    for _ in range(6):
        answered(pace)
    assert clock.slept == [1.0, 2.0, 4.0, 2.0, 1.0]


def test_refusals_of_requests_made_at_once_count_as_one(clock: Clock) -> None:
    pace = Pace(TIMEOUT_S)
    at_once = [Attempts(pace, TIMEOUT_S) for _ in range(8)]
    for attempts in at_once:
        attempts.begin()
    clock.now_s += 0.1
    for attempts in at_once:
        attempts.failed(ERROR, is_refused=True)
    at_once[0].begin()
    assert clock.slept == [1.0]


def test_request_that_is_lost_is_repeated_after_a_pause_that_grows_and_delays_no_other(clock: Clock) -> None:
    pace = Pace(TIMEOUT_S)
    attempts = Attempts(pace, TIMEOUT_S)
    for _ in range(7):
        attempts.begin()
        attempts.failed(ERROR)
    assert clock.slept == pytest.approx([0.2, 0.4, 0.8, 1.6, 3.0, 3.0, 3.0])
    answered(pace)
    assert len(clock.slept) == 7


@pytest.mark.parametrize("is_refused", [True, False])
def test_repeating_ends_before_the_deadline_does(clock: Clock, is_refused: bool) -> None:
    attempts = Attempts(Pace(TIMEOUT_S), TIMEOUT_S)
    with pytest.raises(StoreError, match="it failed"):
        for _ in range(1000):
            attempts.begin()
            attempts.failed(ERROR, is_refused=is_refused)
    assert 0.5 * TIMEOUT_S < sum(clock.slept) < 0.8 * TIMEOUT_S


def test_repeating_may_be_given_less_time(clock: Clock) -> None:
    attempts = Attempts(Pace(TIMEOUT_S), TIMEOUT_S)
    with pytest.raises(StoreError):
        for _ in range(1000):
            attempts.begin()
            attempts.failed(ERROR, most_s=3.0)
    assert sum(clock.slept) <= 3.0
