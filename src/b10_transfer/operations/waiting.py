"""Waits while another replica compiles."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace

from ..concurrency.deadline import Deadline, run_within
from ..config import Config, read_wait
from ..status import LoadReport, OperationStatus
from . import compile_once
from .compile_once import Outcome
from .session import Session

logger = logging.getLogger(__name__)

_WINDOW_S = 30.0


def wait_for_compile(
    report: LoadReport,
    wait_s: float | None,
    read_config: Callable[[], Config],
    attempt: Callable[[], LoadReport],
    waiter: compile_once.Waiter,
) -> LoadReport:
    """Wait while another replica compiles, if that is requested. After any error this replica compiles, too."""
    try:
        ends = time.monotonic() + read_wait(wait_s)
        while report.status is OperationStatus.DOES_NOT_EXIST and (left_s := ends - time.monotonic()) > 0:
            outcome = _wait_a_while(read_config, left_s, waiter)
            if outcome is Outcome.NOBODY:
                break
            if outcome is Outcome.SAME_JOB:
                together = "another process of this group, job or pod compiles, too"
                return replace(report, reason=f"{report.reason}; {together}")
            if outcome is Outcome.WAITING:
                continue
            report = attempt()
            if outcome is Outcome.MINE:
                if report.status is OperationStatus.DOES_NOT_EXIST:
                    return replace(report, reason=f"{report.reason}; this replica compiles, others may wait for it")
                _give_lease_back(read_config, waiter.session)  # a pack was published just before the lease was free
    except Exception as error:  # noqa: BLE001 - this replica compiles then
        logger.warning("not waiting for another replica to compile: %s", error)
    return report


def _give_lease_back(read_config: Callable[[], Config], holder: Session) -> None:
    deadline = Deadline("giving the lease back", _WINDOW_S)
    run_within(deadline, lambda: compile_once.release(read_config(), deadline, holder))


def _wait_a_while(read_config: Callable[[], Config], left_s: float, waiter: compile_once.Waiter) -> Outcome:
    """Wait for at most 30 s, so that a mount that hangs meanwhile is noticed."""
    window_s = min(left_s, _WINDOW_S)
    deadline = Deadline("waiting for another replica to compile", window_s + _WINDOW_S)
    config = run_within(deadline, read_config)
    if not config.locks:
        return Outcome.NOBODY
    return run_within(deadline, lambda: compile_once.wait(config, deadline, window_s, waiter))
