"""As process 1 of a container: orphans are reaped, signals arrive, the exit code is the server's."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from tests.launcher.pod import COMMAND, Pod, wait_until


def zombies(pid: int) -> list[str]:
    """Dead children of a process that nobody has waited for."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] == "Z" and fields[1] == str(pid):
            found.append(folder.name)
    return found


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_orphans_of_the_server_are_reaped_and_its_exit_code_is_passed_on(
    pod: Pod, namespace_of_processes: list[str]
) -> None:
    started = pod.run(None, namespace_of_processes, FAKE_ORPHANS="20", FAKE_EXIT="7")
    pod.waits_for("serves")
    started.says("save: SUCCESS")
    (ours,) = children(started.pid)
    assert b"b10-compile-cache" in Path(f"/proc/{ours}/cmdline").read_bytes()
    # Only the server is left; all that it has left behind were our children.
    wait_until(lambda: len(children(ours)) == 1 and not zombies(ours), "the orphans to be reaped")
    os.kill(ours, signal.SIGTERM)
    assert started.wait() == 7
    assert pod.signals() == [signal.SIGTERM]
    assert pod.stored() == ["KERNEL0", "KERNEL1"]
    pod.is_deserted()


def test_server_that_crashes_is_told_and_its_workers_end_with_us(pod: Pod, namespace_of_processes: list[str]) -> None:
    started = pod.run(None, namespace_of_processes, FAKE_WORKER="1", FAKE_ENDS="kill")
    assert started.wait() == 128 + signal.SIGKILL
    pod.is_deserted()


def test_many_orphans_at_once_leave_the_exit_code_alone(pod: Pod, namespace_of_processes: list[str]) -> None:
    script = "for i in 1 2 3 4 5 6 7 8 9; do (true & true &) ; done; exit 7"
    assert pod.run(["sh", "-c", script], namespace_of_processes).wait() == 7


def test_shell_script_as_process_one_with_the_command_in_the_background(
    pod: Pod, namespace_of_processes: list[str]
) -> None:
    script = f"'{COMMAND}' & exec " + " ".join(f"'{argument}'" for argument in pod.server)
    started = pod.start(["sh", "-c", script], namespace_of_processes, FAKE_EXIT="7")
    started.says("found the server: process 1,")
    started.says("save: SUCCESS")
    (server,) = children(started.pid)
    os.kill(server, signal.SIGTERM)
    assert started.wait() == 7
    pod.is_deserted()
