"""``load_compile_cache(autosave=True)``, and the warning of a program that ends with unsaved units."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.launcher.pod import COMMAND, LONG, Pod, wait_until

_PROGRAM = str(Path(__file__).with_name("program.py"))


class Program:
    """A running program.py, which executes the commands that a test sends."""

    def __init__(self, pod: Pod, **variables: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, _PROGRAM],
            env=pod.variables | variables,
            cwd=pod.home,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def begin(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def is_done(self) -> int:
        """Wait until it has done a line; the id of the process that has."""
        assert self.process.stdout is not None
        return int(self.process.stdout.readline().split()[-1])

    def do(self, line: str) -> int:
        self.begin(line)
        return self.is_done()

    def end(self) -> str:
        """Let it end; what it has written to stderr until its readers see the end of it."""
        return self.process.communicate(timeout=60)[1]


Start = Callable[..., Program]


@pytest.fixture
def start(pod: Pod) -> Iterator[Start]:
    started: list[Program] = []

    def start(**variables: str) -> Program:
        started.append(Program(pod, **variables))
        return started[-1]

    yield start
    for program in started:
        program.process.kill()
        program.process.communicate()


def supervisors(pod: Pod) -> list[int]:
    return [pid for pid, line in pod.processes().items() if "b10-compile-cache autosave" in line]


def supervisor(pod: Pod) -> int:
    """The one that saves, after those that have found one there have ended."""
    wait_until(lambda: len(supervisors(pod)) == 1, "one supervisor")
    return supervisors(pod)[0]


def log(pod: Pod) -> str:
    return "".join(path.read_text() for path in (pod.path / "tmp").glob("b10-transfer-*/*.log"))


def test_late_compilations_are_saved_while_the_program_runs_and_at_its_end(pod: Pod, start: Start) -> None:
    program = start()
    program.do("load autosave")
    program.do("compile EARLY")
    wait_until(lambda: "save: SUCCESS" in log(pod), "a save")
    program.do("compile LATE")
    assert "not saved" not in program.end()
    pod.is_deserted()
    assert pod.stored() == ["EARLY", "LATE"]


def test_variable_turns_it_on_and_the_argument_overrides_it(pod: Pod, start: Start) -> None:
    program = start(B10_AUTOSAVE="1")
    program.do("load")
    program.do("compile UNIT")
    program.end()
    pod.is_deserted()
    assert pod.stored() == ["UNIT"]
    assert pod.command("load", B10_AUTOSAVE="1").returncode == 0  # this command starts no such process
    pod.is_deserted()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_end_by_a_signal_loses_nothing(pod: Pod, start: Start, number: int) -> None:
    program = start(B10_QUIET_SECONDS=LONG)
    program.do("load autosave")
    program.do("compile UNIT")
    program.process.send_signal(number)
    pod.is_deserted()
    assert pod.stored() == ["UNIT"]


def test_ranks_share_one_supervisor_that_ends_with_the_last_of_them(pod: Pod, start: Start) -> None:
    ranks = [start(B10_QUIET_SECONDS=LONG, LOCAL_RANK=str(rank)) for rank in range(4)]
    for rank in ranks:
        rank.begin("load autosave")
    for rank in ranks:
        rank.is_done()
    pid = supervisor(pod)
    for rank in ranks[:3]:
        rank.end()
    ranks[3].do("compile UNIT")
    assert supervisors(pod) == [pid]
    ranks[3].end()
    pod.is_deserted()
    assert pod.stored() == ["UNIT"]


def test_forked_process_is_a_part_of_the_program(pod: Pod, start: Start) -> None:
    program = start(B10_QUIET_SECONDS=LONG)
    program.do("load autosave")
    child = program.do("orphan")
    program.process.wait()
    program.do("compile UNIT")
    supervisor(pod)
    pod.send(child, signal.SIGKILL)
    pod.is_deserted()
    assert pod.stored() == ["UNIT"]


def test_it_holds_no_file_of_the_program_and_is_not_its_child(pod: Pod, start: Start) -> None:
    program = start()
    pid = program.do("load autosave")
    folder = Path("/proc", str(supervisor(pod)))
    own = {os.readlink(f"/proc/{pid}/fd/{number}") for number in range(3)}

    def holds_only_its_own() -> bool:
        """Also while it imports modules and looks at caches, which opens files for a moment."""
        targets = set()
        for descriptor in os.listdir(folder / "fd"):
            with suppress(FileNotFoundError):
                targets.add(os.readlink(folder / "fd" / descriptor))
        return not targets & own and all(
            target == os.devnull or target.startswith(str(pod.path / "tmp")) for target in targets
        )

    wait_until(holds_only_its_own, "no other open file")
    fields = (folder / "stat").read_text().rpartition(")")[2].split()
    assert int(fields[1]) != pid  # its parent
    assert int(fields[3]) != os.getsid(pid)


def test_kill_of_the_supervisor_harms_nothing_and_the_program_says_that_units_are_not_saved(
    pod: Pod, start: Start
) -> None:
    program = start()
    program.do("load autosave")
    program.do("compile EARLY")
    wait_until(lambda: "save: SUCCESS" in log(pod), "a save")
    pod.send(supervisor(pod), signal.SIGKILL)
    wait_until(lambda: not supervisors(pod), "its end")
    program.do("compile LATE")
    assert "up to 2 units were compiled here and not saved" in program.end()
    pod.is_deserted()
    assert pod.stored() == ["EARLY"]


def test_kill_of_both_leaves_nothing_behind_and_the_next_program_saves(pod: Pod, start: Start) -> None:
    program = start(B10_QUIET_SECONDS=LONG)
    program.do("load autosave")
    program.do("compile UNIT")
    pod.send(supervisor(pod), signal.SIGKILL)
    program.process.kill()
    pod.is_deserted()
    program = start(B10_QUIET_SECONDS=LONG)
    program.do("load autosave")
    program.end()
    pod.is_deserted()
    assert pod.stored() == ["UNIT"]


def test_signal_to_the_supervisor_ends_it_with_a_last_save(pod: Pod, start: Start) -> None:
    program = start(B10_QUIET_SECONDS=LONG)
    program.do("load autosave")
    program.do("compile UNIT")
    pod.send(supervisor(pod), signal.SIGTERM)
    wait_until(lambda: not supervisors(pod), "its end")
    assert pod.stored() == ["UNIT"]


def test_restored_units_cause_no_save(pod: Pod, start: Start) -> None:
    program = start()
    program.do("load")
    program.do("compile UNIT")
    program.do("save")
    program.end()
    pod.empty_cache()
    program = start()
    program.do("load autosave")
    assert "load: SUCCESS" in program.end()
    pod.is_deserted()
    assert "save:" not in log(pod)


def test_program_that_cannot_write_to_the_store_goes_on_without(pod: Pod, start: Start) -> None:
    program = start(B10_READ_ONLY="1")
    program.do("load autosave")
    assert "later compilations are not saved: B10_READ_ONLY=1" in program.end()
    pod.is_deserted()


def test_folder_that_others_could_write_to_is_not_used(pod: Pod, start: Start) -> None:
    folder = pod.path / "tmp" / f"b10-transfer-{os.geteuid()}"
    folder.mkdir()
    folder.chmod(0o777)
    program = start()
    program.do("load autosave")
    assert "other users could write to it" in program.end()
    assert list(folder.iterdir()) == []


def test_run_saves_for_the_program_that_it_starts(pod: Pod) -> None:
    (pod.path / "lines").write_text("load autosave\ncompile UNIT\n")
    script = f"'{sys.executable}' '{_PROGRAM}' < '{pod.path}/lines'"
    started = pod.start([COMMAND, "run", "--", "sh", "-c", script])
    assert started.wait() == 0
    assert "a process of its own" not in started.log
    assert "not saved" not in started.log
    assert pod.stored() == ["UNIT"]


def test_unsaved_units_are_counted_in_one_warning_at_the_end(pod: Pod, start: Start) -> None:
    program = start()
    program.do("load")
    for line in ("compile SAVED", "save", "compile ONE", "compile TWO"):
        program.do(line)
    warnings = [line for line in program.end().splitlines() if "WARNING" in line]
    assert len(warnings) == 1
    assert "2 units were compiled here and not saved" in warnings[0]


def test_program_that_saved_everything_ends_silently(pod: Pod, start: Start) -> None:
    program = start()
    for line in ("load", "compile UNIT", "save"):
        program.do(line)
    assert "WARNING" not in program.end()
    pod.empty_cache()
    program = start()
    program.do("load")
    assert "WARNING" not in program.end()


def test_forked_process_that_ends_leaves_the_warning_to_its_parent(pod: Pod, start: Start) -> None:
    program = start()
    for line in ("load", "fork", "compile UNIT"):
        program.do(line)
    assert program.end().count("not saved") == 1


def test_units_that_a_program_uses_are_recorded_without_a_save(pod: Pod, start: Start) -> None:
    """A program that only loads is the README's first example."""
    first = start()
    first.do("load autosave")
    for number in range(8):
        first.do(f"compile UNIT{number}")
    first.end()
    pod.is_deserted()
    pod.empty_cache()

    second = start(B10_RESTORE_REST="after")
    second.do("load autosave")
    second.do("use UNIT1")
    second.do("use UNIT2")
    wait_until(lambda: "recorded that this start used 2 units" in log(pod), "a record while the program runs")
    assert "used 2" in log(pod)
    second.end()
    pod.is_deserted()
    pod.empty_cache()

    third = start(B10_RESTORE_REST="never", B10_QUIET_SECONDS=LONG)
    third.do("load autosave")
    assert pod.cached() == ["UNIT1", "UNIT2"]
    third.do("compile UNIT3")  # again, although the store has it
    assert "the 2 of 8 units that earlier starts used; the other 6 stay in the store" in third.end()
    pod.is_deserted()
    assert "recorded that this start used 1 unit\n" in log(pod)
    assert pod.stored() == [f"UNIT{number}" for number in range(8)]
    pod.empty_cache()

    fourth = start(B10_RESTORE_REST="never")
    fourth.do("load")
    assert pod.cached() == ["UNIT1", "UNIT2", "UNIT3"]
