"""Prepares instant starts at the end of a load, within what is left of its deadline."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from .. import instant as instant_starts
from ..adapters import cache_roots
from ..concurrency.deadline import Deadline, run_within
from ..config import Config, read_deadline, read_instant
from ..errors import CacheError
from ..local.ownership import is_private
from ..status import LoadReport

logger = logging.getLogger(__name__)


def prepare_if_requested(
    instant: bool | None,
    report: LoadReport,
    read_config: Callable[[], Config],
    deadline_s: float | None,
    spent_s: float,
) -> str:
    """Prepare instant starts if they are requested, in what is left of the load's deadline.

    Returns ``ready``, the reason why there is no instant start, or an empty string if none was requested.
    """
    try:
        if not read_instant(instant):
            return ""
    except CacheError as error:
        logger.error("no instant start: %s", error)
        return str(error)
    try:
        deadline = Deadline("preparing instant starts", max(0.0, read_deadline(deadline_s) - spent_s))

        def prepare() -> str:
            deadline.check("importing torch")
            files = _restored_traces(report, read_config) if report.restored else []
            return instant_starts.prepare(files, deadline)

        reason = run_within(deadline, prepare)
    except Exception as error:  # noqa: BLE001 - a start is a warm one then
        reason = str(error) or type(error).__name__
    if reason:
        logger.warning("no instant start, but a warm one: %s", reason)
    return reason or "ready"


def _restored_traces(report: LoadReport, read_config: Callable[[], Config]) -> list[Path]:
    """The files that this load restored to private caches and that instant starts may read."""
    prefix = "inductor/dynamo/"
    names = [name.removeprefix("inductor/") for name in report.restored if name.startswith(prefix)]
    roots = [root for root in cache_roots(read_config()) if root.name == "inductor"] if names else []
    return [
        root.path / name for root in roots if is_private(root.path, may_be_shared=root.may_be_shared) for name in names
    ]
