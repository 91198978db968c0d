"""The pipeline: results in order, a bounded number in flight, and no thread that outlives it."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from b10_transfer.deadline import Deadline
from b10_transfer.errors import DeadlineExceededError
from b10_transfer.workers import Pipeline


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
