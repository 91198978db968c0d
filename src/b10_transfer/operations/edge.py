"""Runs an operation within its deadline, turns every error into a report, and logs one line."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import TypeVar

from ..concurrency.collector import held_back
from ..concurrency.deadline import Deadline, run_until_delivered
from ..config import read_deadline
from ..errors import CacheError, count
from ..local.statistics import note
from ..notices import notices
from ..status import LoadReport, OperationStatus, Report, SaveReport

logger = logging.getLogger(__name__)

R = TypeVar("R", bound=Report)
Observer = Callable[[Deadline], object]


def attempt(
    operation: str,
    deadline_s: float | None,
    operate: Callable[[Deadline, Callable[[R], None]], R],
    report_type: type[R],
    observe: Observer | None,
) -> R:
    """Run an operation within its deadline. An error is in the report; none is raised.

    The second argument of ``operate`` delivers the report of an operation that goes on.
    """
    try:
        deadline = Deadline(operation, read_deadline(deadline_s))
        if observe is not None:
            observe(deadline)
        with held_back():
            return run_until_delivered(deadline, lambda deliver: operate(deadline, deliver))
    except Exception as error:  # noqa: BLE001 - errors become a status here
        return report_type(status=OperationStatus.ERROR, reason=str(error) or type(error).__name__, error=error)


def finish(operation: str, report: R, started: float) -> R:
    """Add the seconds to a report, and log it."""
    report = replace(report, seconds=time.perf_counter() - started)
    with suppress(Exception):  # a logging handler of the program may raise
        _log(operation, report)
    with suppress(OSError):  # it is only counted
        note(operation, report)
    return report


def _log(operation: str, report: Report) -> None:
    """Log one line, with the facts as fields for a handler that writes JSON."""
    extra = {"event": operation, "fields": facts_of(report)}
    if report.status is OperationStatus.ERROR:
        # Only an unexpected error gets a traceback: messages of our own errors are complete.
        unexpected = report.error if not isinstance(report.error, CacheError) else None
        logger.error(
            "%s failed after %.2f s: %s", operation, report.seconds, report.reason, exc_info=unexpected, extra=extra
        )
        return
    if isinstance(report, SaveReport) and report.read_only:
        notices.log(logger, logging.INFO, f"{operation}: {report.status.name} ({report.reason})")
        return
    amount = ""
    if report.units:
        amount = f", {count(report.units, 'unit')}, {count(report.files, 'file')}, {report.bytes / 1e6:.1f} MB"
        if not getattr(report, "instant", ""):  # the seconds would include the import of torch
            rate = report.bytes / 1e6 / max(report.seconds, 1e-9)
            amount += f" at {rate:.{0 if rate >= 10 else 1}f} MB/s"
    partial = getattr(report, "partial", "")
    reason = f"{report.reason}; PARTIAL: {partial}" if partial else report.reason
    if report.status is OperationStatus.DOES_NOT_EXIST:
        reason += "; `b10-compile-cache explain` says why"
    message = "%s: %s in %.2f s%s (%s)"
    logger.info(message, operation, report.status.name, report.seconds, amount, reason, extra=extra)


def facts_of(report: Report) -> dict[str, object]:
    """The facts of a report that programs read, as JSON types."""
    facts: dict[str, object] = {
        "status": report.status.name,
        "reason": report.reason,
        "store": report.store,
        "namespace": report.namespace,
        "environment_id": report.environment_id,
        "units": report.units,
        "files": report.files,
        "bytes": report.bytes,
        "packed_bytes": report.packed_bytes,
        "seconds": round(report.seconds, 3),
    }
    if isinstance(report, LoadReport):
        facts |= {
            "packs": list(report.packs),
            "ignored_packs": report.ignored_packs,
            "pack_states": dict(report.pack_states),
            "already_present": report.already_present,
            "partial": report.partial,
            "group": report.group,
            "rest_units": len(report.rest),
            "rest_bytes": report.rest_bytes,
        }
    if isinstance(report, SaveReport):
        facts |= {"packs": list(report.packs), "left_for_next_save": report.left_for_next_save}
    return facts
