"""The public operations, and the edge: the one place where errors become an OperationStatus.

Nothing but KeyboardInterrupt and SystemExit leaves :func:`load` and :func:`save`. A cache must never be the reason
that a model does not start.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import TypeVar

from . import loading, saving
from .adapters import cache_roots
from .config import Config, read_deadline
from .deadline import Deadline, run_within
from .environment.imported_torch import compile_counters
from .errors import CacheError
from .status import LoadReport, OperationStatus, Report, SaveReport
from .usage import CacheReport, CacheUse, Usage

__all__ = [
    "CacheReport",
    "CacheUse",
    "LoadReport",
    "OperationStatus",
    "SaveReport",
    "cache_report",
    "load",
    "load_compile_cache",
    "save",
    "save_compile_cache",
]

logger = logging.getLogger(__name__)

R = TypeVar("R", bound=Report)
Observer = Callable[[Deadline], object]
StorePath = str | os.PathLike[str]


def load_compile_cache(
    *,
    namespace: str | None = None,
    store: StorePath | None = None,
    merge: bool | None = None,
    deadline_s: float | None = None,
) -> OperationStatus:
    """Put saved compile artifacts in place. Call it before the model compiles.

    Each argument overrides an environment variable (docs/configuration.md): ``namespace`` B10_NAMESPACE, ``store``
    B10_STORE, ``merge`` B10_MERGE, ``deadline_s`` (seconds) B10_DEADLINE_SECONDS.

    Returns SUCCESS: artifacts are in place. SKIPPED: the pod already has compile artifacts (with ``merge``: all that
    the store holds). DOES_NOT_EXIST: the store has nothing usable for this environment. ERROR: anything else; the log
    says what and what to do, and the model compiles as if there were no cache. Never raises.
    """
    return load(namespace=namespace, store=store, merge=merge, deadline_s=deadline_s).status


def save_compile_cache(
    *, namespace: str | None = None, store: StorePath | None = None, deadline_s: float | None = None
) -> OperationStatus:
    """Publish compile artifacts that the store does not hold yet. Call it when the model has compiled.

    Arguments as for :func:`load_compile_cache`. Returns SUCCESS: new artifacts were published. SKIPPED: the store
    already holds all there is, or nothing was compiled. ERROR: anything else; nothing was published. Never raises.
    """
    return save(namespace=namespace, store=store, deadline_s=deadline_s).status


def load(
    *,
    namespace: str | None = None,
    store: StorePath | None = None,
    merge: bool | None = None,
    deadline_s: float | None = None,
    observe: Observer | None = None,
) -> LoadReport:
    """:func:`load_compile_cache` for a program that wants to know more: what was restored, from where, and why not.

    ``observe`` is given the operation's :class:`Deadline` when it begins, for a display of what it is doing.
    """

    def operate(deadline: Deadline) -> LoadReport:
        global _last_load
        config = Config.from_environment(namespace=namespace, store=store, merge=merge)
        began_ns = time.time_ns()
        report = loading.load(config, deadline)
        ended_ns = time.time_ns()
        # The caches are looked for again when somebody asks: that takes a millisecond, and nobody may.
        _last_load = lambda: Usage(cache_roots(config), report.restored, began_ns, ended_ns)  # noqa: E731
        return report

    return _at_the_edge("load", deadline_s, operate, LoadReport, observe)


def save(
    *,
    namespace: str | None = None,
    store: StorePath | None = None,
    deadline_s: float | None = None,
    observe: Observer | None = None,
) -> SaveReport:
    """:func:`save_compile_cache` for a program that wants to know more: what was published, and why nothing was."""

    def operate(deadline: Deadline) -> SaveReport:
        return saving.save(Config.from_environment(namespace=namespace, store=store), deadline)

    return _at_the_edge("save", deadline_s, operate, SaveReport, observe)


_last_load: Callable[[], Usage] | None = None


def cache_report() -> CacheReport:
    """What became of this process's last load: for each cache, what was restored, used since, and compiled anew.

    With torch's own counts of hits and misses, if this process has compiled. Call it when the model is warm; it says
    the same on the log, as a WARNING if a restore was not used. Takes milliseconds, and never raises: what cannot be
    told is said in ``warning``.
    """
    try:
        report = _last_load().report() if _last_load is not None else CacheReport((), compile_counters())
    except Exception as error:  # noqa: BLE001 - this is the edge
        report = CacheReport((), warning=f"what became of the caches cannot be told: {error}")
    with suppress(Exception):
        for line in str(replace(report, warning="")).splitlines():
            logger.info("%s", line)
        if report.warning:
            logger.warning("%s", report.warning)
    return report


def _at_the_edge(
    operation: str,
    deadline_s: float | None,
    operate: Callable[[Deadline], R],
    report_type: type[R],
    observe: Observer | None,
) -> R:
    """Run an operation within its deadline, and report whatever comes of it."""
    started = time.perf_counter()
    try:
        deadline = Deadline(operation, read_deadline(deadline_s))
        if observe is not None:
            observe(deadline)
        report = run_within(deadline, lambda: operate(deadline))
    except Exception as error:  # noqa: BLE001 - this is the edge
        report = report_type(status=OperationStatus.ERROR, reason=str(error) or type(error).__name__, error=error)
    report = replace(report, seconds=time.perf_counter() - started)
    with suppress(Exception):  # a program's own logging handler may raise, and there is no way to tell it
        _log(operation, report)
    return report


def _log(operation: str, report: Report) -> None:
    """One line for each operation."""
    if report.status is OperationStatus.ERROR:
        # A traceback only for what nobody foresaw: our own errors say all there is to say.
        unforeseen = report.error if not isinstance(report.error, CacheError) else None
        logger.error("%s failed after %.2f s: %s", operation, report.seconds, report.reason, exc_info=unforeseen)
        return
    amount = ""
    if report.units:
        rate = report.bytes / 1e6 / max(report.seconds, 1e-9)
        speed = f"{rate:.{0 if rate >= 10 else 1}f} MB/s"
        amount = f", {report.units} units, {report.files} files, {report.bytes / 1e6:.1f} MB at {speed}"
    logger.info("%s: %s in %.2f s%s (%s)", operation, report.status.name, report.seconds, amount, report.reason)
