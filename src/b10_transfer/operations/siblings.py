"""Restores GPU code of sibling environments on a pod whose own environment has nothing.

What that needs is imported only then.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

from ..concurrency.deadline import Deadline
from ..concurrency.forks import no_fork
from ..config import Config, read_deadline
from ..environment import Environment
from ..repository.union import Union
from ..status import LoadReport, OperationStatus
from ..stores.base import ReadStore
from .edge import attempt

logger = logging.getLogger(__name__)


def load_from_siblings(
    missed: LoadReport,
    load: Callable[[Deadline, Callable[[LoadReport], None]], LoadReport],
    deadline_s: float | None,
    spent_s: float,
) -> LoadReport:
    """Load from siblings, within what is left of a load's deadline.

    Args:
        missed: The report of the load that found nothing.
        load: Loads from siblings.
        deadline_s: Overrides ``B10_DEADLINE_SECONDS``.
        spent_s: Seconds that the load took.

    Returns:
        The report of the load from siblings; ``missed`` if that restored nothing.
    """
    left_s = read_deadline(deadline_s) - spent_s
    if left_s <= 0:
        return missed
    report = attempt("load", left_s, load, LoadReport, None)
    if report.status is OperationStatus.ERROR:
        logger.warning("nothing is restored from pods with another CPU: %s", report.reason)
    return report if report.status is OperationStatus.SUCCESS else missed


def read_siblings(store: ReadStore, config: Config, environment: Environment, deadline: Deadline) -> Union:
    """Read what the siblings of an environment hold for it. Raises StoreError."""
    with no_fork:
        from ..repository import siblings
        from ..repository.catalogue import Catalogue

    return siblings.read_siblings(Catalogue(store, config, deadline), config.namespace, environment)


def of_siblings(report: LoadReport, union: Union) -> LoadReport:
    """A report that names the siblings whose units were restored."""
    from ..repository import siblings

    if not report.restored:
        return report
    found = siblings.describe(union, report.restored)
    return replace(
        report,
        reason=f"{report.reason} {found}; the rest is compiled, and the next save publishes everything",
        partial=f"no environment equals this pod's; restored {found}",
        siblings=tuple(sorted({union.units[name][0].index.environment_id for name in report.restored})),
    )
