"""A simulated service behind a network: so many bytes and requests a second, and failures.

Its bandwidth is shared evenly by all transfers, none of which gets more than a connection carries. It takes requests
at its rate; what comes too fast is put off for half a second at most, and beyond that refused (503 SlowDown).
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import deque
from dataclasses import dataclass, field

from benchmarks.simulation.scheduler import Scheduler

_BACKLOG_S = 0.5


@dataclass(frozen=True)
class Terms:
    """What a service offers. Rates are of all clients together, except where it says so."""

    bytes_per_s: float
    connection_bytes_per_s: float
    requests_per_s: float
    latency_s: float
    """From a request to its answer's first byte, where nothing is in the way: half to one and a half times this."""
    failures: float
    """Of so many requests in one, at random, nothing is heard."""
    failure_s: float
    """And after so long the client notices."""


@dataclass
class Usage:
    """What clients have used of a service."""

    requests: int = 0
    refused: int = 0
    failed: int = 0
    bytes: int = 0


class UnavailableError(Exception):
    """A request came to nothing; repeating it may help."""

    def __init__(self, *, is_refused: bool) -> None:
        self.is_refused = is_refused
        """Because there are too many. Otherwise it was lost."""


@dataclass
class Link:
    """Bytes on their way, all at the same pace: a transfer ends when as much has passed as it has bytes."""

    scheduler: Scheduler
    bytes_per_s: float
    connection_bytes_per_s: float
    _passed: float = 0.0
    _since_s: float = 0.0
    _ends: list[tuple[float, int, deque[object]]] = field(default_factory=list)
    _order: itertools.count[int] = field(default_factory=itertools.count)
    _plan: int = 0

    def transfer(self, size_bytes: int) -> None:
        """Wait until so many bytes have come through."""
        self._advance()
        waiting: deque[object] = deque()
        heapq.heappush(self._ends, (self._passed + size_bytes, next(self._order), waiting))
        self._schedule()
        self.scheduler.wait(waiting, None)  # type: ignore[arg-type]

    def _pace(self) -> float:
        return min(self.connection_bytes_per_s, self.bytes_per_s / len(self._ends))

    def _advance(self) -> None:
        if self._ends:
            self._passed += (self.scheduler.now_s - self._since_s) * self._pace()
        self._since_s = self.scheduler.now_s

    def _schedule(self) -> None:
        self._plan += 1
        plan = self._plan
        if self._ends:
            moment_s = self.scheduler.now_s + (self._ends[0][0] - self._passed) / self._pace()
            self.scheduler.at(moment_s, lambda: self._finish(plan))

    def _finish(self, plan: int) -> None:
        if plan != self._plan:
            return  # others have begun or ended since
        self._advance()
        self._passed = max(self._passed, self._ends[0][0])  # whatever rounding says
        while self._ends and self._ends[0][0] <= self._passed:
            self.scheduler.wake(heapq.heappop(self._ends)[2])  # type: ignore[arg-type]
        self._schedule()


class Service:
    """Takes requests and moves bytes."""

    def __init__(self, scheduler: Scheduler, terms: Terms, seed: int) -> None:
        self.usage = Usage()
        self.scheduler = scheduler
        self._terms = terms
        self._link = Link(scheduler, terms.bytes_per_s, terms.connection_bytes_per_s)
        self._random = random.Random(seed)
        self._free_s = 0.0

    def request(self, size_bytes: int = 0, requests: int = 1) -> None:
        """So many bytes to or from the service, by as many requests at once. Raises UnavailableError."""
        self.usage.requests += requests
        now_s = self.scheduler.now_s
        latency_s = self._terms.latency_s * self._random.uniform(0.5, 1.5)
        if self._free_s - now_s > _BACKLOG_S:
            self.usage.refused += 1
            self.scheduler.sleep(latency_s)
            raise UnavailableError(is_refused=True)
        self._free_s = max(self._free_s, now_s) + requests / self._terms.requests_per_s
        if self._random.random() < self._terms.failures:
            self.usage.failed += 1
            self.scheduler.sleep(self._terms.failure_s)
            raise UnavailableError(is_refused=False)
        self.scheduler.sleep(self._free_s - now_s + latency_s)
        if size_bytes:
            self._link.transfer(size_bytes)
            self.usage.bytes += size_bytes
