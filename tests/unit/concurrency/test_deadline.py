"""Deadlines: the error names the step, and no caller waits longer."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest

from b10_transfer.concurrency.deadline import Deadline, run_until_delivered, run_within
from b10_transfer.errors import DeadlineExceededError

LONG_S = 60.0


def test_result_of_the_function_is_returned() -> None:
    assert run_within(Deadline("load", LONG_S), lambda: [1, 2]) == [1, 2]


@pytest.mark.parametrize("error", [ValueError("no luck"), KeyboardInterrupt(), SystemExit(3)], ids=repr)
def test_error_of_the_function_is_raised(error: BaseException) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(type(error)) as raised:
        run_within(Deadline("load", LONG_S), fail)
    assert raised.value is error


def test_function_runs_in_a_daemon_thread_so_that_the_process_can_exit() -> None:
    thread = run_within(Deadline("load", LONG_S), threading.current_thread)
    assert thread is not threading.current_thread()
    assert thread.daemon
    assert "load" in thread.name


def test_function_that_hangs_costs_the_deadline_and_its_last_step_is_named() -> None:
    deadline = Deadline("load", 0.05)
    released = threading.Event()

    def hang() -> None:
        deadline.check("reading pack 0123")
        released.wait()

    with pytest.raises(DeadlineExceededError) as raised:
        run_within(deadline, hang)
    released.set()
    assert (raised.value.operation, raised.value.deadline_s) == ("load", 0.05)
    assert raised.value.waiting_for == "reading pack 0123"


def test_function_that_was_given_up_stops_at_its_next_step() -> None:
    deadline = Deadline("load", 0.05)
    released, stopped = threading.Event(), threading.Event()
    later: list[str] = []

    def hang() -> None:
        released.wait()
        try:
            deadline.check("placing files")
            later.append("placed")
        finally:
            stopped.set()

    with pytest.raises(DeadlineExceededError):
        run_within(deadline, hang)
    released.set()
    assert stopped.wait(LONG_S)
    assert later == []


def test_interrupt_of_the_waiter_is_raised_and_stops_the_function() -> None:
    deadline = Deadline("load", LONG_S)
    stopped = threading.Event()
    caller = threading.get_ident()

    def interrupt() -> None:
        signal.pthread_kill(caller, signal.SIGINT)
        try:
            while True:
                deadline.sleep(0.01)
        finally:
            stopped.set()

    with pytest.raises(KeyboardInterrupt):
        run_within(deadline, interrupt)
    assert deadline.remaining_s == 0
    assert stopped.wait(LONG_S)


def test_check_names_the_next_step() -> None:
    deadline = Deadline("save", LONG_S)
    deadline.check("listing")
    deadline.check()
    assert deadline.activity == "listing"
    deadline.cancel()
    with pytest.raises(DeadlineExceededError, match="save gave up after its deadline of 60 s while packing"):
        deadline.check("packing")


def test_time_left_is_never_negative() -> None:
    assert Deadline("load", -5).remaining_s == 0
    assert 0 < Deadline("load", LONG_S).remaining_s <= LONG_S


def test_sleep_ends_when_the_deadline_is_cancelled() -> None:
    deadline = Deadline("load", LONG_S)
    threading.Timer(0.02, deadline.cancel).start()
    with pytest.raises(DeadlineExceededError):
        deadline.sleep(LONG_S)


def test_sleep_does_not_outlast_the_deadline() -> None:
    with pytest.raises(DeadlineExceededError):
        Deadline("load", 0.02).sleep(LONG_S)


def test_delivered_result_is_returned_while_the_function_goes_on() -> None:
    released, ended = threading.Event(), threading.Event()

    def work(deliver: Callable[[str], None]) -> str:
        deliver("early")
        released.wait(LONG_S)
        ended.set()
        return "late"

    assert run_until_delivered(Deadline("load", LONG_S), work) == "early"
    assert not ended.is_set()
    released.set()
    assert ended.wait(LONG_S)


def test_error_after_the_result_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    threads: list[threading.Thread] = []

    def work(deliver: Callable[[int], None]) -> int:
        threads.append(threading.current_thread())
        deliver(1)
        raise ValueError("the disk is full")

    with caplog.at_level(logging.WARNING, logger="b10_transfer"):
        assert run_until_delivered(Deadline("load", LONG_S), work) == 1
        threads[0].join(LONG_S)
    assert "load: the part after its result failed: the disk is full" in caplog.text


_EXITING = """
import sys, time
from b10_transfer.concurrency.deadline import Deadline, run_until_delivered

def work(deliver):
    deliver(None)
    time.sleep(float(sys.argv[2]))
    print("placed", flush=True)

run_until_delivered(Deadline("load", float(sys.argv[1])), work)
"""


@pytest.mark.parametrize(("deadline_s", "work_s", "printed"), [(LONG_S, 0.2, "placed\n"), (0.2, LONG_S, "")])
def test_exit_waits_for_what_follows_the_result_until_the_deadline(
    deadline_s: float, work_s: float, printed: str
) -> None:
    command = [sys.executable, "-c", _EXITING, str(deadline_s), str(work_s)]
    assert subprocess.run(command, check=True, capture_output=True, text=True, timeout=LONG_S / 2).stdout == printed
