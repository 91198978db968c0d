"""Starts the process that saves what a program compiles after a load: one for each pod and set of caches.

It is no child of the program, has a session of its own and no open file of the program. So the program never waits for
it, receives nothing from it, and its readers see the end of its output when the program ends.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ..adapters import cache_roots
from ..concurrency.deadline import Deadline, run_within
from ..config import Config, read_autosave
from ..environment import identify
from ..environment.interpreter import startable_python
from ..local.supervision import Supervision
from ..status import LoadReport, OperationStatus

logger = logging.getLogger(__name__)

_DEADLINE_S = 10.0
"""For the start of a process, which takes some 20 ms."""
_READ_ONLY = "B10_READ_ONLY=1"
_PROGRAM = (
    "import os, sys; os.fork() and os._exit(0); os.closerange(3, os.sysconf('SC_OPEN_MAX')); "
    "sys.path += sys.argv.pop(1).split(':'); from b10_transfer.cli.autosave import main; main()"
)
"""The process that the program waits for ends at once. Its child goes on."""
_SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT]
"""Those that end the process after a last save."""
_HANDED_OVER = (
    *("reason", "files", "bytes", "restored", "rest", "rest_files"),
    *("partial", "siblings", "commands", "key_differences"),
)
"""The facts of a report that the process needs, to tell what was compiled and what was used."""


@dataclass(frozen=True)
class Loaded:
    """A load, and its times in nanoseconds since the epoch. The program hands it over to the process."""

    report: LoadReport
    began_ns: int
    ended_ns: int

    def to_json(self) -> bytes:
        """The facts that the process needs."""
        facts = {name: getattr(self.report, name) for name in _HANDED_OVER}
        return json.dumps([self.report.status.name, facts, self.began_ns, self.ended_ns]).encode()

    @classmethod
    def from_json(cls, text: bytes) -> Loaded:
        """That of another process's :meth:`to_json`. Raises ValueError, KeyError or TypeError."""
        status, facts, began_ns, ended_ns = json.loads(text)
        facts = {name: tuple(fact) if isinstance(fact, list) else fact for name, fact in facts.items()}
        return cls(LoadReport(OperationStatus[status], **facts), began_ns, ended_ns)


def start_if_requested(
    autosave: bool | None,
    report: LoadReport,
    began_ns: int,
    namespace: str | None,
    store: str | os.PathLike[str] | None,
) -> str:
    """Start a process that saves what this program compiles, unless there is one. Never raises.

    Args:
        autosave: Overrides ``B10_AUTOSAVE``.
        report: The report of the load.
        began_ns: When the load began, in nanoseconds since the epoch.
        namespace: Overrides ``B10_NAMESPACE``.
        store: Overrides ``B10_STORE``.

    Returns:
        ``on``, the reason why there is no such process, or an empty string if it is not requested.
    """
    try:
        if not read_autosave(autosave):
            return ""
        deadline = Deadline("starting the autosave process", _DEADLINE_S)
        loaded = Loaded(report, began_ns, time.time_ns())
        reason = run_within(deadline, lambda: _start(loaded, namespace, store))
    except Exception as error:  # noqa: BLE001 - the program goes on without
        reason = str(error) or type(error).__name__
    if reason:
        level = logging.INFO if reason == _READ_ONLY else logging.WARNING
        logger.log(level, "later compilations are not saved: %s", reason)
    return reason or "on"


def _start(loaded: Loaded, namespace: str | None, store: str | os.PathLike[str] | None) -> str:
    """Start it; returns the reason why it cannot be started. Raises CacheError or OSError."""
    config = Config.from_environment(namespace=namespace, store=store)
    if config.read_only:
        return _READ_ONLY
    python = startable_python()
    if python is None:
        return f"no interpreter can be started for that ({sys.executable or 'none is known'})"
    supervision = Supervision.of(cache_roots(config), config.store, config.namespace, identify(logs=False).id)
    # First, so that a supervisor that is about to end goes on.
    supervision.join()
    if supervision.has_supervisor():
        return ""
    environ = dict(os.environ)
    if namespace is not None:
        environ["B10_NAMESPACE"] = namespace
    if store is not None:
        environ["B10_STORE"] = str(config.store)  # absolute, as the variable must be
    package = Path(__file__).resolve().parents[2]
    modules = ":".join([str(package), *(os.path.abspath(folder) for folder in sys.path)])
    arguments = [str(supervision.folder), supervision.name]
    with _file_without_a_name(supervision.folder) as facts:
        facts.write(loaded.to_json())
        facts.seek(0)
        # Not by subprocess: if another thread forked a process meanwhile, this would wait for the end of that process.
        child = os.posix_spawn(
            python,
            [python, "-I", "-c", _PROGRAM, modules, "b10-compile-cache", "autosave", *arguments],
            environ,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, facts.fileno(), 0),
                (os.POSIX_SPAWN_OPEN, 2, str(supervision.log), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600),
                (os.POSIX_SPAWN_DUP2, 2, 1),
            ],
            setsid=True,
            # A signal that arrives before the process can save waits until it can.
            setsigmask=_SIGNALS,
            setsigdef=_SIGNALS,
        )
    with suppress(ChildProcessError):  # the program reaps every child itself
        os.waitpid(child, 0)
    logger.info("a separate process saves later compilations; it logs to %s", supervision.log)
    return ""


def _file_without_a_name(folder: Path) -> IO[bytes]:
    """In memory, so that a full disk does not matter; in the folder if this Python was built for an old C library."""
    if hasattr(os, "memfd_create"):
        return open(os.memfd_create("b10-transfer-load"), "w+b")
    return tempfile.TemporaryFile(dir=folder)


def digest_of_restored(report: LoadReport) -> str:
    """The digest of what a load restores, also later; empty if the store lacks it in this pod's environment."""
    if report.siblings:
        return ""
    return digest_of((*report.restored, *report.rest), report.files + report.rest_files)


def digest_of(units: Iterable[str], files: int) -> str:
    """A digest of the names of units and the number of their files."""
    return hashlib.sha256("\0".join([str(files), *sorted(units)]).encode("utf-8", "surrogateescape")).hexdigest()
