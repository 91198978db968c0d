"""Logs which caches an operation leaves out, once for each cause."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TypeVar

from ..errors import CacheError, ConfigurationError, LocalCacheError
from ..notices import notices

logger = logging.getLogger(__name__)

T = TypeVar("T")


def cause_of(error: CacheError) -> str:
    """The cause that errors of several caches may share, for example the same folder above them."""
    return error.detail if isinstance(error, LocalCacheError) else str(error)


def planned_without(failed: Mapping[str, CacheError], plan: Callable[[], T]) -> T:
    """Make a plan, and log which caches the operation leaves out.

    If the plan fails, its error is in the result of the operation and is not logged here.

    Args:
        failed: Why caches cannot be used, by name.
        plan: Makes the plan.

    Raises:
        CacheError: The error of ``plan``.
    """
    try:
        planned = plan()
    except CacheError as error:
        notices.remember(cause_of(error))
        log_left_out({name: other for name, other in failed.items() if cause_of(other) != cause_of(error)})
        raise
    log_left_out(failed)
    return planned


def log_left_out(failed: Mapping[str, CacheError]) -> None:
    """Log why caches cannot be used: one ERROR for each wrong setting, one WARNING for each other cause."""
    causes: dict[str, list[CacheError]] = {}
    for error in failed.values():
        causes.setdefault(cause_of(error), []).append(error)
    for cause, [error, *others] in causes.items():
        directories = "directory" if len(others) == 1 else "directories"
        more = f" (and {len(others)} more cache {directories} likewise)" if others else ""
        level = logging.ERROR if isinstance(error, ConfigurationError) else logging.WARNING
        left = "these caches are" if others else "this cache is"
        notices.log(logger, level, f"{error}{more}; {left} left out", cause)
