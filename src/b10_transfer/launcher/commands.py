"""The two ways of looking after a server: as its parent, and beside it."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence

from ..config.launcher import LauncherConfig
from ..config.per_pod import per_pod_variables
from .processes import Signals, end_workers, exit_code_of, wait_for_exit
from .server import Child, ExternalServer
from .supervisor import Supervisor

logger = logging.getLogger(__name__)

_LONG_S = 3600.0
_IDLE_POLL_S = 0.5


def run(arguments: Sequence[str], *, namespace: str | None = None, store: str | None = None) -> int:
    """Restore, run a server until it ends, save; returns the server's exit code (128 + n if signal n ended it).

    The server starts when the load is over, but no later than ``B10_START_WITHIN_SECONDS``: a load that takes longer
    goes on beside it. A signal before that ends this program; one during the last save ends the save. What is raised,
    is raised before the server was started, which its caller then may. To be called once, by a process that ends with
    what this returns: signals stay blocked, and a thread may be left behind.
    """
    config = LauncherConfig.from_environment()
    _warn_of_per_pod_variables()
    signals = Signals()
    try:
        supervisor = Supervisor(config, namespace=namespace, store=store)
        supervisor.start(Child(arguments, config.url))
        if stopped_by := signals.wait_for(supervisor.loaded, config.start_within_s):
            logger.info("asked to end before the server was started")
            return 128 + stopped_by
        if not supervisor.loaded.is_set():
            logger.warning("the load takes longer than %g s: starting the server meanwhile", config.start_within_s)
        try:
            pid = signals.spawn(arguments, dies_with_this=config.server_dies_with_run)
        except OSError as error:
            logger.error("%s cannot be started: %s", arguments[0], error.strerror)
            return exit_code_of(error)
        return _accompany(pid, signals, supervisor, config)
    except Exception:
        signals.give_back()
        raise
    finally:
        end_workers()


def _accompany(pid: int, signals: Signals, supervisor: Supervisor, config: LauncherConfig) -> int:
    """Be the server's parent until it has ended, then save; returns its exit code. Raises nothing, whatever fails."""
    code = None
    try:
        code = signals.supervise(pid)
        logger.info("the server has ended with exit code %d", code)
        supervisor.end(completed=code == 0 and not signals.asked_to_stop)
        _wait_for_last_save(signals, supervisor, config)
    except Exception:
        logger.exception("the caches are no longer looked after; the server is not affected")
    return wait_for_exit(pid) if code is None else code


def keep_beside(*, namespace: str | None = None, store: str | None = None) -> int:
    """Restore, then look after the server that something else starts, until it ends or a signal asks to stop.

    To be called once, like :func:`run`.
    """
    config = LauncherConfig.from_environment()
    _warn_of_per_pod_variables()
    signals = Signals()
    supervisor = Supervisor(config, namespace=namespace, store=store)
    supervisor.start(ExternalServer(config))
    try:
        while not supervisor.finished.is_set():
            if signals.wait_for(supervisor.finished, _LONG_S, poll_s=_IDLE_POLL_S):
                supervisor.end()
                _wait_for_last_save(signals, supervisor, config)
                break
        return 0
    finally:
        end_workers()


def _warn_of_per_pod_variables() -> None:
    if names := per_pod_variables(os.environ):
        logger.warning(
            "%s: vLLM's cache keys hold these values, so a pod on which they differ compiles anew. "
            "Unset them, or give every pod the same",
            ", ".join(names),
        )


def _wait_for_last_save(signals: Signals, supervisor: Supervisor, config: LauncherConfig) -> None:
    """Let the last save happen, within its time, unless a signal asks for haste."""
    # A little longer than the save's own deadline, so that it is the save that reports it.
    if signals.wait_for(supervisor.finished, config.last_save_s + 1):
        logger.warning("asked to end during the last save: what it would have published is not")
    elif not supervisor.finished.is_set():
        logger.warning("the last save took longer than B10_LAST_SAVE_SECONDS (%g s): given up", config.last_save_s)
