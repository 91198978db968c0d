"""This user's processes, as ``/proc`` lists them."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")


@dataclass(frozen=True)
class Process:
    """A process. Its start time distinguishes it from a later process with the same id."""

    pid: int
    started: int
    """In clock ticks since boot, from ``/proc/<pid>/stat``."""
    parent: int
    session: int
    arguments: tuple[str, ...]

    def is_alive(self) -> bool:
        """Whether it still runs; a zombie does not."""
        found = read(self.pid)
        return found is not None and found.started == self.started

    def started_ns(self) -> int | None:
        """Its start in nanoseconds since the epoch, to about a hundredth of a second; None if that is not known."""
        try:
            uptime_s = float((_PROC / "uptime").read_text().split()[0])
        except (OSError, ValueError, IndexError):
            return None
        return time.time_ns() - int((uptime_s - self.started / os.sysconf("SC_CLK_TCK")) * 1e9)


def processes() -> list[Process]:
    """This user's processes, as far as they can be seen."""
    found = []
    user = os.getuid()
    with suppress(OSError):  # there may be no /proc
        for name in os.listdir(_PROC):
            if name.isdigit():
                with suppress(OSError):
                    if os.stat(_PROC / name).st_uid == user and (process := read(int(name))) is not None:
                        found.append(process)
    return found


def read(pid: int) -> Process | None:
    """A process that runs, or None."""
    try:
        status = (_PROC / str(pid) / "stat").read_text(errors="replace")
        arguments = (_PROC / str(pid) / "cmdline").read_bytes()
    except OSError:
        return None
    # The name, in parentheses, may hold any character. Behind it: state, parent, group, session, …, start as the 20th.
    fields = status.rpartition(")")[2].split()
    if fields[0] in "ZX":
        return None
    texts = tuple(os.fsdecode(argument) for argument in arguments.rstrip(b"\0").split(b"\0"))
    return Process(pid, int(fields[19]), int(fields[1]), int(fields[3]), texts)


def environment_of(pid: int) -> dict[str, str]:
    """The environment that a process was started with; empty if it cannot be read."""
    try:
        entries = os.fsdecode((_PROC / str(pid) / "environ").read_bytes()).split("\0")
    except OSError:
        return {}
    return dict(entry.split("=", 1) for entry in entries if "=" in entry)
