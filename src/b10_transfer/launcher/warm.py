"""``warm``: compiles before a rollout, and proves that a new replica compiles nothing.

It restores, starts a server, exercises it, saves what it compiles, and stops it. Everything happens in the main thread.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from enum import IntEnum
from urllib.parse import urlsplit

from ..adapters import CacheRoot, cache_roots
from ..concurrency.deadline import Deadline
from ..config import Config
from ..config.launcher import LauncherConfig
from ..environment import command_line, detect
from ..errors import CacheError, count, printable
from ..inspection import forecast
from ..inspection.bounded import bounded, open_store
from ..local import snapshot
from ..local.aside import moved_aside, put_back_left
from ..local.supervision import Supervision
from ..local.usage import CacheUse, Usage
from ..operations import public as operations
from ..operations.rest import wait_for_rest
from ..status import LoadReport, OperationStatus, SaveReport
from .explanation import why_compiled, with_differences
from .fingerprint import fingerprint_of
from .interpreter import use_interpreter_of
from .processes import STOPPING, Signals, end_workers, why_not_started
from .server import address_of, serves

logger = logging.getLogger(__name__)

_POLL_S = 0.1
_SCAN_DEADLINE_S = 60.0
_STOP_S = 60.0
"""How long a server may take to end after SIGTERM. Then it is killed."""
_STOP_IN_HASTE_S = 10.0
"""The same if a signal has asked this command to end: Kubernetes kills a pod 30 s after SIGTERM."""
_MOST_LISTED = 20


class WarmExit(IntEnum):
    """Exit codes of ``warm``. click uses 2 for wrong usage."""

    DONE = 0
    """The store holds everything that the server compiles."""
    FAILED = 1
    """The server, an exercise or the store failed, or there was no time left."""
    NOTHING = 3
    """Nothing was compiled, and the store has nothing for this pod."""
    COMPILED = 4
    """A new replica would compile, or the store lacks units of this pod."""


class _FailedError(Exception):
    """The command cannot go on. The message says why."""


class _StoppedError(Exception):
    """A signal asks this command to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Warmer:
    """Warms the store for one server, within a time limit."""

    def __init__(
        self,
        arguments: Sequence[str],
        exercises: Sequence[str],
        timeout_s: float,
        *,
        namespace: str | None = None,
        store: str | None = None,
    ) -> None:
        """
        Args:
            arguments: The server's command line.
            exercises: Shell commands that send requests to the server.
            timeout_s: The time limit, in seconds.
            namespace: Overrides ``B10_NAMESPACE``.
            store: Overrides ``B10_STORE``.
        """
        self._arguments = arguments
        self._exercises = exercises
        self._until = time.monotonic() + timeout_s
        self._timeout_s = timeout_s
        self._namespace = namespace
        self._store = store
        self._config = LauncherConfig.from_environment()
        self.url = self._config.url or address_of(arguments)
        """The address of the server; None if it is not known, so the server is run until it ends."""
        self._signals: Signals

    def warm(self, *, verify: bool) -> int:
        """Warm the store. Call it once, in a process that then exits with the returned code.

        Args:
            verify: Whether to start the server again, with empty caches.

        Returns:
            A :class:`WarmExit`, or 128 + n if signal n has ended it.
        """
        use_interpreter_of(self._arguments)
        command_line.record(self._arguments)
        self._signals = Signals()
        try:
            config = Config.from_environment(namespace=self._namespace, store=self._store)
            roots = cache_roots(config)
            put_back_left(roots)
            code = self._fill(config, roots)
            return self._verify(roots) if verify and code is WarmExit.DONE else code
        except _StoppedError as stopped:
            return 128 + stopped.number
        except (_FailedError, CacheError) as error:
            logger.error("%s", printable(str(error)))
            return WarmExit.FAILED
        finally:
            end_workers()

    def _fill(self, config: Config, roots: Sequence[CacheRoot]) -> WarmExit:
        """Let the server compile, and save."""
        began_ns = time.time_ns()
        loaded = self._load()
        usage = Usage(roots, loaded, began_ns, time.time_ns())
        # The server's own processes need not save.
        supervision = Supervision.of(roots, config.store, config.namespace, loaded.environment_id)
        try:
            supervision.supervise(alone=False)
        except OSError as error:
            logger.debug("programs do not learn that this process saves: %s", error)
        try:
            self._serve(roots)
        except _FailedError:  # the next try need not compile everything again
            operations.save(namespace=self._namespace, store=self._store)
            raise
        report = operations.save(namespace=self._namespace, store=self._store)
        compiled = [cache for cache in usage.report().caches if cache.compiled]
        if report.status is OperationStatus.ERROR:
            raise _FailedError("not everything is in the store: the last save failed")
        if report.left_for_next_save:
            logger.warning("the server has ended and left %s unfinished", count(report.left_for_next_save, "unit"))
        if lacking := self._lacking(config, roots, report):
            if compiled and (loaded.restored or loaded.already_present):
                logger.error("%s", with_differences(why_compiled(compiled), loaded))
            _list_units("not in the store", lacking)
            return WarmExit.COMPILED
        if not compiled and not loaded.restored and not loaded.already_present and not _artifacts(roots):
            logger.error("the server compiled nothing, and the store has nothing for this pod")
            return WarmExit.NOTHING
        return WarmExit.DONE

    def _verify(self, roots: Sequence[CacheRoot]) -> WarmExit:
        """Start the server with empty caches, and find out whether it compiles."""
        logger.info("verifying with empty caches: their content is moved aside and put back at the end")
        with moved_aside(roots):
            began_ns = time.time_ns()
            loaded = self._load()
            usage = Usage(roots, loaded, began_ns, time.time_ns())
            self._serve(roots)
            report = usage.report()
            if compiled := [cache for cache in report.caches if cache.compiled]:
                return self._has_compiled(compiled, loaded, _new_units(roots, loaded))
            for line in (report.summary, *report.caches):
                logger.info("%s", line)
            if report.warning:
                logger.warning("%s", report.warning)
        logger.info("verified: a new replica compiles nothing")
        return WarmExit.DONE

    def _has_compiled(self, caches: Sequence[CacheUse], loaded: LoadReport, units: Sequence[str]) -> WarmExit:
        logger.error("a new replica compiles: %s", with_differences(why_compiled(caches), loaded))
        _list_units("compiled", units)
        return WarmExit.COMPILED

    def _lacking(self, config: Config, roots: Sequence[CacheRoot], saved: SaveReport) -> list[str]:
        """The units of this pod that the save has left unpublished. It logs how many and why. Raises CacheError."""

        def work(deadline: Deadline) -> tuple[list[str], int]:
            with open_store(config, deadline) as store:
                stored = forecast.read_stored(store, config, detect(), deadline)
            names = forecast.units_lacking(snapshot.take(roots, deadline), stored)
            return names, len(stored.read_recalled().keys() & set(names))

        names, recalled = bounded("warm", work)
        if not names:
            return []
        why = saved.reason
        if recalled and not saved.read_only:
            why = f"{recalled} {'was' if recalled == 1 else 'were'} recalled; `b10-compile-cache reinstate` undoes that"
        logger.error("the store lacks %s of this pod: %s. A new replica compiles them", count(len(names), "unit"), why)
        return names

    def _load(self) -> LoadReport:
        report = operations.load(
            namespace=self._namespace,
            store=self._store,
            merge=True,
            instant=False,
            autosave=False,
            wait_for_compile_s=0,
        )
        if report.status is OperationStatus.ERROR:
            raise _FailedError("the load failed")
        wait_for_rest()
        return report

    def _serve(self, roots: Sequence[CacheRoot]) -> None:
        """Start the server, exercise it, wait until its caches are quiet, and stop it."""
        with ExitStack() as cleanup:
            server = self._spawn(self._arguments)
            cleanup.callback(server.stop)
            if self.url is None:
                self._wait(server.has_ended, "the program has not ended")
                if server.code:
                    raise _FailedError(f"the program has failed with exit code {server.code}")
                return
            url, poll_s = self.url, self._config.interval_s
            self._wait(lambda: server.has_ended() or serves(url), f"the server does not answer at {url}", poll_s)
            server.raise_if_ended()
            logger.info("the server is ready")
            for command in self._exercises:
                self._exercise(command, server)
            self._wait_until_quiet(roots, server)

    def _exercise(self, command: str, server: _Program) -> None:
        address = urlsplit(self.url or "")
        variables = {"B10_SERVER_URL": f"{address.scheme}://{address.netloc}"}
        with ExitStack() as cleanup:
            logger.info("exercise: %s", printable(command))
            exercise = self._spawn(["sh", "-c", command], variables)
            cleanup.callback(exercise.stop)
            self._wait(lambda: exercise.has_ended() or server.has_ended(), "the exercise has not ended")
            server.raise_if_ended()
            if exercise.code:
                raise _FailedError(f"the exercise has failed with exit code {exercise.code}: {command}")

    def _wait_until_quiet(self, roots: Sequence[CacheRoot], server: _Program) -> None:
        """Wait until nothing was written to the caches for a while."""
        seen, changed_at = None, time.monotonic()
        pause_s = min(self._config.interval_s, self._config.quiet_s / 3)

        def is_quiet() -> bool:
            nonlocal seen, changed_at
            found = snapshot.take(roots, Deadline("looking at the caches", _SCAN_DEADLINE_S))
            now = fingerprint_of(found), found.incomplete
            if now != seen:
                seen, changed_at = now, time.monotonic()
            return server.has_ended() or time.monotonic() - changed_at >= self._config.quiet_s

        self._wait(is_quiet, "the server still compiles", pause_s)
        server.raise_if_ended()

    def _spawn(self, arguments: Sequence[str], variables: dict[str, str] | None = None) -> _Program:
        try:
            pid = self._signals.spawn(arguments, dies_with_this=True, variables=variables)
        except OSError as error:
            raise _FailedError(
                f"{arguments[0]} cannot be started: {why_not_started(arguments[0], error)[1]}"
            ) from error
        return _Program(pid, self._signals)

    def _wait(self, condition: Callable[[], bool], failure: str, poll_s: float = _POLL_S) -> None:
        """Wait for a condition. Raises _FailedError when the time is over, and _StoppedError after a signal."""
        while not condition():
            left_s = self._until - time.monotonic()
            if left_s <= 0:
                raise _FailedError(f"{failure} within {self._timeout_s:g} s (--timeout)")
            found = self._signals.take(min(poll_s, left_s))
            if found is not None and found.si_signo in STOPPING and self._signals.asked_to_stop:
                raise _StoppedError(found.si_signo)


class _Program:
    """A program that this process has started."""

    def __init__(self, pid: int, signals: Signals) -> None:
        self._pid = pid
        self._signals = signals
        self.code: int | None = None
        """Its exit code, as a shell gives it; None before it has ended."""

    def has_ended(self) -> bool:
        if self.code is None:
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            if pid:
                code = os.waitstatus_to_exitcode(status)
                self.code = code if code >= 0 else 128 - code
        return self.code is not None

    def raise_if_ended(self) -> None:
        if self.has_ended():
            raise _FailedError(f"the server has ended with exit code {self.code}")

    def stop(self) -> None:
        """End it: with SIGTERM, and with SIGKILL if that takes too long."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self.has_ended():
                return
            os.kill(self._pid, number)
            until = time.monotonic() + (_STOP_IN_HASTE_S if self._signals.asked_to_stop else _STOP_S)
            while not self.has_ended() and time.monotonic() < until:
                time.sleep(_POLL_S)


def _list_units(state: str, names: Sequence[str]) -> None:
    for name in names[:_MOST_LISTED]:
        logger.error("%s: %s", state, printable(name))
    if len(names) > _MOST_LISTED:
        logger.error("and %d more units", len(names) - _MOST_LISTED)


def _artifacts(roots: Sequence[CacheRoot]) -> list[str]:
    """The names of the units in the caches, without those of auxiliary caches."""
    found = snapshot.take(roots, Deadline("looking at the caches", _SCAN_DEADLINE_S))
    return sorted(unit.name for unit in found.units if unit.root.adapter.is_reported)


def _new_units(roots: Sequence[CacheRoot], loaded: LoadReport) -> list[str]:
    """The names of the units that a load has not restored."""
    return sorted(set(_artifacts(roots)).difference(loaded.restored))
