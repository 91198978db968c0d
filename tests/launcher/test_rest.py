"""A server starts when the units that earlier servers used are in place. The others follow while it runs."""

from __future__ import annotations

import signal

import pytest

from tests.launcher.pod import COMMAND, Pod

AFTER = {"B10_RESTORE_REST": "after"}


@pytest.fixture
def fleet(pod: Pod) -> Pod:
    """A pod whose store has eight kernels, and a record of a server that used two of them."""
    pod.serve_and_end(FAKE_COMPILES="8", **AFTER)
    pod.empty_cache()
    second = pod.serve_and_end(FAKE_COMPILES="2", **AFTER)
    assert "recorded that this start used 2 units" in second.log
    assert "save:" not in second.log
    pod.empty_cache()
    return pod


def test_server_uses_what_came_first_and_nothing_is_saved_again(fleet: Pod) -> None:
    third = fleet.serve_and_end(FAKE_COMPILES="2", **AFTER)
    assert "the 2 of 8 units that earlier starts used; the other 6 follow" in third.log
    assert "restored what starts did not use: 6 units" in third.log
    assert "triton: restored 8, used 2" in third.log
    assert "save:" not in third.log
    assert "recorded" not in third.log
    assert "WARNING" not in third.log
    assert len(fleet.noted("compiled")) == 8


def test_unit_that_a_server_needed_after_all_comes_first_next_time(fleet: Pod) -> None:
    third = fleet.serve_and_end(FAKE_COMPILES="4", B10_RESTORE_REST="never")
    assert "recorded that this start used 4 units" in third.log
    assert len(fleet.noted("compiled")) == 10
    fleet.empty_cache()
    fourth = fleet.serve_and_end(FAKE_COMPILES="4", B10_RESTORE_REST="never")
    assert "the 4 of 8 units that earlier starts used; the other 4 stay in the store" in fourth.log
    assert len(fleet.noted("compiled")) == 10
    assert fleet.stored() == [f"KERNEL{number}" for number in range(8)]


def test_server_that_must_not_compile_starts_when_everything_is_there(fleet: Pod) -> None:
    started = fleet.start([COMMAND, "run", "--on-compile=exit", "--", *fleet.server], FAKE_COMPILES="8", **AFTER)
    fleet.waits_for("serves", 3)
    started.says(" compiled, load ")
    started.send(signal.SIGTERM)
    assert started.wait() == 0
    assert len(fleet.noted("compiled")) == 8


def test_server_may_compile_what_was_left_in_the_store(fleet: Pod) -> None:
    command = [COMMAND, "run", "--on-compile=exit", "--", *fleet.server]
    started = fleet.start(command, FAKE_COMPILES="4", B10_RESTORE_REST="never")
    fleet.waits_for("serves", 3)
    started.says("recorded that this start used 4 units")
    started.send(signal.SIGTERM)
    assert started.wait() == 0
    assert len(fleet.noted("compiled")) == 10
