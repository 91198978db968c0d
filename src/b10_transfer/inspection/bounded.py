"""Runs an inspection within its deadline."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TypeVar

from ..concurrency.deadline import Deadline, run_within
from ..config import Config, read_deadline
from ..stores.base import Store
from ..stores.opening import opened

T = TypeVar("T")
Observer = Callable[[Deadline], object]


def bounded(
    operation: str,
    work: Callable[[Deadline], T],
    *,
    deadline_s: float | None = None,
    observe: Observer | None = None,
) -> T:
    """Run ``work`` within a deadline, even if a file system hangs.

    Args:
        operation: Name of the operation, for messages.
        work: Receives the deadline.
        deadline_s: Seconds. Default: ``B10_DEADLINE_SECONDS``.
        observe: Receives the deadline when the work begins.

    Returns:
        The result of ``work``.

    Raises:
        CacheError: The error of ``work``; DeadlineExceededError if the time is up.
    """
    deadline = Deadline(operation, read_deadline(deadline_s))
    if observe is not None:
        observe(deadline)
    return run_within(deadline, lambda: work(deadline))


def open_store(config: Config, deadline: Deadline) -> AbstractContextManager[Store]:
    """Open the configured store."""
    return opened(config, deadline)
