"""Keeps the caches of one server: restores before or while it starts, saves when it serves, after late compilations,
and when it has ended.

This runs in a thread of its own with low priority. No error reaches the server; errors are logged.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from ..adapters import CacheRoot, cache_roots
from ..concurrency.deadline import Deadline
from ..concurrency.priority import lower_priority
from ..config import Config
from ..config.launcher import LauncherConfig
from ..errors import CacheError, NoThreadError
from ..local import snapshot
from ..local.left_out import log_left_out
from ..local.supervision import Supervision
from ..local.usage import Usage
from ..operations import public as operations
from ..operations.autosave import Loaded, digest_of, digest_of_restored
from ..operations.rest import wait_for_rest
from ..operations.session import session
from ..status import LoadReport, OperationStatus
from .explanation import why_nothing_was_saved
from .fingerprint import Fingerprint, fingerprint_of
from .monitor import Monitor
from .server import Server
from .server_use import Moment, ServerUse

logger = logging.getLogger(__name__)

_SHARE = 0.005
"""The largest share of a core that is spent on checks of the server and of the caches."""
_SHORTEST_PAUSE_S = 0.05
"""Even if the configured interval is shorter."""
_SCAN_DEADLINE_S = 60.0
_RETRY_S = 60.0
"""The pause after a failed save. It doubles with each failure, up to an hour."""
_LONGEST_RETRY_S = 3600.0


class Supervisor:
    """Keeps the caches of one server. Times are monotonic."""

    def __init__(
        self,
        config: LauncherConfig,
        *,
        namespace: str | None = None,
        store: str | None = None,
        waits_for_compile: bool = True,
        on_compile: Callable[[], None] | None = None,
        monitor: Monitor | None = None,
    ) -> None:
        """
        Args:
            config: The settings.
            namespace: Overrides ``B10_NAMESPACE``.
            store: Overrides ``B10_STORE``.
            waits_for_compile: Whether a load that misses may wait for another replica, or let others wait for this one.
            on_compile: Called once if the server compiles, while it lives, although everything was restored.
            monitor: Receives the results. Default: a new one.
        """
        self._config, self._namespace, self._store = config, namespace, store
        self._wait_s = None if waits_for_compile else 0.0
        self._on_compile = on_compile
        self._monitor = monitor or Monitor()
        self._roots: list[CacheRoot] = []
        self._settings: Config | None = None
        self._use: ServerUse | None = None
        self._report: LoadReport | None = None
        """The result of the load; None before it has ended."""
        self._failed: Mapping[str, CacheError] = {}
        """Why caches could not be looked at, by name."""
        self._published = False
        """Whether a save of this server published anything."""
        self._saved: Fingerprint | None = None
        """What the caches held when the store last held all of it; None if that is not known."""
        self._restored = ""
        self._seen: Fingerprint = frozenset()
        self._checked: Fingerprint = frozenset()
        """What the caches held when compilations were last looked for."""
        self._changed_at = 0.0
        self._retry_at, self._retry_s = 0.0, _RETRY_S
        self.has_compiled = False
        """Whether ``on_compile`` was given, and the server has compiled although everything was restored."""
        self.loaded = threading.Event()
        """Set when the load is over, also if it failed."""
        self._stop = threading.Event()
        self._completed = False
        self.finished = threading.Event()
        """Set when there is nothing more to do."""

    def start(self, server: Server, loaded: Loaded | None = None) -> None:
        """Start a daemon thread that does all of this. It has ended when ``finished`` is set.

        Args:
            server: The server.
            loaded: What the server itself has loaded. Default: this one loads.
        """

        def work() -> None:
            try:
                if loaded is None:
                    self.load()
                else:
                    self._take_over(loaded)
                self._mark_loaded()
                # Only now, because a server may wait for the load.
                lower_priority()
                self.keep(server)
                self.last_save(server)
            except Exception:
                logger.exception("nothing more is saved, because of an unexpected error; the server is not affected")
            finally:
                self._mark_loaded()
                self.finished.set()

        try:
            threading.Thread(target=work, name="b10-transfer-supervisor", daemon=True).start()
        except RuntimeError as error:  # the system starts no more threads
            logger.error("nothing is restored or saved: %s", NoThreadError(error))
            self._mark_loaded()
            self.finished.set()

    def _mark_loaded(self) -> None:
        if self.loaded.is_set():
            return
        self.loaded.set()
        if self._config.loaded_file is not None:
            try:
                with open(self._config.loaded_file, "ab"):
                    pass
            except OSError as error:
                logger.error("B10_LOADED_FILE=%s cannot be created: %s", self._config.loaded_file, error.strerror)

    def end(self, *, completed: bool = False) -> None:
        """Request a last save. Call this when the server has ended, or when this program is to end.

        Args:
            completed: Whether the server ended by itself without an error. Units that it has not used by then are
                reported as unused. Default: false.
        """
        self._completed = completed
        self._stop.set()

    @property
    def miss(self) -> str:
        """Why the load is no hit; empty if it restored artifacts of this pod's environment, or found all in place."""
        report = self._report
        if report is not None and report.siblings:
            return "only units of pods with another CPU or C library were restored"
        is_hit = report is not None and (report.status is OperationStatus.SUCCESS or report.already_present > 0)
        return "" if is_hit else "nothing was restored"

    def load(self) -> LoadReport:
        """Restore units of the store, also to caches that a server has begun to fill."""
        began_ns = time.time_ns()
        report = operations.load(
            namespace=self._namespace,
            store=self._store,
            merge=True,
            instant=False,
            autosave=False,
            wait_for_compile_s=self._wait_s,
        )
        if report.rest and self._on_compile is not None and not wait_for_rest():
            self._on_compile = None  # the server may compile what was left in the store
        ended_ns = time.time_ns()
        self._monitor.loaded(report)
        if (config := self._find_caches()) is not None:
            # A program in these caches then knows that this process saves what it compiles.
            with suppress(OSError):
                environment_id = report.environment_id
                Supervision.of(self._roots, config.store, config.namespace, environment_id).supervise(alone=False)
        self._remember(Loaded(report, began_ns, ended_ns))
        return report

    def _take_over(self, loaded: Loaded) -> None:
        """Go on after a load of another process."""
        self._find_caches()
        usage = self._remember(loaded)
        session.last_load = lambda: usage  # for the saves of this process

    def _remember(self, loaded: Loaded) -> Usage:
        """Remember a load, and look at the caches. If they hold only the restored units, a save would find nothing."""
        self._report = loaded.report
        usage = Usage(self._roots, loaded.report, loaded.began_ns, loaded.ended_ns)
        self._use = ServerUse(usage, loaded.report, self._settings, self._monitor, self._config.quiet_s)
        self._restored = digest_of_restored(loaded.report)
        self._look()
        return usage

    def _find_caches(self) -> Config | None:
        """Find this pod's caches; None if the settings are wrong."""
        try:
            self._settings = config = Config.from_environment(namespace=self._namespace, store=self._store)
            self._roots = cache_roots(config)
            return config
        except CacheError as error:  # a load has logged it
            logger.debug("the caches cannot be looked at: %s", error)
            return None

    def keep(self, server: Server) -> None:
        """Save new units while the server runs: when it serves, and then whenever its caches have been quiet."""
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
                    "no server answered within %g s: saving when the caches are quiet", self._config.timeout_s
                )
                gave_up = True
            if ready is not False or gave_up:
                self._save_when_quiet(server)
            busy_s = time.thread_time() - busy_s
            pause_s = self._config.interval_s if not ready else max(self._config.interval_s, self._config.quiet_s / 3)
            self._pause(server, max(pause_s, busy_s / _SHARE, _SHORTEST_PAUSE_S))

    def last_save(self, server: Server) -> None:
        """Save the units that were compiled until the end, within a deadline of its own."""
        self._look()
        self._check_compiled(server)
        self._report_use(server, Moment.COMPLETED if self._completed else Moment.ENDED)
        if self._seen and self._seen != self._saved:
            self._save(deadline_s=self._config.last_save_s)
        log_left_out(self._failed)
        if not self._seen and not self._published:
            logger.warning("%s", why_nothing_was_saved(self._roots, self._failed, server.environment()))

    def _pause(self, server: Server, seconds: float) -> None:
        """Wait for some seconds, or until the server ends."""
        until = time.monotonic() + seconds
        step_s = max(self._config.interval_s, _SHORTEST_PAUSE_S)
        while (left_s := until - time.monotonic()) > 0 and not self._stop.wait(min(left_s, step_s)):
            if left_s > step_s and not server.is_alive():
                return

    def _when_ready(self, server: Server) -> None:
        logger.info("the server is ready", extra={"event": "server_ready"})
        self._look()
        self._check_compiled(server)
        self._report_use(server, Moment.READY)
        if self._seen and self._seen != self._saved:
            self._save()

    def _save_when_quiet(self, server: Server) -> None:
        """Save if there are new units and the caches have not changed for a while."""
        now = time.monotonic()
        self._look()
        self._check_compiled(server)
        if now - self._changed_at < self._config.quiet_s:
            return
        self._report_use(server, Moment.QUIET)
        if self._seen and self._seen != self._saved and now >= self._retry_at:
            self._save()

    def _look(self) -> None:
        """Note the units in the caches, and when they last changed."""
        try:
            look = snapshot.take(self._roots, Deadline("looking at the caches", _SCAN_DEADLINE_S))
        except CacheError as error:
            logger.debug("%s", error)
            return
        self._failed, found = look.failed, fingerprint_of(look)
        if found != self._seen:
            self._seen = found
            self._changed_at = time.monotonic()
            # With the number of files, because a compiler may already have added some.
            if self._restored == digest_of((name for name, *_ in found), sum(files for _, files, *_ in found)):
                self._saved = found

    def _check_compiled(self, server: Server) -> None:
        """Call ``on_compile`` at the first unit that was compiled although everything was restored."""
        if self._on_compile is None or self._use is None or self.miss or self._seen == self._checked:
            return
        self._checked = self._seen
        if self._use.has_compiled(server):
            self.has_compiled = True
            if not self._stop.is_set():
                self._on_compile()
            self._on_compile = None

    def _report_use(self, server: Server, moment: Moment) -> None:
        if self._use is not None:
            self._use.report(server, moment)

    def _save(self, deadline_s: float | None = None) -> None:
        held = self._seen
        report = operations.save(namespace=self._namespace, store=self._store, deadline_s=deadline_s)
        self._monitor.saved(report)
        if report.status is OperationStatus.ERROR:
            self._retry_at = time.monotonic() + self._retry_s
            self._retry_s = min(2 * self._retry_s, _LONGEST_RETRY_S)
            return
        self._published = self._published or report.status is OperationStatus.SUCCESS
        self._saved = held
        self._retry_s = _RETRY_S
