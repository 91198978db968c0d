"""Signals: each reaches the server once, whoever sent it, and at no time is anything left behind."""

from __future__ import annotations

import json
import os
import pty
import signal
import sys
import time
from contextlib import suppress

import pytest

from tests.faults.conftest import Mount
from tests.launcher.pod import COMMAND, LONG, Pod, Started, end, wait_until
from tests.launcher.test_run_is_transparent import EXEC, IGNORING

STOPPING = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT]
OTHERS = [signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGRTMIN]


@pytest.mark.parametrize("number", STOPPING)
def test_signal_sent_to_us_alone_reaches_the_server_once_and_its_exit_code_is_ours(pod: Pod, number: int) -> None:
    started = pod.run(FAKE_EXIT="7", FAKE_END_S="0.2")
    pod.waits_for("serves")
    started.send(number)
    assert started.wait() == 7
    assert pod.signals() == [number]
    pod.is_deserted()


def test_other_signals_reach_the_server_and_end_nobody(pod: Pod) -> None:
    started = pod.run()
    pod.waits_for("serves")
    for count, number in enumerate(OTHERS, 1):
        started.send(number)
        pod.waits_for("signal", count)
    started.send(signal.SIGTERM)
    assert started.wait() == 0
    assert pod.signals() == [*OTHERS, signal.SIGTERM]


def test_signals_that_we_were_started_to_ignore_are_still_passed_on(pod: Pod) -> None:
    """A shell script without job control has its background jobs ignore SIGINT; a server may handle it all the same."""
    started = pod.run(None, [sys.executable, "-c", IGNORING.format(names=["SIGINT"]) + EXEC])
    pod.waits_for("serves")
    started.send(signal.SIGINT)
    assert started.wait() == 0
    assert pod.signals() == [signal.SIGINT]


def test_server_dies_with_a_run_that_is_killed_if_that_is_asked_for(pod: Pod) -> None:
    started = pod.run(B10_SERVER_DIES_WITH_RUN="1")
    pod.waits_for("serves")
    started.send(signal.SIGKILL)
    started.wait()
    pod.waits_for("signal")
    # The kernel sends it when the thread that started the server ends, and again for each thread that inherits it.
    assert set(pod.signals()) == {signal.SIGTERM}
    pod.is_deserted()


def test_server_that_dies_with_run_is_otherwise_started_as_any_other(pod: Pod) -> None:
    started = pod.run(B10_SERVER_DIES_WITH_RUN="1", FAKE_EXIT="7")
    pod.waits_for("serves")
    started.send(signal.SIGTERM)
    assert started.wait() == 7
    pod.is_deserted()


class Terminal:
    """``run`` in the foreground of a terminal of its own."""

    def __init__(self, pod: Pod, program: list[str], **variables: str) -> None:
        self._output = b""
        self.pid, self._descriptor = pty.fork()
        if self.pid == 0:
            try:
                os.chdir(pod.home)
                os.execve(program[0], program, pod.variables | variables)
            finally:
                os._exit(99)
        os.set_blocking(self._descriptor, False)

    def type(self, keys: bytes) -> None:
        os.write(self._descriptor, keys)

    @property
    def output(self) -> str:
        with suppress(OSError):  # nothing there, or the other side is closed
            while part := os.read(self._descriptor, 65536):
                self._output += part
        return self._output.decode(errors="replace")

    def shows(self, text: str) -> None:
        wait_until(lambda: text in self.output, f"{text!r} on the terminal")

    def wait(self) -> int:
        def ended() -> list[int]:
            assert self.output is not None  # read, lest it fills up
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            return [status] if pid else []

        code = os.waitstatus_to_exitcode(wait_until(ended, "the end")[0])
        os.close(self._descriptor)
        return code if code >= 0 else 128 - code


@pytest.mark.parametrize(("key", "number"), [(b"\x03", signal.SIGINT), (b"\x1c", signal.SIGQUIT)])
def test_key_typed_on_the_terminal_reaches_the_server_once(pod: Pod, key: bytes, number: int) -> None:
    terminal = Terminal(pod, [COMMAND, "run", "--", *pod.server], FAKE_EXIT="7", FAKE_END_S="0.3")
    pod.waits_for("serves")
    terminal.type(key)
    assert terminal.wait() == 7
    assert pod.signals() == [number]
    pod.is_deserted()


def test_key_typed_under_a_shell_reaches_the_server_once(pod: Pod) -> None:
    script = f"'{COMMAND}' run -- \"$@\"; echo ended with $?"
    terminal = Terminal(pod, ["/bin/bash", "-c", script, "bash", *pod.server], FAKE_EXIT="7")
    pod.waits_for("serves")
    terminal.type(b"\x03")
    terminal.wait()
    assert pod.signals() == [signal.SIGINT]
    pod.is_deserted()


def test_server_reads_what_is_typed(pod: Pod) -> None:
    terminal = Terminal(pod, [COMMAND, "run", "--", "sh", "-c", 'read line; echo "it read $line"'])
    terminal.type(b"a line\n")
    terminal.shows("it read a line")
    assert terminal.wait() == 0


def test_stopped_with_the_terminals_key_and_continued_it_goes_on(pod: Pod) -> None:
    script = f"set -m; '{COMMAND}' run -- \"$@\"; echo stopped with $?; fg; echo ended with $?"
    terminal = Terminal(pod, ["/bin/bash", "-c", script, "bash", *pod.server], FAKE_EXIT="7")
    pod.waits_for("serves")
    terminal.type(b"\x1a")
    terminal.shows(f"stopped with {128 + signal.SIGTSTP}")
    terminal.type(b"\x03")
    terminal.shows("ended with 7")
    terminal.wait()
    assert pod.signals() == [signal.SIGINT]


def test_terminal_that_is_closed_ends_the_server_once(pod: Pod) -> None:
    terminal = Terminal(pod, [COMMAND, "run", "--", *pod.server])
    pod.waits_for("serves")
    os.close(terminal._descriptor)
    wait_until(lambda: os.waitpid(terminal.pid, os.WNOHANG)[0], "the end")
    assert pod.signals() == [signal.SIGHUP]
    pod.is_deserted()


def hung_during_load(pod: Pod, mount: Mount, wrapper: list[str] | None = None) -> Started:
    """A ``run`` whose load waits for a store that does not answer."""
    mount.fail(readdir="HANG", getattr="HANG")
    run = [COMMAND, "run", "--report", str(pod.path / "report.json"), "--", *pod.server]
    started = pod.start(run, wrapper or [], B10_STORE=str(mount.path / "store"), B10_DEADLINE_SECONDS=LONG)
    wait_until(lambda: any("worker.server" in line for line in pod.processes().values()), "the store's worker")
    return started


@pytest.mark.parametrize("number", STOPPING)
def test_signal_during_the_load_ends_it_before_the_server_has_started(pod: Pod, mount: Mount, number: int) -> None:
    started = hung_during_load(pod, mount)
    started.send(number)
    assert started.wait() == 128 + number
    assert pod.noted("started") == []
    assert json.loads((pod.path / "report.json").read_text())["exit_code"] == 128 + number
    end(mount.path)
    pod.is_deserted()
    assert list(pod.home.rglob("*.b10-staging*")) == []


def test_hangup_during_the_load_is_ignored_under_nohup(pod: Pod, mount: Mount) -> None:
    started = hung_during_load(pod, mount, ["nohup"])
    started.send(signal.SIGHUP)
    end(mount.path)
    pod.waits_for("serves")
    started.send(signal.SIGTERM)
    assert started.wait() == 0


def test_sigterm_during_the_start_of_the_server_ends_both(pod: Pod) -> None:
    started = pod.run(FAKE_GATE="/never", FAKE_COMPILES="0", FAKE_EXIT="7")
    pod.waits_for("started")
    started.send(signal.SIGTERM)
    assert started.wait() == 7
    assert pod.signals() == [signal.SIGTERM]
    pod.is_deserted()


def test_sigterm_while_serving_saves_what_is_new(pod: Pod) -> None:
    started = pod.serve_and_end(FAKE_COMPILES="3", FAKE_EXIT="7")
    assert started.wait() == 7
    pod.is_deserted()
    assert pod.stored() == ["KERNEL0", "KERNEL1", "KERNEL2"]


@pytest.mark.parametrize("stuck", ["write", "link"])
def test_sigterm_during_the_last_save_ends_it_with_the_servers_exit_code(pod: Pod, mount: Mount, stuck: str) -> None:
    """No unit is half saved: the store loads whole afterwards, and the next save completes it."""
    pod.variables["B10_STORE"] = str(mount.path / "store")
    pod.serve_and_end()
    pod.empty_cache()
    started = pod.run(FAKE_EXIT="7")
    pod.waits_for("serves", 2)
    started.says("restored 2, used 2")
    mount.fail(**{stuck: "HANG"})
    started.send(signal.SIGUSR1)
    started.send(signal.SIGTERM)
    started.says("the server has ended with exit code 7")
    wait_until(lambda: pod.noted("compiled")[-1]["unit"] == "LATE0", "a late compile")
    time.sleep(0.3)  # to be well within the save; wherever it is, the outcome must be the same
    started.send(signal.SIGTERM)
    assert started.wait() == 7
    assert "a signal ended the last save" in started.log
    pod.variables["B10_STORE"] = str(end(mount.path) / "store")
    pod.is_deserted()
    assert pod.stored() == ["KERNEL0", "KERNEL1"]
    assert pod.command("save").returncode == 0
    assert pod.stored() == ["KERNEL0", "KERNEL1", "LATE0"]


def test_last_save_that_hangs_ends_in_time_with_the_servers_exit_code(pod: Pod, mount: Mount) -> None:
    pod.variables["B10_STORE"] = str(mount.path / "store")
    started = pod.run(FAKE_EXIT="7", FAKE_COMPILES="0", B10_LAST_SAVE_SECONDS="1", B10_QUIET_SECONDS=LONG)
    pod.waits_for("serves")
    mount.fail(create="HANG", mkdir="HANG")
    started.says("the server is ready")
    started.send(signal.SIGUSR1)
    pod.waits_for("compiled")
    started.send(signal.SIGTERM)
    assert started.wait() == 7
    assert "1 s" in started.log
    end(mount.path)
    pod.is_deserted()


def test_signal_to_the_whole_group_leaves_nothing_behind(pod: Pod) -> None:
    """The server gets it twice then: nothing tells us that it was not for us alone."""
    started = pod.run(FAKE_WORKER="1", FAKE_END_S="0.5")
    pod.waits_for("worker")
    pod.waits_for("serves")
    os.killpg(started.pid, signal.SIGTERM)
    assert started.wait() == 0
    assert pod.signals() in ([signal.SIGTERM], [signal.SIGTERM] * 2)
    pod.is_deserted()


def test_server_that_ends_while_the_load_still_hangs_ends_us_in_time(pod: Pod, mount: Mount) -> None:
    mount.fail(readdir="HANG", getattr="HANG")
    variables = {"B10_STORE": str(mount.path / "store"), "B10_DEADLINE_SECONDS": LONG, "B10_LAST_SAVE_SECONDS": "0.1"}
    started = pod.run(["sh", "-c", "exit 7"], B10_START_WITHIN_SECONDS="0.2", **variables)
    assert started.wait() == 7
    end(mount.path)
    pod.is_deserted()
