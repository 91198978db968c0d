"""Notes each load and save of this pod in a file of this user, for ``b10-compile-cache stats``.

A line of JSON for each operation is appended by one write, so that processes need no lock. The two files have a bounded
size: the older one is replaced when the newer one is full.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from ..status import LoadReport, Report
from .state import check_private, make_private, state_folder

_NEW, _OLD = "statistics.jsonl", "statistics.old.jsonl"
_MOST_BYTES = 512 * 1024
"""Size at which a file is full: some thousand operations."""
_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


def note(operation: str, report: Report) -> None:
    """Note a load or a save that has ended. Raises OSError."""
    line = {
        "time": round(time.time(), 3),
        "operation": operation,
        "status": report.status.name,
        "seconds": round(report.seconds, 3),
        "units": report.units,
        "bytes": report.bytes,
        "packed_bytes": report.packed_bytes,
    }
    if isinstance(report, LoadReport) and report.partial:
        line["partial"] = True
    folder = state_folder()
    make_private(folder)
    descriptor = os.open(folder / _NEW, _APPEND, 0o600)
    try:
        os.write(descriptor, json.dumps(line).encode() + b"\n")
        is_full = os.fstat(descriptor).st_size > _MOST_BYTES
    finally:
        os.close(descriptor)
    if is_full:
        with suppress(FileNotFoundError):  # another process has just done this
            os.replace(folder / _NEW, folder / _OLD)


def noted() -> Iterator[dict[str, object]]:
    """What was noted, the oldest first. Lines that are not complete are left out. Raises OSError."""
    for path in _files():
        with suppress(FileNotFoundError), open(path, "rb") as file:
            for line in file.read(2 * _MOST_BYTES).splitlines():
                with suppress(ValueError, RecursionError):
                    found = json.loads(line)
                    if isinstance(found, dict):
                        yield found


def forget() -> None:
    """Delete what was noted. Raises OSError."""
    for path in _files():
        with suppress(FileNotFoundError):
            path.unlink()


def _files() -> list[Path]:
    folder = state_folder()
    try:
        check_private(folder)
    except FileNotFoundError:
        return []
    return [folder / _OLD, folder / _NEW]
