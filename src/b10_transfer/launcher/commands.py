"""The three ways to keep caches: as a server's parent, beside a server, and for the programs that load."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Sequence
from enum import Enum

from ..config.launcher import LauncherConfig
from ..config.per_pod import per_pod_variables
from ..local.supervision import Supervision
from ..operations.autosave import Loaded
from .interpreter import use_interpreter_of, use_interpreter_of_known_server
from .monitor import Outputs
from .processes import Signals, end_workers, wait_for_exit, why_not_started
from .server import Child, ExternalServer, Programs, note_arguments
from .supervisor import Supervisor

logger = logging.getLogger(__name__)

_LONG_S = 3600.0
_IDLE_POLL_S = 0.5


EXIT_MISS = 3
"""``run --require-hit``: nothing was restored, and the server was not started."""
EXIT_COMPILED = 4
"""``run --on-compile=exit``: the server compiled although everything was restored, and was stopped."""


class OnCompile(Enum):
    """The reaction to a server that compiles although everything in the store was restored."""

    WARN = "warn"
    EXIT = "exit"


def run(
    arguments: Sequence[str],
    *,
    namespace: str | None = None,
    store: str | None = None,
    require_hit: bool = False,
    on_compile: OnCompile | None = None,
    outputs: Outputs | None = None,
) -> int:
    """Restore, run a server until it ends, save.

    The server starts when the load is over, but no later than after ``B10_START_WITHIN_SECONDS``. A load that takes
    longer continues while the server runs. A signal before the start ends this program. A signal during the last save
    ends the save. An exception is raised only before the server was started; the caller may then start it. Call this
    once, in a process that then exits with the returned code: signals stay blocked, and a thread may remain.

    Args:
        arguments: The server's command line.
        namespace: Overrides ``B10_NAMESPACE``.
        store: Overrides ``B10_STORE``.
        require_hit: Whether to start the server only if artifacts were restored or in place. It waits for the load.
        on_compile: What to do if the server compiles although everything in the store was restored. Default: nothing.
        outputs: Report and metrics. Default: none.

    Returns:
        The server's exit code (128 + n if signal n ended it), EXIT_MISS or EXIT_COMPILED.
    """
    config = LauncherConfig.from_environment()
    _warn_of_per_pod_variables()
    use_interpreter_of(arguments)
    note_arguments(arguments)
    signals, outputs = Signals(), outputs or Outputs()
    try:
        watch = None if on_compile is None else _stop_server if on_compile is OnCompile.EXIT else _do_nothing
        # Other replicas must not wait for one that may not compile.
        supervisor = Supervisor(
            config,
            namespace=namespace,
            store=store,
            waits_for_compile=not require_hit,
            on_compile=watch,
            monitor=outputs.monitor,
        )
        supervisor.start(Child(arguments, config.url))
        outputs.begin()
        # A load has a deadline of its own.
        if stopped_by := signals.wait_for(supervisor.loaded, _LONG_S if require_hit else config.start_within_s):
            logger.info("a signal arrived before the server was started: it is not started")
            return outputs.end(128 + stopped_by)
        if require_hit and (why := supervisor.miss):
            logger.error("%s, and --require-hit is set: %s is not started", why, arguments[0])
            return outputs.end(EXIT_MISS)
        if not supervisor.loaded.is_set():
            logger.warning("the load takes longer than %g s: starting the server meanwhile", config.start_within_s)
        try:
            pid = signals.spawn(arguments, dies_with_this=config.server_dies_with_run)
        except OSError as error:
            code, why = why_not_started(arguments[0], error)
            logger.error("%s cannot be started: %s", arguments[0], why)
            return outputs.end(code)
        code = _accompany(pid, signals, supervisor, config)
        failed_itself = code != 0 and not signals.asked_to_stop
        if on_compile is OnCompile.EXIT and supervisor.has_compiled and not failed_itself:
            code = EXIT_COMPILED
        return outputs.end(code)
    except Exception:
        signals.give_back()
        raise
    finally:
        end_workers()


def _do_nothing() -> None:
    """The supervisor has logged a warning."""


def _stop_server() -> None:
    """Stop the server. The main thread takes this signal, and passes it on."""
    os.kill(os.getpid(), signal.SIGTERM)


def _accompany(pid: int, signals: Signals, supervisor: Supervisor, config: LauncherConfig) -> int:
    """Wait until the server has ended, then save. Returns its exit code and never raises."""
    code = None
    try:
        code = signals.supervise(pid)
        extra = {"event": "server_ended", "fields": {"exit_code": code}}
        logger.info("the server has ended with exit code %d", code, extra=extra)
        supervisor.end(completed=code == 0 and not signals.asked_to_stop)
        _wait_for_last_save(signals, supervisor, config)
    except Exception:
        logger.exception("nothing more is saved, because of an unexpected error; the server is not affected")
    return wait_for_exit(pid) if code is None else code


def keep_beside(*, namespace: str | None = None, store: str | None = None, outputs: Outputs | None = None) -> int:
    """Restore, then keep the caches of a server that another program starts, until it ends or a signal arrives.

    Call it once, like :func:`run`.
    """
    config = LauncherConfig.from_environment()
    _warn_of_per_pod_variables()
    use_interpreter_of_known_server()
    signals, outputs = Signals(), outputs or Outputs()
    supervisor = Supervisor(config, namespace=namespace, store=store, monitor=outputs.monitor)
    supervisor.start(ExternalServer(config))
    outputs.begin()
    try:
        _keep_until_end(supervisor, signals, config)
        return outputs.end(0)
    finally:
        end_workers()


def keep_for_programs(supervision: Supervision, loaded: Loaded) -> int:
    """Save what the programs of a set of caches compile, until the last of them has ended or a signal arrives.

    It ends at once if another process does that. Call it once, like :func:`run`.

    Args:
        supervision: Tells which programs there are.
        loaded: The load of the first of them.
    """
    config = LauncherConfig.from_environment()
    signals = Signals()
    if not supervision.supervise(alone=True):
        return 0
    try:
        while True:
            supervisor = Supervisor(config)
            supervisor.start(Programs(supervision), loaded)
            if _keep_until_end(supervisor, signals, config) or supervision.leave():
                return 0
            # Another program has begun during the last save, or the supervisor has failed.
            if signals.wait_for(threading.Event(), config.interval_s):
                return 0
    finally:
        end_workers()


def _keep_until_end(supervisor: Supervisor, signals: Signals, config: LauncherConfig) -> bool:
    """Wait until a supervisor has finished or a signal asks this process to end; whether a signal did."""
    while not supervisor.finished.is_set():
        if signals.wait_for(supervisor.finished, _LONG_S, poll_s=_IDLE_POLL_S):
            supervisor.end()
            _wait_for_last_save(signals, supervisor, config)
            return True
    return False


def _warn_of_per_pod_variables() -> None:
    if names := per_pod_variables(os.environ):
        logger.warning(
            "%s: vLLM's cache keys hold these values, so a pod with other values compiles again. "
            "Unset them, or set the same values in every pod",
            ", ".join(names),
        )


def _wait_for_last_save(signals: Signals, supervisor: Supervisor, config: LauncherConfig) -> None:
    """Wait for the last save until its deadline, or until a signal arrives."""
    # A little longer than the save's own deadline, so that the save itself reports a timeout.
    if signals.wait_for(supervisor.finished, config.last_save_s + 1):
        logger.warning("a signal ended the last save: its units are not published")
    elif not supervisor.finished.is_set():
        logger.warning("the last save took longer than B10_LAST_SAVE_SECONDS (%g s): given up", config.last_save_s)
