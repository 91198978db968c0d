"""Logs a WARNING when a process ends with units in its caches that nobody has saved.

It looks at local files only, for some milliseconds, in the main thread: a thread cannot be started at that time.
"""

from __future__ import annotations

import atexit
import logging
import os
import time
from collections.abc import Iterable
from contextlib import suppress

from ..adapters import CacheRoot, cache_roots
from ..config import Config
from ..local.files import RootScan
from ..local.ownership import open_private
from ..local.supervision import Supervision
from ..status import LoadReport, OperationStatus, SaveReport
from ..stores.locality import is_local, mounts

logger = logging.getLogger(__name__)

_BUDGET_S = 0.004
"""CPU time of the search at the end of a process."""


class ExitWarning:
    """Remembers the last load of this process and the last save after it."""

    def __init__(self) -> None:
        self._pid = 0
        """The process that loaded. Those that it forks may end long before their parent saves."""
        self._config: Config | None = None
        self._environment_id = ""
        self._since_ns = 0

    def loaded(self, config: Config, report: LoadReport, began_ns: int) -> None:
        """Note a load, which began at ``began_ns``. From now on the end of this process may log the WARNING."""
        # All ranks of a node use the same caches: one WARNING is enough. A read-only pod saves nothing.
        if config.read_only or os.environ.get("LOCAL_RANK", "0") != "0":
            return
        if not self._pid:
            atexit.register(self.log)
        self._pid = os.getpid()
        self._config, self._environment_id, self._since_ns = config, report.environment_id, began_ns

    def saved(self, report: SaveReport, began_ns: int) -> None:
        """Note a save, which began at ``began_ns``."""
        if report.read_only:
            self._config = None
        elif report.status is not OperationStatus.ERROR:
            self._since_ns = began_ns

    def forget(self) -> None:
        """Log nothing for this process, whose caches another one fills."""
        self._config = None

    def log(self) -> None:
        """Log the WARNING if there are such units. Never raises."""
        if (config := self._config) is None or os.getpid() != self._pid:
            return
        with suppress(Exception):
            roots = cache_roots(config)
            count, is_all = _count_since(self._since_ns, roots)
            supervision = Supervision.of(roots, config.store, config.namespace, self._environment_id)
            if not count or supervision.has_supervisor():
                return
            # A supervisor that was killed has saved some of them.
            limit = "up to " if supervision.log.exists() else "" if is_all else "at least "
            logger.warning(
                "%s%s compiled here and not saved: call save_compile_cache() when the model is warm, or "
                "load_compile_cache(autosave=True) at the start",
                limit,
                "1 unit was" if count == 1 else f"{count} units were",
            )


def _count_since(since_ns: int, roots: Iterable[CacheRoot]) -> tuple[int, bool]:
    """Count units that were written since a time, and say whether there was time to find all of them.

    A restored file has the time at which another pod wrote it.
    """
    until, kinds, count = time.thread_time() + _BUDGET_S, mounts(), 0
    for root in roots:
        # Nothing can interrupt a hung mount here.
        if root.adapter.accompanies or not is_local(str(root.path), kinds) or (opened := open_private(root)) is None:
            continue
        for unit, files in RootScan(opened).units():
            complete = root.adapter.is_complete(root.path, unit, [file.path for file in files])
            count += complete and max(file.mtime_ns for file in files) > since_ns
            if time.thread_time() > until:
                return count, False
    return count, True
