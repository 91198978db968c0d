"""The pipeline: results in order, a bounded number in flight, and no thread that outlives it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from b10_transfer.concurrency.deadline import Deadline
from b10_transfer.concurrency.pipeline import Pipeline, shared
from b10_transfer.errors import DeadlineExceededError


def test_results_come_in_the_order_of_the_items(deadline: Deadline) -> None:
    first_may_end = threading.Event()

    def work(item: int) -> int:
        if item == 0:
            first_may_end.wait()
        if item == 3:
            first_may_end.set()
        return item * 10

    with Pipeline(work, 2, deadline) as pipeline:
        assert list(pipeline.map(range(20), 8)) == [item * 10 for item in range(20)]


def test_no_more_items_are_taken_than_may_be_in_flight(deadline: Deadline) -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for item in range(20):
            taken.append(item)
            yield item

    with Pipeline(str, 2, deadline) as pipeline:
        for number, _result in enumerate(pipeline.map(items(), 3)):
            assert len(taken) <= number + 4
            assert pipeline.in_flight <= 3
    assert len(taken) == 20


def test_error_is_raised_in_its_items_place(deadline: Deadline) -> None:
    def work(item: int) -> int:
        if item == 2:
            raise ValueError("two")
        return item

    with Pipeline(work, 2, deadline) as pipeline:
        results = pipeline.map(range(5), 4)
        assert [next(results), next(results)] == [0, 1]
        with pytest.raises(ValueError, match="two"):
            next(results)


def test_item_that_hangs_costs_the_deadline() -> None:
    released = threading.Event()

    def work(_item: int) -> None:
        released.wait()

    with Pipeline(work, 1, Deadline("load", 0.05)) as pipeline:
        pipeline.submit(1)
        with pytest.raises(DeadlineExceededError):
            pipeline.take()
    released.set()


def test_result_that_is_there_is_taken_even_at_the_deadline() -> None:
    deadline = Deadline("load", 60)
    done = threading.Event()

    def work(item: int) -> int:
        done.set()
        return item

    with Pipeline(work, 1, deadline) as pipeline:
        pipeline.submit(7)
        pipeline.submit(8)
        assert pipeline.take() == 7
        assert pipeline.take() == 8
        assert pipeline.in_flight == 0


def test_threads_are_daemons_and_end_with_the_pipeline(deadline: Deadline) -> None:
    def work(_item: int) -> threading.Thread:
        return threading.current_thread()

    with Pipeline(work, 2, deadline) as pipeline:
        threads = set(pipeline.map(range(10), 4))
    assert threads
    for thread in threads:
        assert thread.daemon
        thread.join(60)
        assert not thread.is_alive()


def test_threads_end_after_an_error_too(deadline: Deadline) -> None:
    threads: list[threading.Thread] = []

    def work(item: int) -> None:
        threads.append(threading.current_thread())
        raise ValueError(item)

    with pytest.raises(ValueError, match="0"), Pipeline(work, 1, deadline) as pipeline:
        list(pipeline.map(range(10), 4))
    threads[0].join(60)
    assert not threads[0].is_alive()


def test_no_items_give_no_results(deadline: Deadline) -> None:
    with Pipeline(str, 1, deadline) as pipeline:
        assert list(pipeline.map([], 4)) == []


def test_each_item_is_done_once_and_in_time(deadline: Deadline) -> None:
    """Those of one time before the next time returns."""
    done: list[int] = []
    with shared(done.append, deadline) as share:
        for first in range(0, 1000, 10):
            share(range(first, first + 10))
            assert set(range(first)) <= set(done)
    assert sorted(done) == list(range(1000))


def test_who_shares_works_rather_than_wait(deadline: Deadline) -> None:
    """Neither item ends before the other has begun, which takes two threads."""
    both_have_begun = threading.Barrier(2)
    with shared(lambda _item: both_have_begun.wait(60), deadline) as share:
        share([0, 1])


@pytest.mark.parametrize("times_after", [0, 1])
def test_error_is_raised_the_next_time_or_at_the_end(deadline: Deadline, times_after: int) -> None:
    going_on = 0

    def work(item: int) -> None:
        nonlocal going_on
        going_on += 1
        time.sleep(0.001)
        going_on -= 1
        if item == 3:
            raise ValueError("three")

    times = 0
    with pytest.raises(ValueError, match="three"), shared(work, deadline) as share:
        share(range(10))
        for times in range(1, times_after + 1):  # noqa: B007
            share([])
    assert times == times_after
    assert not going_on


def test_after_a_failure_nothing_more_is_begun(deadline: Deadline) -> None:
    """Neither if an item fails, in whichever thread, nor if the caller does."""
    other_has_one, done = threading.Event(), []

    def work(item: int) -> None:
        done.append(item)
        other_has_one.set()
        time.sleep(0.05)
        if item < 2:
            raise ValueError(item)

    with pytest.raises(ValueError, match="0"), shared(work, deadline) as share:
        share(range(1000))
        share([])
    with pytest.raises(KeyError), shared(work, deadline) as share:
        other_has_one.clear()
        share(range(2000, 3000))
        assert other_has_one.wait(60)
        raise KeyError
    assert len(done) < 10


def test_who_shares_does_no_more_than_the_deadline_allows() -> None:
    deadline, done = Deadline("load", 60), []

    def work(item: int) -> None:
        done.append(item)
        time.sleep(0.02)
        deadline.cancel()

    with pytest.raises(DeadlineExceededError), shared(work, deadline) as share:
        share(range(1000))
    assert len(done) < 10


def test_item_that_was_waited_for_in_vain_can_be_dropped() -> None:
    goes_on = threading.Event()

    def wait(_item: int) -> bool:
        return goes_on.wait(60)

    with Pipeline(wait, 1, Deadline("load", 0.05)) as pipeline:
        for item in range(3):
            pipeline.submit(item)
        for _ in range(2):
            with pytest.raises(DeadlineExceededError):
                pipeline.take()
    assert pipeline.in_flight == 0
    goes_on.set()
