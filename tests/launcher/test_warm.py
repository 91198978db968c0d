"""``warm``: it compiles before a rollout, and proves that a new replica compiles nothing."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from tests.launcher.pod import COMMAND, LONG, Pod, Started

_LATE = 'kill -USR1 $(sed -n \'s/.*"started".*"pid": \\([0-9]*\\).*/\\1/p\' "$FAKE_LOG" | tail -1); sleep 0.1'
"""An exercise that makes the latest server compile one unit more."""
_PROGRAM = f"printf 'compile PROGRAM%s\\n' $$ | '{sys.executable}' '{Path(__file__).with_name('program.py')}'"
"""A program that does not listen, and compiles another unit each time."""


def warm(pod: Pod, *options: str, **variables: str) -> Started:
    return pod.start([COMMAND, "warm", *options, "--", *pod.server], **variables)


def program(pod: Pod, script: str, *options: str, **variables: str) -> Started:
    """``warm`` for a program that does not listen."""
    return pod.start([COMMAND, "warm", *options, "--", "sh", "-c", script], **variables)


def test_exercised_server_is_saved_and_verified_with_empty_caches(pod: Pod) -> None:
    pod.compile("BEFORE")
    started = warm(pod, "--verify", "--exercise", _LATE)
    assert started.wait() == 0, started.log
    assert "verified: a new replica compiles nothing" in started.log
    assert len(pod.noted("started")) == 2
    assert [fact["unit"] for fact in pod.noted("compiled")] == ["KERNEL0", "KERNEL1", "LATE0"]
    assert pod.stored() == pod.cached() == ["BEFORE", "KERNEL0", "KERNEL1", "LATE0"]
    assert list(pod.cache.glob(".b10-aside")) == []
    pod.is_deserted()


def test_exercise_gets_the_address_of_the_server(pod: Pod) -> None:
    started = warm(pod, "--exercise", f"test $B10_SERVER_URL = http://127.0.0.1:{pod.port}")
    assert started.wait() == 0, started.log


def test_program_that_compiles_something_else_each_time_is_found_out(pod: Pod) -> None:
    pod.compile("BEFORE")
    started = program(pod, _PROGRAM, "--verify")
    assert started.wait() == 4, started.log
    assert "a new replica compiles" in started.log
    [line] = [line for line in started.log.splitlines() if "compiled: triton/" in line]
    assert pod.cached() == pod.stored()
    assert line.rpartition("/")[2] not in pod.cached()


def test_read_only_store_that_lacks_units_is_no_success(pod: Pod) -> None:
    assert warm(pod).wait() == 0
    pod.empty_cache()
    assert warm(pod, "--verify", B10_READ_ONLY="1").wait() == 0
    started = warm(pod, FAKE_COMPILES="3", B10_READ_ONLY="1")
    assert started.wait() == 4, started.log
    assert "the store lacks 1 unit of this pod: B10_READ_ONLY=1: this pod publishes nothing" in started.log
    assert "not in the store: triton/KERNEL2" in started.log


def test_units_that_the_server_compiled_before_and_the_store_lacks_are_no_success(pod: Pod) -> None:
    pod.compile("BEFORE")
    started = warm(pod, FAKE_COMPILES="0", B10_READ_ONLY="1")
    assert started.wait() == 4, started.log
    assert "the store lacks 1 unit of this pod: B10_READ_ONLY=1: this pod publishes nothing" in started.log
    assert "not in the store: triton/BEFORE" in started.log


def test_recalled_units_are_no_success(pod: Pod) -> None:
    assert warm(pod).wait() == 0
    recalled = pod.start([COMMAND, "recall", "--since", "2020-01-01", "--yes"])
    assert recalled.wait() == 0, recalled.log
    started = warm(pod)
    assert started.wait() == 4, started.log
    assert "the store lacks 2 units of this pod: 2 were recalled" in started.log
    assert "not in the store: triton/KERNEL0" in started.log


def test_server_that_compiles_nothing_leaves_nothing(pod: Pod) -> None:
    assert warm(pod, FAKE_COMPILES="0").wait() == 3


def test_failures_are_told_and_what_was_compiled_is_saved(pod: Pod) -> None:
    for options, variables, expected in (
        (["--exercise", "exit 7"], {}, "the exercise has failed with exit code 7: exit 7"),
        ([], {"FAKE_ENDS": "1", "FAKE_EXIT": "9"}, "the server has ended with exit code 9"),
        (["--timeout", "1"], {"FAKE_GATE": "/nowhere"}, "within 1 s (--timeout)"),
        ([], {"B10_STORE": "/nowhere/store"}, "the load failed"),
    ):
        started = warm(pod, *options, **variables)
        assert started.wait() == 1, started.log
        assert expected in started.log
    assert pod.stored() == ["KERNEL0", "KERNEL1"]
    pod.is_deserted()
    assert program(pod, "true", "--exercise", "true").wait() == 2
    assert program(pod, "exit 5").wait() == 1


def test_caches_are_put_back_after_a_signal_and_after_kill(pod: Pod) -> None:
    pod.compile("BEFORE")
    for number in (signal.SIGTERM, signal.SIGKILL):
        begun = len(pod.noted("serves"))
        started = warm(pod, "--verify", FAKE_COMPILES="1")
        pod.waits_for("serves", begun + 2)
        assert (pod.cache / ".b10-aside" / "BEFORE").exists()
        started.send(number)
        started.wait()
        pod.is_deserted()
        if number == signal.SIGTERM:
            assert not (pod.cache / ".b10-aside").exists()
            assert pod.cached() == ["BEFORE", "KERNEL0"]
    started = program(pod, "true")
    assert started.wait() == 0
    assert "it is put back" in started.log
    assert not (pod.cache / ".b10-aside").exists()
    assert pod.cached() == ["BEFORE", "KERNEL0"]


def test_signal_while_the_server_starts_ends_both(pod: Pod) -> None:
    started = warm(pod, FAKE_GATE=str(pod.path / "never"), B10_TRANSFER_TIMEOUT_S=LONG)
    pod.waits_for("started")
    started.send(signal.SIGTERM)
    assert started.wait() == 128 + signal.SIGTERM
    pod.is_deserted()


def test_program_without_an_address_is_run_until_it_ends(pod: Pod) -> None:
    started = program(pod, _PROGRAM)
    assert started.wait() == 0, started.log
    assert len(pod.stored()) == 1


def test_options_that_differ_from_those_of_the_pod_that_saved_are_told(pod: Pod) -> None:
    pod.server += ["--max-model-len", "512", "--api-key", "hunter2"]
    assert warm(pod).wait() == 0
    pod.empty_cache()
    pod.server[-3] = "256"
    started = warm(pod, FAKE_COMPILES="3", B10_READ_ONLY="1")
    assert started.wait() == 4
    assert "saved with --max-model-len 512, this server has --max-model-len 256" in started.log
    explained = pod.command("explain").stdout
    assert "--max-model-len 512 --api-key ***" in explained
    assert "hunter2" not in explained
