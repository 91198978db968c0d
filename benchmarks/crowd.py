"""Many processes that load or save at the same moment, each as a replica of its own."""

from __future__ import annotations

import json
import subprocess
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from benchmarks.measure import Bench, OperationFailed, Program

MEMBER = Path(__file__).resolve().with_name("member.py")
_ERRORS = "stderr.txt"


@dataclass(frozen=True)
class Outcome:
    """What a crowd did."""

    total_seconds: float
    """From the moment when all were released until the last had ended its call."""
    seconds: tuple[float, ...]
    """Of each one's call."""
    statuses: Mapping[str, int]


class Crowd:
    """Processes that have imported everything and wait. Use it as a context manager: it leaves none behind."""

    def __init__(self, bench: Bench, program: Program, operation: str, roots: Sequence[Path], store: Path) -> None:
        self._program = program
        self._bench = bench
        self._operation = operation
        self._roots = roots
        self._store = store
        self._members: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Crowd:
        self._log = (self._bench.fresh() / _ERRORS).open("w+")
        for root in self._roots:
            member = subprocess.Popen(
                [self._program.python, str(MEMBER), self._operation],
                env=self._bench.environment(self._program, self._store, root),
                cwd=self._bench.folder,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                text=True,
            )
            self._members.append(member)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for member in self._members:
            member.kill()
            member.communicate()
        self._log.close()

    def act(self) -> Outcome:
        """Release all of them at once. Raises OperationFailed if one crashes."""
        for member in self._members:
            self._expect(member)
        started = time.perf_counter()
        for member in self._members:
            assert member.stdin is not None
            member.stdin.write("\n")
            member.stdin.flush()
        told = [json.loads(self._expect(member)) for member in self._members]
        total_seconds = time.perf_counter() - started
        statuses = Counter(str(one["status"]) for one in told)
        return Outcome(total_seconds, tuple(float(one["seconds"]) for one in told), statuses)

    def _expect(self, member: subprocess.Popen[str]) -> str:
        assert member.stdout is not None
        if line := member.stdout.readline():
            return line
        self._log.seek(0)
        raise OperationFailed(f"a process of {len(self._members)} crashed: {self._log.read()[-2000:]}")
