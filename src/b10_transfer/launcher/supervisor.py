"""The life of a server's caches: restored before or while it starts, saved once it serves, again after late compiles,
and a last time when it has ended.

All of it runs in a thread of its own, at low priority, and nothing of it reaches the server: what fails is logged.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from ..adapters import CacheRoot, cache_roots
from ..concurrency.deadline import Deadline
from ..config import Config
from ..config.launcher import LauncherConfig
from ..errors import CacheError
from ..local import snapshot
from ..local.left_out import cause_of, log_left_out
from ..local.usage import Usage
from ..notices import notices
from ..operations import public as operations
from ..status import LoadReport, OperationStatus
from .explanation import why_compiled, why_nothing_was_saved, why_unused
from .processes import lower_priority

logger = logging.getLogger(__name__)

_SHARE = 0.005
"""At most this share of a core goes into looking whether the server lives and whether anything was written."""
_SHORTEST_PAUSE_S = 0.05
"""Whatever interval is asked for."""
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

    def started_ns(self) -> int | None:
        """When it started, in nanoseconds since the epoch; None if that is not known, or not before the load."""


class Supervisor:
    """Looks after the caches of one server. Times are monotonic."""

    def __init__(
        self,
        config: LauncherConfig,
        *,
        namespace: str | None = None,
        store: str | None = None,
        waits_for_compile: bool = True,
        on_compile: Callable[[], None] | None = None,
    ) -> None:
        """
        Args:
            config: The settings.
            namespace: Overrides ``B10_NAMESPACE``.
            store: Overrides ``B10_STORE``.
            waits_for_compile: Whether a load that misses may wait for another replica, or let others wait for this one.
            on_compile: Called once if the server compiles, while it lives, although everything was restored.
        """
        self._config = config
        self._wait_s = None if waits_for_compile else 0.0
        self._on_compile = on_compile
        self._namespace = namespace
        self._store = store
        self._roots: list[CacheRoot] = []
        self._usage: Usage | None = None
        self._is_whole = False
        """Whether the caches held everything that the store had for this pod when the load ended."""
        self._restored = False
        """Whether the load restored anything."""
        self._proved = False
        self._failed: Mapping[str, CacheError] = {}
        """Why caches could not be looked at, by name."""
        self._published = False
        """Whether a save of this server published anything."""
        self._saved: Fingerprint | None = None
        """What the caches held when the store last held all of it; None if that is not known."""
        self._seen: Fingerprint = frozenset()
        self._checked: Fingerprint = frozenset()
        """What the caches held when compilations were last looked for."""
        self._changed_at = 0.0
        self._retry_at = 0.0
        self._retry_s = _RETRY_S
        self.hit = False
        """Whether the load restored artifacts, or found all of them in place."""
        self.has_compiled = False
        """Whether ``on_compile`` was given, and the server has compiled although everything was restored."""
        self.loaded = threading.Event()
        """Set once the load is over, whatever came of it."""
        self._stop = threading.Event()
        self._completed = False
        self.finished = threading.Event()
        """Set once there is nothing more to do."""

    def start(self, server: Server) -> None:
        """Do all of it in a daemon thread, which is over when ``finished`` is set."""

        def work() -> None:
            try:
                self.load()
                self._tell_loaded()
                # Only now: a server may be waiting for the load.
                lower_priority()
                self.keep(server)
                self.last_save(server)
            except Exception:
                logger.exception("the caches are no longer looked after; the server is not affected")
            finally:
                self._tell_loaded()
                self.finished.set()

        try:
            threading.Thread(target=work, name="b10-transfer-supervisor", daemon=True).start()
        except RuntimeError as error:  # no more threads are to be had
            logger.error("the caches are not looked after: %s", error)
            self._tell_loaded()
            self.finished.set()

    def _tell_loaded(self) -> None:
        if self.loaded.is_set():
            return
        self.loaded.set()
        if self._config.loaded_file is not None:
            try:
                with open(self._config.loaded_file, "ab"):
                    pass
            except OSError as error:
                logger.error("B10_LOADED_FILE=%s cannot be made: %s", self._config.loaded_file, error.strerror)

    def end(self, *, completed: bool = False) -> None:
        """To be called when the server has ended, or this program is asked to end: a last save, and no more.

        ``completed``: the server has done all it wanted, so that what it has not used by now it never will.
        """
        self._completed = completed
        self._stop.set()

    def load(self) -> LoadReport:
        """Restore what the store holds, also to caches that a server has begun to fill."""
        began_ns = time.time_ns()
        report = operations.load(
            namespace=self._namespace, store=self._store, merge=True, instant=False, wait_for_compile_s=self._wait_s
        )
        ended_ns = time.time_ns()
        self.hit = report.status is OperationStatus.SUCCESS or report.already_present > 0
        self._is_whole = self.hit and not report.ignored_packs
        try:
            self._roots = cache_roots(Config.from_environment(namespace=self._namespace, store=self._store))
        except CacheError as error:  # the load has said so
            logger.debug("the caches cannot be looked at: %s", error)
        self._restored = bool(report.restored)
        self._usage = Usage(self._roots, report.restored, began_ns, ended_ns)
        self._look()
        # If all that is here came from the store, a save would read all of it to find nothing. By names, and files,
        # because a compiler may have begun: what it has written beside must not be taken for saved.
        here = {name for name, _files, _size, _modified in self._seen}
        if here == set(report.restored) and sum(files for _name, files, _size, _modified in self._seen) == report.files:
            self._saved = self._seen
        return report

    def keep(self, server: Server) -> None:
        """Save what the server compiles, as long as it lives: once it serves, then whenever its caches fall quiet."""
        started = time.monotonic()
        ready: bool | None = False
        gave_up = False
        while not self._stop.is_set() and server.is_alive():
            busy_s = time.thread_time()
            if not ready:
                ready = server.serves()
                if ready:
                    self._when_ready(server)
            waited_s = time.monotonic() - started
            if ready is False and not gave_up and waited_s > self._config.timeout_s:
                logger.warning(
                    "no server answered within %g s: going by the quiet of the caches", self._config.timeout_s
                )
                gave_up = True
            if ready is not False or gave_up:
                self._save_when_quiet(server)
            busy_s = time.thread_time() - busy_s
            pause_s = self._config.interval_s if not ready else max(self._config.interval_s, self._config.quiet_s / 3)
            self._pause(server, max(pause_s, busy_s / _SHARE, _SHORTEST_PAUSE_S))

    def last_save(self, server: Server) -> None:
        """What was compiled until the end, within its own deadline."""
        self._look()
        self._check_compiled(server)
        self._prove(server, even_if_unused=self._completed)
        if self._seen and self._seen != self._saved:
            self._save(deadline_s=self._config.last_save_s)
        log_left_out(self._failed)
        if not self._seen and not self._published:
            logger.warning("%s", why_nothing_was_saved(self._roots, self._failed, server.environment()))

    def _pause(self, server: Server, seconds: float) -> None:
        """Do nothing for so long, unless the server ends meanwhile."""
        until = time.monotonic() + seconds
        step_s = max(self._config.interval_s, _SHORTEST_PAUSE_S)
        while (left_s := until - time.monotonic()) > 0 and not self._stop.wait(min(left_s, step_s)):
            if left_s > step_s and not server.is_alive():
                return

    def _when_ready(self, server: Server) -> None:
        logger.info("the server serves")
        self._look()
        self._check_compiled(server)
        self._prove(server)
        if self._seen and self._seen != self._saved:
            self._save()

    def _save_when_quiet(self, server: Server) -> None:
        """Save if something new has been left alone for a while."""
        now = time.monotonic()
        self._look()
        self._check_compiled(server)
        if now - self._changed_at < self._config.quiet_s:
            return
        # Whether a program that cannot be asked is ready, nobody knows: that it has not read anything yet says nothing.
        self._prove(server, even_if_unused=False)
        if self._seen and self._seen != self._saved and now >= self._retry_at:
            self._save()

    def _look(self) -> None:
        """Note what the caches hold now, and when that last changed."""
        try:
            look = snapshot.take(self._roots, Deadline("looking at the caches", _SCAN_DEADLINE_S))
        except CacheError as error:
            logger.debug("%s", error)
            return
        self._failed = look.failed
        found = frozenset(
            (unit.name, len(unit.files), unit.size, max(file.mtime_ns for file in unit.files)) for unit in look.units
        )
        if found != self._seen:
            self._seen = found
            self._changed_at = time.monotonic()

    def _check_compiled(self, server: Server) -> None:
        """Call ``on_compile`` at the first unit that was compiled although everything was restored."""
        if self._on_compile is None or self._usage is None or not self._is_whole or self._seen == self._checked:
            return
        self._checked = self._seen
        try:
            caches = [cache for cache in self._usage.report(server.started_ns()).caches if cache.compiled]
        except CacheError as error:
            logger.warning("it is unknown whether the server has compiled: %s", error)
            return
        if caches:
            logger.warning("%s", why_compiled(caches))
            self.has_compiled = True
            if not self._stop.is_set():
                self._on_compile()
            self._on_compile = None

    def _save(self, deadline_s: float | None = None) -> None:
        held = self._seen
        report = operations.save(namespace=self._namespace, store=self._store, deadline_s=deadline_s)
        if report.status is OperationStatus.ERROR:
            self._retry_at = time.monotonic() + self._retry_s
            self._retry_s = min(2 * self._retry_s, _LONGEST_RETRY_S)
            return
        self._published = self._published or report.status is OperationStatus.SUCCESS
        self._saved = held
        self._retry_s = _RETRY_S

    def _prove(self, server: Server, *, even_if_unused: bool = True) -> None:
        """Say, once, what became of the restore."""
        if self._proved or self._usage is None:
            return
        try:
            report = self._usage.report(server.started_ns())
        except CacheError as error:
            self._proved = True
            if self._restored:
                message = f"the use of the restored caches is unknown: {error}"
                notices.log(logger, logging.WARNING, message, cause_of(error))
            return
        if not even_if_unused and not any(cache.used or cache.compiled for cache in report.caches):
            return
        self._proved = True
        for cache in report.caches:
            logger.info("%s", cache)
        if report.warning:
            logger.warning("%s", why_unused(report, server.environment()))
