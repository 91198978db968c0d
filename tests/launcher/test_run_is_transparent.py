"""``run`` is not there, as far as the server can tell: exit code, streams, environment, signals, files."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.launcher.pod import COMMAND, Pod, without

STATUS = ["grep", "-E", "^Sig(Blk|Ign|Cgt):", "/proc/self/status"]
"""A process's signal mask and dispositions."""
OF_THE_C_LIBRARY = 0x180000000
"""Signals 32 and 33: glibc's ``posix_spawn`` leaves them ignored, and nobody but glibc can tell."""
_DEFAULTS = (
    "import os, signal, sys\nfor name in ['SIGPIPE', 'SIGXFSZ']: signal.signal(getattr(signal, name), signal.SIG_DFL)\n"
)
IGNORING = _DEFAULTS + "for name in {names}: signal.signal(getattr(signal, name), signal.SIG_IGN)\n"
BLOCKING = _DEFAULTS + "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGCHLD])\n"
EXEC = "os.execvp(sys.argv[1], sys.argv[1:])"


def signals(status: str) -> dict[str, int]:
    """The sets of signals in ``/proc/self/status``."""
    sets = {name: int(value, 16) for name, value in (line.split(":") for line in status.splitlines())}
    return sets | {"SigIgn": sets["SigIgn"] & ~OF_THE_C_LIBRARY}


def both(pod: Pod, program: list[str], wrapper: list[str] | None = None, **changes: object) -> tuple[str, str]:
    """What a program prints when it is started directly, and when it is started by ``run``."""
    outputs = []
    for prefix in ([], [COMMAND, "run", "--"]):
        done = subprocess.run(
            [*(wrapper or []), *prefix, *program],
            **({"env": pod.variables, "cwd": pod.home, "stderr": subprocess.DEVNULL, "check": True} | changes),  # type: ignore[call-overload]
            stdout=subprocess.PIPE,
            text=True,
        )
        outputs.append(done.stdout)
    assert outputs[0]
    return outputs[0], outputs[1]


@pytest.mark.parametrize("code", [0, 1, 7, 255])
def test_exit_code_is_the_servers(pod: Pod, code: int) -> None:
    assert pod.run(["sh", "-c", f"exit {code}"]).wait() == code


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_server_that_a_signal_ends_is_told_as_a_shell_tells_it(pod: Pod, number: int) -> None:
    assert pod.run(["sh", "-c", f"kill -{int(number)} $$"]).wait() == 128 + number


def test_program_that_does_not_exist_is_127(pod: Pod) -> None:
    started = pod.run(["no-such-program"])
    assert started.wait() == 127
    assert "no-such-program cannot be started: No such file or directory" in started.log


def test_program_that_may_not_be_executed_is_126(pod: Pod) -> None:
    (pod.home / "text").write_text("no program\n")
    assert pod.run(["./text"]).wait() == 126
    assert pod.run(["/tmp"]).wait() == 126


def test_input_and_output_pass_through(pod: Pod) -> None:
    program = [COMMAND, "run", "--", "sh", "-c", "cat; echo to stderr >&2"]
    sent = b"\x00\xff\n" * 10000
    done = subprocess.run(program, env=pod.variables, cwd=pod.home, input=sent, capture_output=True, check=True)
    assert done.stdout == sent
    assert b"\nto stderr\n" in b"\n" + done.stderr


def test_environment_and_working_directory_are_the_servers_own(pod: Pod) -> None:
    direct, through = both(pod, ["env"])
    assert sorted(through.splitlines()) == sorted(direct.splitlines())
    direct, through = both(pod, ["pwd", "-P"])
    assert through == direct


def test_environment_without_a_language_stays_without_one(pod: Pod) -> None:
    """Python itself sets LC_CTYPE then, for it and for its children."""
    variables = without([name for name in pod.variables if name.startswith(("LC_", "LANG"))], pod.variables)
    direct, through = both(pod, ["env"], env=variables)
    assert sorted(through.splitlines()) == sorted(direct.splitlines())


def test_open_files_are_the_servers_own(pod: Pod, tmp_path: Path) -> None:
    """One that was passed to us reaches the server, and none of ours does."""
    with (tmp_path / "passed").open("w") as passed:
        direct, through = both(pod, ["ls", "/proc/self/fd"], pass_fds=[passed.fileno()])
        assert through == direct
        assert str(passed.fileno()) in direct.split()


def test_signal_mask_and_dispositions_are_the_servers_own(pod: Pod) -> None:
    direct, through = both(pod, STATUS)
    assert signals(through) == signals(direct)


@pytest.mark.parametrize("names", [["SIGHUP"], ["SIGINT", "SIGQUIT"], ["SIGTERM", "SIGUSR1"], ["SIGCHLD"]])
def test_signals_that_were_ignored_are_ignored_by_the_server(pod: Pod, names: list[str]) -> None:
    wrapper = [sys.executable, "-c", IGNORING.format(names=names) + EXEC]
    direct, through = both(pod, STATUS, wrapper)
    assert signals(through) == signals(direct)


def test_signals_that_were_blocked_are_blocked_for_the_server(pod: Pod) -> None:
    direct, through = both(pod, STATUS, [sys.executable, "-c", BLOCKING + EXEC])
    assert signals(through) == signals(direct)


@pytest.mark.parametrize("names", [["SIGCHLD"], ["SIGHUP"]])
def test_exit_code_is_told_whatever_was_ignored(pod: Pod, names: list[str]) -> None:
    wrapper = [sys.executable, "-c", IGNORING.format(names=names) + EXEC]
    assert pod.run(["sh", "-c", "sleep 0.1; exit 7"], wrapper).wait() == 7


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_server_starts_with_closed_streams(pod: Pod, closed: str) -> None:
    assert pod.shell(f"$command run -- sh -c 'exit 7' {closed}; exit $?").wait() == 7


def test_priority_and_process_group_are_the_servers_own(pod: Pod) -> None:
    program = [sys.executable, "-c", "import os; print(os.nice(0), os.getsid(0), os.getpgrp() == os.getppid())"]
    direct, through = both(pod, program, ["nice", "-n", "3"])
    assert through.split()[:2] == direct.split()[:2]
    started = pod.run(program)
    assert started.wait() == 0
    assert started.output.split()[2] == "True"


def test_options_after_the_command_are_the_servers(pod: Pod) -> None:
    for dashes in ([], ["--"]):
        server = ["echo", "--namespace", "x", "--", "--help", "--store=y", "-h"]
        started = pod.start([COMMAND, "run", *dashes, *server])
        assert started.wait() == 0
        assert started.output.split() == server[1:]


def test_unknown_option_before_the_command_is_wrong_usage(pod: Pod) -> None:
    started = pod.start([COMMAND, "run", "--stor", "/s", "--", "echo"])
    assert started.wait() == 2
    assert "--stor" in started.log


def test_command_is_wanted(pod: Pod) -> None:
    assert pod.start([COMMAND, "run"]).wait() == 2


def test_server_need_not_be_a_server(pod: Pod) -> None:
    assert os.path.exists("/bin/true")
    started = pod.run(["true"])
    assert started.wait() == 0
    assert "ERROR" not in started.log
    assert "Traceback" not in started.log
    pod.is_deserted()
