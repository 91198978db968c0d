"""Processes that are killed with SIGKILL while they load or save, one after another and quickly.

A *nursery* is a process that has everything imported and forks one victim at a time, so that a victim costs a fork and
not the start of an interpreter. (Not the test's own process: what has threads must not fork.)
"""

from __future__ import annotations

import json
import os
import random
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_FIRST_GUESS_S = 0.05
_SERVE = b"b10_transfer.stores.worker.server"


@dataclass(frozen=True)
class Outcome:
    """What became of a victim: its report, or None if it was killed before it could report."""

    report: dict[str, Any] | None
    seconds: float

    @property
    def was_killed(self) -> bool:
        return self.report is None


class Nursery:
    """Forks victims. ``kill`` kills each at a moment drawn from the whole of its operation, the same for one seed."""

    def __init__(self, environ: dict[str, str], seed: int, *, at_arms_length: bool) -> None:
        self.random = random.Random(seed)
        self._durations: dict[str, deque[float]] = {}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.concurrency.victims", str(int(at_arms_length))],
            env=os.environ | environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )

    def run(self, operation: str, environ: dict[str, str], **arguments: object) -> dict[str, Any]:
        """An operation that nobody disturbs; what it reported."""
        outcome = self._ask(operation, environ, None, "", arguments)
        assert outcome.report is not None, "it died by itself"
        self._remember(operation, outcome)
        return outcome.report

    def kill(self, operation: str, environ: dict[str, str], whom: str = "victim", **arguments: object) -> Outcome:
        """An operation that is killed somewhere on its way: its own process, or (``whom="worker"``) the worker."""
        known = self._durations.get(operation)
        duration_s = statistics.median(known) if known else _FIRST_GUESS_S
        outcome = self._ask(operation, environ, self.random.uniform(0, duration_s), whom, arguments)
        self._remember(operation, outcome)
        return outcome

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process.wait(60)

    def _remember(self, operation: str, outcome: Outcome) -> None:
        if not outcome.was_killed:
            self._durations.setdefault(operation, deque(maxlen=9)).append(outcome.seconds)

    def _ask(
        self, operation: str, environ: dict[str, str], after_s: float | None, whom: str, arguments: dict[str, object]
    ) -> Outcome:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps([operation, environ, after_s, whom, arguments]), file=self._process.stdin, flush=True)
        return Outcome(*json.loads(self._process.stdout.readline()))


def workers_of(store: Path) -> list[int]:
    """Processes that serve a store."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                command = (entry / "cmdline").read_bytes()
                if _SERVE in command and os.fsencode(store) in command.split(b"\0"):
                    found.append(int(entry.name))
    return found


def _main() -> None:
    """The nursery: one request a line on standard input, one outcome a line on standard output."""
    from b10_transfer import load
    from b10_transfer.stores import directory
    from b10_transfer.stores.worker import client as worker

    if sys.argv[1] == "1":
        vars(worker)["is_local"] = lambda _path: False
    vars(directory)["_COPY_BYTES"] = 64  # so that writing a pack takes long enough to die in
    load(namespace="nobody")  # so that everything is imported
    while threading.active_count() > 1:
        time.sleep(0.001)
    for line in sys.stdin:
        print(json.dumps(serve(*json.loads(line))), flush=True)


def serve(
    operation: str, environ: dict[str, str], after_s: float | None, whom: str, arguments: dict[str, Any]
) -> list[Any]:
    """Fork a victim, which may be killed after some time; its report (None if it has none), and how long it took."""
    reading, writing = os.pipe()
    started = time.perf_counter()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        _be_victim(operation, environ, arguments, writing)
    os.close(writing)
    if after_s is not None:
        time.sleep(after_s)
        for target in [pid] if whom == "victim" else _children(pid):
            with suppress(ProcessLookupError):
                os.kill(target, signal.SIGKILL)
    with open(reading, "rb") as pipe:
        data = pipe.read()  # ends when the victim does: nobody else has the other end
    seconds = time.perf_counter() - started
    os.waitpid(pid, 0)
    return [json.loads(data) if data else None, seconds]


def _be_victim(operation: str, environ: dict[str, str], arguments: dict[str, Any], writing: int) -> None:
    import b10_transfer

    try:
        os.environ.update(environ)
        if operation == "prune":
            from tests.concurrency.hammer import prune

            report: Any = prune(**arguments)
        else:
            report = getattr(b10_transfer, operation)(**arguments)
        facts = {
            "status": report.status.name,
            "reason": report.reason,
            "rejected": [*getattr(report, "rejected_packs", ())],
        }
        os.write(writing, json.dumps(facts).encode())
    finally:
        os._exit(0)


def _children(pid: int) -> list[int]:
    found: list[int] = []
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):
                found += map(int, (task / "children").read_text().split())
    return found


if __name__ == "__main__":
    _main()
