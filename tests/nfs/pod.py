"""A process that loads or saves and pauses in the middle of it, so that something can happen meanwhile."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

# Pauses before some read of a pack, or before some megabyte of one is written: says so, and waits for a line. What is
# paused is the process that asks; the store's worker process then does real I/O, unchanged.
_PROGRAM = """
import json, sys
import b10_transfer
from b10_transfer.stores.worker import client as worker
calls = 0

def pausing(function, counts):
    def paused(*arguments):
        global calls
        calls += counts(arguments)
        if calls == int(sys.argv[2]) and counts(arguments):
            print("paused", flush=True)
            sys.stdin.readline()
        return function(*arguments)
    return paused

if sys.argv[1] == "load":
    for name in ("read_at", "borrow_at"):
        setattr(worker._WorkerReader, name, pausing(getattr(worker._WorkerReader, name), lambda arguments: True))
else:
    worker.WorkerStore._send = pausing(worker.WorkerStore._send, lambda arguments: len(arguments[-1]) == 1 << 20)
report = getattr(b10_transfer, sys.argv[1])()
print(json.dumps({"status": report.status.name, "reason": report.reason, "units": report.units}))
"""


class PausedPod:
    """One load, paused before its ``before``-th read, or one save, before its ``before``-th megabyte."""

    def __init__(self, operation: str, *, before: int, **variables: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, operation, str(before)],
            env=os.environ | variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if line != "paused\n":
            _, errors = self._process.communicate()
            raise AssertionError(f"it ended before it paused: {line}{errors}")

    def finish(self) -> dict[str, Any]:
        """Let it go on. It must come to an end by itself, as a process."""
        output, errors = self._process.communicate("\n", timeout=120)
        assert self._process.returncode == 0, errors
        found = json.loads(output)
        assert isinstance(found, dict)
        return found


def objects(store: Path) -> dict[str, bytes]:
    """The objects in a store, as the server has them, but for leases."""
    return {
        str(path.relative_to(store)): path.read_bytes()
        for path in sorted(store.rglob("*"))
        if path.is_file() and not {".staging", ".leases", "leases"}.intersection(path.relative_to(store).parts)
    }
