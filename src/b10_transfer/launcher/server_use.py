"""Logs and records how a server uses what was restored for it, and warns of what it compiles nevertheless."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from enum import Enum, auto

from ..config import Config
from ..errors import CacheError
from ..local.left_out import cause_of
from ..local.usage import CacheUse, Usage
from ..notices import notices
from ..operations.starts import record_start
from ..status import LoadReport
from .explanation import why_compiled, why_unused, with_differences
from .monitor import Monitor
from .server import Server

logger = logging.getLogger(__name__)


class Moment(Enum):
    """When the use is looked at."""

    READY = auto()
    """The server serves: it has used what it needs to start."""
    QUIET = auto()
    """Nothing was compiled for a while. It may not be ready yet."""
    ENDED = auto()
    """It has ended. What follows must not delay the last save for long."""
    COMPLETED = auto()
    """It has ended by itself without an error: a unit that it has not used is unused."""


class ServerUse:
    """The use of one load's units by one server."""

    def __init__(
        self, usage: Usage, load: LoadReport, settings: Config | None, monitor: Monitor, quiet_s: float
    ) -> None:
        """
        Args:
            usage: The use of the units.
            load: The load that restored them.
            settings: The settings with which the use is recorded. None: it is not.
            monitor: Receives the report of use.
            quiet_s: How long the use must not change before it is reported at ``Moment.QUIET``, in seconds.
        """
        self._usage, self._load, self._settings = usage, load, settings
        self._monitor, self._quiet_s = monitor, quiet_s
        self._is_reported = False
        self._caches: Sequence[CacheUse] = ()
        """The use at the last look."""
        self._changed_at = 0.0

    def has_compiled(self, server: Server) -> bool:
        """Whether the server compiled although everything was restored; a warning says what."""
        if self._load.ignored_packs or self._load.partial:
            return False  # something was to be compiled
        try:
            caches = [cache for cache in self._usage.report(server.started_ns()).caches if cache.compiled]
        except CacheError as error:
            message = f"it is unknown whether the server has compiled: {error}"
            notices.log(logger, logging.WARNING, message, cause_of(error))
            return False
        if caches:
            logger.warning("%s", with_differences(why_compiled(caches), self._load))
        return bool(caches)

    def report(self, server: Server, moment: Moment) -> None:
        """Log and record the use once, as soon as it says something."""
        if self._is_reported:
            return
        try:
            report = self._usage.report(server.started_ns())
        except CacheError as error:
            self._is_reported = True
            if self._load.restored:
                message = f"the use of the restored caches is unknown: {error}"
                notices.log(logger, logging.WARNING, message, cause_of(error))
            return
        # Before the server is ready or has completed, unused units mean nothing, and the program may still use more.
        is_settled = moment in (Moment.READY, Moment.COMPLETED)
        if not is_settled and not any(cache.used or cache.compiled for cache in report.caches):
            return
        if report.caches != self._caches:
            self._caches, self._changed_at = report.caches, time.monotonic()
        if moment is Moment.QUIET and time.monotonic() - self._changed_at < self._quiet_s:
            return
        self._is_reported = True
        self._monitor.used(report)
        if self._settings is not None:
            has_ended = moment in (Moment.ENDED, Moment.COMPLETED)
            record_start(self._usage, self._settings, compacts=not has_ended)
        if report.warning:
            logger.warning("%s", with_differences(why_unused(report, server.environment()), self._load))
