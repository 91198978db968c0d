"""What every look at a pod or a store has in common: it ends in time, and raises what went wrong."""

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
    """Do ``work`` within a deadline, by default B10_DEADLINE_SECONDS, whatever a file system does meanwhile.

    ``observe`` is given the :class:`Deadline` when it begins. Raises CacheError: DeadlineExceededError if time is up.
    """
    deadline = Deadline(operation, read_deadline(deadline_s))
    if observe is not None:
        observe(deadline)
    return run_within(deadline, lambda: work(deadline))


def open_store(config: Config, deadline: Deadline) -> AbstractContextManager[Store]:
    """The configured store."""
    return opened(config, deadline)
