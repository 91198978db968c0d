"""Restores the units that warm starts did not use, after a load has returned.

It runs in a daemon thread with low priority, a deadline and a connection to the store of its own. It depends on no lock
and delays nobody: a compiler that needs a unit earlier makes it, and no restore replaces that. When the interpreter
exits, it stops at its next step.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

from ..adapters import CacheRoot, find_adapter
from ..concurrency.deadline import Deadline
from ..concurrency.priority import lower_priority
from ..config import Config, read_deadline
from ..environment import Environment
from ..errors import CacheError, count
from ..local.presence import below_root, known_unit, missing
from ..local.restore import restore
from ..local.staging import REST_LOCK, locked
from ..pack import Limits
from ..repository.repository import ReadRepository, Repository
from ..repository.starts import split
from ..repository.union import Union
from ..status import LoadReport, OperationStatus
from ..stores.opening import opened
from .damage import damaged_since, report_damage

logger = logging.getLogger(__name__)

DEADLINES = 10
"""The rest may take so many times the deadline of a load: no start waits for it."""
_EXIT_S = 1.0
"""The exit of the interpreter waits so long for the thread, which removes what it has staged."""


def split_by_use(repository: ReadRepository, union: Union, names: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """Units that a load restores before it returns, and those that no start used. Without a record: all, and none."""
    starts = repository.starts(union)
    adapters = {root: find_adapter(root) for root in {name.partition("/")[0] for name in names}}

    def may_follow(name: str) -> bool:
        unit, adapter = union.units[name][1], adapters[name.partition("/")[0]]
        files = [below_root(member.path) for member in unit.members]
        return adapter is not None and adapter.may_follow(known_unit(unit), files)

    return split(union, names, starts, may_follow)


def with_rest(report: LoadReport, union: Union, rest: Sequence[str], mode: str) -> LoadReport:
    """A report that says what is restored later, or never."""
    if not rest or report.status not in (OperationStatus.SUCCESS, OperationStatus.SKIPPED):
        return report
    units = [union.units[name][1] for name in rest]
    first, total = report.units + report.already_present, report.units + report.already_present + len(rest)
    return replace(
        report,
        reason=f"{report.reason}; restored first: the {first:,} of {total:,} units that earlier starts used; "
        f"{others(rest, mode)}",
        rest=tuple(rest),
        rest_files=sum(len(unit.members) for unit in units),
        rest_bytes=sum(unit.size for unit in units),
    )


def others(rest: Sequence[str], mode: str) -> str:
    """Says whether the other units follow or stay in the store."""
    one = len(rest) == 1
    follow = f"follow{'s' if one else ''}" if mode == "after" else f"stay{'s' if one else ''} in the store"
    return f"the other {len(rest):,} {follow}"


@dataclass(frozen=True)
class Rest:
    """What is left to restore after a load."""

    config: Config
    environment: Environment
    union: Union
    """What the load has read. The indexes are verified, and frames are checked against them as they are read."""
    names: Sequence[str]
    roots: Sequence[CacheRoot]

    def restore(self, deadline: Deadline) -> None:
        """Put the units in place that are still missing. Raises CacheError."""
        started = time.perf_counter()
        config, union = self.config, self.union
        with opened(config, deadline) as store, ExitStack() as locks:
            if config.locks:
                # Not the lock of a load, for which other ranks wait. The first of them restores, and the others find
                # everything in place.
                for path in sorted({root.outermost for root in self.roots}):
                    locks.enter_context(locked(path, deadline, may_be_shared=config.shared_roots, name=REST_LOCK))
            units = {name: union.units[name] for name in self.names}
            if not (names := missing(units, self.roots)):
                return
            limits = Limits.of(config)
            repository = Repository(store, config.namespace, self.environment, limits, deadline)
            restored = restore(repository, union, names, self.roots, deadline)
            report_damage(repository, union, damaged_since(union, restored), config)
        seconds = time.perf_counter() - started
        amount = f"{count(restored.units, 'unit')}, {count(restored.files, 'file')}, {restored.bytes / 1e6:.1f} MB"
        logger.info("restored what starts did not use: %s in %.2f s", amount, seconds)


class _Runner:
    """The thread that restores."""

    def __init__(self, rest: Rest, seconds: float) -> None:
        self._pid = os.getpid()
        self._rest: Rest | None = rest
        self.has_restored = False
        """Whether it has ended, and everything is in place."""
        self._deadline = Deadline("restoring what starts did not use", seconds)
        self._thread = threading.Thread(target=self._work, name="b10-transfer-rest", daemon=True)

    def start(self) -> None:
        """Start. If the system starts no more threads, nothing more is restored."""
        try:
            self._thread.start()
        except RuntimeError as error:
            logger.warning("units that starts did not use are not restored: %s", error)
            return
        atexit.register(self.stop)

    def wait(self, most_s: float | None) -> None:
        """Wait until it has ended, at most so long, and at most until its deadline."""
        left_s = self._deadline.remaining_s
        if os.getpid() == self._pid:
            self._thread.join(left_s if most_s is None else max(0.0, min(left_s, most_s)))

    def stop(self) -> None:
        """End it, and wait for a moment."""
        self._deadline.cancel()
        if os.getpid() == self._pid:  # a forked process has no such thread
            self._thread.join(_EXIT_S)

    def _work(self) -> None:
        lower_priority()
        try:
            if self._rest is not None:
                self._rest.restore(self._deadline)
            self.has_restored = True
        except Exception as error:
            unexpected = error if not isinstance(error, CacheError) else None
            level = logging.INFO if self._deadline.is_cancelled else logging.WARNING
            logger.log(level, "units that starts did not use are not restored: %s", error, exc_info=unexpected)
        finally:
            atexit.unregister(self.stop)
            self._rest = None  # it holds the indexes of packs


_last: list[_Runner] = []
"""The latest of this process."""


def start(rest: Rest, deadline_s: float | None) -> None:
    """Start to restore the rest, in a thread.

    Args:
        rest: What to restore.
        deadline_s: Overrides ``B10_DEADLINE_SECONDS``.
    """
    runner = _Runner(rest, DEADLINES * read_deadline(deadline_s))
    _last[:] = [runner]
    runner.start()


def wait_for_rest(most_s: float | None = None) -> bool:
    """Wait for the units that the last load of this process left for later, until they are in place or the time is up.

    Args:
        most_s: Seconds to wait. Default: until the deadline of the rest.

    Returns:
        Whether all of them are in place. False if none was left for later.
    """
    for runner in _last:
        runner.wait(most_s)
    return any(runner.has_restored for runner in _last)
