"""A simulated service behind a network, with limited bandwidth, a limited request rate and failures.

All transfers share the bandwidth evenly, and none exceeds the rate of one connection. The service queues requests above
its rate for half a second at most, and refuses the rest (503 SlowDown).
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import deque
from dataclasses import dataclass, field

from tests.simulation.scheduler import Scheduler

_BACKLOG_S = 0.5


@dataclass(frozen=True)
class Terms:
    """Limits of a service. Rates apply to all clients together unless the name says otherwise."""

    bytes_per_s: float
    connection_bytes_per_s: float
    requests_per_s: float
    latency_s: float
    """Time to the first byte on an idle service: drawn from half to one and a half times this."""
    failures: float
    """Probability that a request is lost."""
    failure_s: float
    """Seconds until the client notices a lost request."""


TERMS = {
    "mount": Terms(
        bytes_per_s=2.5e9,
        connection_bytes_per_s=1e9,
        requests_per_s=50_000,
        latency_s=0.001,
        failures=1e-4,
        failure_s=1.0,
    ),
    "bucket": Terms(
        bytes_per_s=12.5e9,
        connection_bytes_per_s=90e6,
        requests_per_s=5_500,
        latency_s=0.03,
        failures=1e-3,
        failure_s=0.1,
    ),
}
"""A file server at 20 Gbit/s, and a bucket at 100 Gbit/s with S3's 5,500 reads a second for one prefix."""


@dataclass
class Usage:
    """Totals over all clients."""

    requests: int = 0
    refused: int = 0
    failed: int = 0
    bytes: int = 0


class UnavailableError(Exception):
    """A request failed; a retry may succeed."""

    def __init__(self, *, is_refused: bool) -> None:
        self.is_refused = is_refused
        """Refused for too high a rate. Otherwise the request was lost."""


@dataclass
class Link:
    """Transfers in progress, all at the same rate."""

    scheduler: Scheduler
    bytes_per_s: float
    connection_bytes_per_s: float
    _passed: float = 0.0
    _since_s: float = 0.0
    _ends: list[tuple[float, int, deque[object]]] = field(default_factory=list)
    _order: itertools.count[int] = field(default_factory=itertools.count)
    _plan: int = 0

    def transfer(self, size_bytes: int) -> None:
        """Wait until ``size_bytes`` have arrived."""
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
            return  # another transfer has begun or ended
        self._advance()
        self._passed = max(self._passed, self._ends[0][0])  # despite rounding
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
        """Transfer ``size_bytes`` to or from the service in ``requests`` parallel requests. Raises UnavailableError."""
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
