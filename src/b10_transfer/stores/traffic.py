"""How many requests the stores of this process and their workers have sent to buckets, for metrics."""

from __future__ import annotations


class Traffic:
    """Numbers of requests, each attempt counted. Of a directory none is counted."""

    __slots__ = ("failed", "requests", "throttled")

    def __init__(self) -> None:
        self.requests = 0
        """All of them."""
        self.throttled = 0
        """Those that the bucket refused because it was overloaded."""
        self.failed = 0
        """Those that were lost, or failed in another way that a retry may repair."""

    def take(self) -> list[int]:
        """The numbers since the last call."""
        taken = [self.requests, self.throttled, self.failed]
        self.requests -= taken[0]
        self.throttled -= taken[1]
        self.failed -= taken[2]
        return taken

    def add(self, requests: int, throttled: int, failed: int) -> None:
        """Add the numbers that another process counted."""
        self.requests += requests
        self.throttled += throttled
        self.failed += failed


total = Traffic()
"""That of this process."""
