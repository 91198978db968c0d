"""The life of a server's caches: restored before or while it starts, saved once it serves, again after late compiles,
and a last time when it has ended.

All of it runs in a thread of its own, at low priority, and nothing of it reaches the server: what fails is logged.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from typing import Protocol

from .. import operations, snapshot
from ..adapters import CacheRoot, cache_roots
from ..config import Config
from ..config.launcher import LauncherConfig
from ..deadline import Deadline
from ..errors import CacheError
from ..status import LoadReport, OperationStatus
from ..usage import Usage
from .explanation import why_unused
from .processes import lower_priority

logger = logging.getLogger(__name__)

_SCAN_SHARE = 0.005
"""At most this share of a core goes into looking whether anything was written."""
_SCAN_DEADLINE_S = 60.0
_RETRY_S = 60.0
"""After a save that failed; doubled each time, up to an hour."""
_LONGEST_RETRY_S = 3600.0

Fingerprint = frozenset[tuple[str, int, int, int]]
"""Every finished unit: its name, and its files' number, bytes and latest modification."""


class Server(Protocol):
    """A server, as far as its caches are concerned."""

    def is_alive(self) -> bool:
        """Whether it may still compile."""

    def serves(self) -> bool | None:
        """Whether it is ready; None if that cannot be asked."""

    def environment(self) -> Mapping[str, str]:
        """The variables it was started with; empty if they are not known."""


class Keeper:
    """Looks after the caches of one server. Times are monotonic."""

    def __init__(self, config: LauncherConfig, *, namespace: str | None = None, store: str | None = None) -> None:
        self._config = config
        self._namespace = namespace
        self._store = store
        self._roots: list[CacheRoot] = []
        self._usage: Usage | None = None
        self._proved = False
        self._saved: Fingerprint | None = None
        """What the caches held when the store last held all of it; None if that is not known."""
        self._seen: Fingerprint = frozenset()
        self._changed_at = 0.0
        self._retry_at = 0.0
        self._retry_s = _RETRY_S
        self.loaded = threading.Event()
        """Set once the load is over, whatever came of it."""
        self.stop = threading.Event()
        """To be set when the server has ended, or when this program is asked to end: a last save, and no more."""
        self.finished = threading.Event()
        """Set once there is nothing more to do."""

    def start(self, server: Server) -> None:
        """Do all of it in a daemon thread, which is over when ``finished`` is set."""

        def work() -> None:
            try:
                lower_priority()
                self.load()
                self.loaded.set()
                self.keep(server)
                self.last_save()
            except Exception:
                logger.exception("the caches are no longer looked after; the server is not affected")
            finally:
                self.loaded.set()
                self.finished.set()

        threading.Thread(target=work, name="b10-transfer-keeper", daemon=True).start()

    def load(self) -> LoadReport:
        """Restore what the store holds, also to caches that a server has begun to fill."""
        began_ns = time.time_ns()
        report = operations.load(namespace=self._namespace, store=self._store, merge=True)
        ended_ns = time.time_ns()
        try:
            self._roots = cache_roots(Config.from_environment(namespace=self._namespace, store=self._store))
        except CacheError as error:  # the load has said so
            logger.debug("the caches cannot be looked at: %s", error)
        self._usage = Usage(self._roots, report.restored, began_ns, ended_ns)
        self._look()
        if report.status is not OperationStatus.ERROR and len(self._seen) == report.units + report.already_present:
            # All that is here came from the store, or is there as well: a save would read all of it to find nothing.
            self._saved = self._seen
        return report

    def keep(self, server: Server) -> None:
        """Save what the server compiles, as long as it lives: once it serves, then whenever its caches fall quiet."""
        started = time.monotonic()
        ready: bool | None = False
        while not self.stop.is_set() and server.is_alive():
            took_s = 0.0
            if not ready:
                ready = server.serves()
                if ready:
                    self._when_ready(server)
            waited_s = time.monotonic() - started
            if ready is False and waited_s > self._config.timeout_s:
                logger.warning("no server answered within %.0f s: going by the quiet of the caches", waited_s)
                ready = None
            if ready is not False:
                took_s = self._save_when_quiet(server)
            pause_s = self._config.interval_s if not ready else max(self._config.interval_s, self._config.quiet_s / 3)
            self.stop.wait(max(pause_s, took_s / _SCAN_SHARE))

    def last_save(self) -> None:
        """What was compiled until the end, within its own deadline."""
        self._look()
        if self._seen != self._saved:
            self._save(deadline_s=self._config.last_save_s)

    def _when_ready(self, server: Server) -> None:
        logger.info("the server serves")
        self._look()
        self._prove(server)
        if self._seen != self._saved:
            self._save()

    def _save_when_quiet(self, server: Server) -> float:
        """Save if something new has been left alone for a while; returns how many seconds the look took."""
        began = time.monotonic()
        self._look()
        took_s = time.monotonic() - began
        if began - self._changed_at < self._config.quiet_s:
            return took_s
        if not self._proved and self._usage is not None:
            report = self._usage.report()
            took_s = time.monotonic() - began
            if any(cache.used or cache.compiled for cache in report.caches):
                self._prove(server)
        if self._seen != self._saved and began >= self._retry_at:
            self._save()
        return took_s

    def _look(self) -> None:
        """Note what the caches hold now, and when that last changed."""
        try:
            units = snapshot.take(self._roots, Deadline("looking at the caches", _SCAN_DEADLINE_S)).units
        except CacheError as error:
            logger.debug("%s", error)
            return
        found = frozenset(
            (unit.name, len(unit.files), unit.size, max(file.mtime_ns for file in unit.files)) for unit in units
        )
        if found != self._seen:
            self._seen = found
            self._changed_at = time.monotonic()

    def _save(self, deadline_s: float | None = None) -> None:
        held = self._seen
        report = operations.save(namespace=self._namespace, store=self._store, deadline_s=deadline_s)
        if report.status is OperationStatus.ERROR:
            self._retry_at = time.monotonic() + self._retry_s
            self._retry_s = min(2 * self._retry_s, _LONGEST_RETRY_S)
            return
        self._saved = held
        self._retry_s = _RETRY_S

    def _prove(self, server: Server) -> None:
        """Say, once, what became of the restore."""
        if self._proved or self._usage is None:
            return
        self._proved = True
        try:
            report = self._usage.report()
        except CacheError as error:
            logger.warning("what became of the restored caches cannot be told: %s", error)
            return
        for cache in report.caches:
            logger.info("%s", cache)
        if report.warning:
            logger.warning("%s", why_unused(report, server.environment()))
