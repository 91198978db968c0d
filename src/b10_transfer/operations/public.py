"""The public operations. This is the one place where errors become an OperationStatus.

Nothing but KeyboardInterrupt and SystemExit leaves :func:`load` and :func:`save`. A cache must never be the reason
that a model does not start.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from .. import instant as instant_start
from ..adapters import cache_roots
from ..concurrency.deadline import Deadline, run_within
from ..config import Config, read_deadline, read_instant, read_wait
from ..environment.imported_torch import compile_counters
from ..errors import CacheError
from ..local.ownership import is_private
from ..local.usage import CacheReport, CacheUse, Usage
from ..status import LoadReport, OperationStatus, Report, SaveReport
from . import compile_once
from . import load as loading
from . import save as saving
from .compile_once import Outcome
from .session import Session, session

__all__ = [
    "CacheReport",
    "CacheUse",
    "LoadReport",
    "OperationStatus",
    "SaveReport",
    "cache_report",
    "load",
    "load_compile_cache",
    "save",
    "save_compile_cache",
]

logger = logging.getLogger(__name__)

R = TypeVar("R", bound=Report)
Observer = Callable[[Deadline], object]
_WINDOW_S = 30.0
StorePath = str | os.PathLike[str]


def load_compile_cache(
    *,
    namespace: str | None = None,
    store: StorePath | None = None,
    merge: bool | None = None,
    deadline_s: float | None = None,
    wait_for_compile_s: float | None = None,
    instant: bool | None = None,
) -> OperationStatus:
    """Restore saved compile artifacts. Call it before the model compiles.

    Args:
        namespace: Workload whose packs are searched. Default: ``B10_NAMESPACE``, else ``default``.
        store: Directory or URL of the store. Default: ``B10_STORE``; if that is unset, docs/configuration.md says what
            is used.
        merge: Whether caches that already hold artifacts get the units they lack. If false, these caches are left
            alone. Default: ``B10_MERGE``, else false.
        deadline_s: Seconds after which the load gives up, above 0 and at most 86400. Default:
            ``B10_DEADLINE_SECONDS``, else 60.
        wait_for_compile_s: Seconds to wait for another replica that compiles, if the store has nothing. They come on
            top of the deadline. Default: ``B10_WAIT_FOR_COMPILE_SECONDS``, else 0.
        instant: Whether ``torch.compile`` skips tracing, too, if a replica saved traces (docs/instant.md). This imports
            torch. If an instant start is not possible, the start is a warm one. Default: ``B10_INSTANT``, else false.

    Returns:
        SUCCESS: artifacts were restored. SKIPPED: every cache that the store has data for already holds artifacts;
        nothing was restored. DOES_NOT_EXIST: the store has nothing usable for this environment and namespace. ERROR:
        the load failed, and the log says why and what to do; the model compiles as if there were no cache.

    Raises:
        KeyboardInterrupt, SystemExit: The program is to stop. No other exception leaves this function.

    Example:
        >>> from b10_transfer import load_compile_cache
        >>> load_compile_cache().name
        'SUCCESS'
        >>> load_compile_cache().name  # the artifacts are in place now
        'SKIPPED'
    """
    return load(
        namespace=namespace,
        store=store,
        merge=merge,
        deadline_s=deadline_s,
        wait_for_compile_s=wait_for_compile_s,
        instant=instant,
    ).status


def save_compile_cache(
    *, namespace: str | None = None, store: StorePath | None = None, deadline_s: float | None = None
) -> OperationStatus:
    """Publish the compile artifacts that the store lacks. Call it after the model has compiled.

    Args:
        namespace: Workload that the pack is published for. Default: ``B10_NAMESPACE``, else ``default``.
        store: Directory or URL of the store. Default: ``B10_STORE``; if that is unset, docs/configuration.md says what
            is used.
        deadline_s: Seconds after which the save gives up, above 0 and at most 86400. Default:
            ``B10_DEADLINE_SECONDS``, else 60.

    Returns:
        SUCCESS: all new units were published, in one pack or several. SKIPPED: the store already has every unit, or
        nothing was compiled. ERROR: the save failed, and the log says why, what to do, and which packs were published
        before: each is complete by itself.

    Raises:
        KeyboardInterrupt, SystemExit: The program is to stop. No other exception leaves this function.

    Example:
        >>> from b10_transfer import load_compile_cache, save_compile_cache
        >>> load_compile_cache(namespace="my-model").name
        'DOES_NOT_EXIST'
        >>> save_compile_cache(namespace="my-model").name  # nothing was compiled yet
        'SKIPPED'
    """
    return save(namespace=namespace, store=store, deadline_s=deadline_s).status


def load(
    *,
    namespace: str | None = None,
    store: StorePath | None = None,
    merge: bool | None = None,
    deadline_s: float | None = None,
    wait_for_compile_s: float | None = None,
    instant: bool | None = None,
    observe: Observer | None = None,
) -> LoadReport:
    """Restore saved compile artifacts, and report what was restored, from where, and why not.

    Args:
        namespace: Workload whose packs are searched. Default: ``B10_NAMESPACE``, else ``default``.
        store: Directory or URL of the store. Default: ``B10_STORE``; if that is unset, docs/configuration.md says what
            is used.
        merge: Whether caches that already hold artifacts get the units they lack. If false, these caches are left
            alone. Default: ``B10_MERGE``, else false.
        deadline_s: Seconds after which the load gives up, above 0 and at most 86400. Default:
            ``B10_DEADLINE_SECONDS``, else 60.
        wait_for_compile_s: Seconds to wait for another replica that compiles, if the store has nothing. They come on
            top of the deadline. Default: ``B10_WAIT_FOR_COMPILE_SECONDS``, else 0.
        instant: Whether ``torch.compile`` skips tracing, too, if a replica saved traces (docs/instant.md). This imports
            torch. If an instant start is not possible, the start is a warm one. Default: ``B10_INSTANT``, else false.
        observe: Called once with the operation's :class:`Deadline` when it begins, for a display of its progress.
            Default: none.

    Returns:
        The report. Its ``status`` is what :func:`load_compile_cache` returns.

    Raises:
        KeyboardInterrupt, SystemExit: The program is to stop. No other exception leaves this function.

    Example:
        >>> from b10_transfer import OperationStatus, load
        >>> report = load(deadline_s=30)
        >>> report.status is OperationStatus.SUCCESS
        True
        >>> print(f"{report.units} unit, {report.files} files")
        1 unit, 2 files
    """

    def read_config() -> Config:
        return Config.from_environment(namespace=namespace, store=store, merge=merge)

    waiter = compile_once.Waiter(session)

    def operate(deadline: Deadline) -> LoadReport:
        config = read_config()
        began_ns = time.time_ns()
        report = loading.load(config, deadline, waiter.known)
        ended_ns = time.time_ns()
        # The caches are looked for again when somebody asks: that takes a millisecond, and nobody may.
        session.last_load = lambda: Usage(cache_roots(config), report.restored, began_ns, ended_ns)
        return report

    def attempt() -> LoadReport:
        return _attempt("load", deadline_s, operate, LoadReport, observe)

    started = time.perf_counter()
    report = attempt()
    tried_s = time.perf_counter() - started
    if report.status is OperationStatus.DOES_NOT_EXIST:
        report = _wait_for_compile(report, wait_for_compile_s, read_config, attempt, waiter)
    report = replace(report, instant=_prepare(instant, report, read_config, deadline_s, tried_s))
    return _told("load", report, started)


def _prepare(
    instant: bool | None,
    report: LoadReport,
    read_config: Callable[[], Config],
    deadline_s: float | None,
    spent_s: float,
) -> str:
    """Prepare instant starts if they are requested, in what is left of the load's deadline.

    Returns ``ready``, the reason why there is no instant start, or an empty string if none was requested.
    """
    try:
        if not read_instant(instant):
            return ""
    except CacheError as error:
        logger.error("no instant start: %s", error)
        return str(error)
    try:
        deadline = Deadline("preparing instant starts", max(0.0, read_deadline(deadline_s) - spent_s))

        def prepare() -> str:
            deadline.check("importing torch")
            files = _restored_traces(report, read_config) if report.restored else []
            return instant_start.prepare(files, deadline)

        reason = run_within(deadline, prepare)
    except Exception as error:  # noqa: BLE001 - this is the edge
        reason = str(error) or type(error).__name__
    if reason:
        logger.warning("no instant start, but a warm one: %s", reason)
    return reason or "ready"


def _restored_traces(report: LoadReport, read_config: Callable[[], Config]) -> list[Path]:
    """The files that this load restored to private caches and that instant starts may read."""
    prefix = "inductor/dynamo/"
    names = [name.removeprefix("inductor/") for name in report.restored if name.startswith(prefix)]
    roots = [root for root in cache_roots(read_config()) if root.name == "inductor"] if names else []
    return [
        root.path / name for root in roots if is_private(root.path, may_be_shared=root.may_be_shared) for name in names
    ]


def _wait_for_compile(
    report: LoadReport,
    wait_s: float | None,
    read_config: Callable[[], Config],
    attempt: Callable[[], LoadReport],
    waiter: compile_once.Waiter,
) -> LoadReport:
    """Wait while another replica compiles, if that was asked for. Whatever goes wrong: this one compiles, too."""
    try:
        ends = time.monotonic() + read_wait(wait_s)
        while report.status is OperationStatus.DOES_NOT_EXIST and (left_s := ends - time.monotonic()) > 0:
            outcome = _wait_a_while(read_config, left_s, waiter)
            if outcome is Outcome.NOBODY:
                break
            if outcome is Outcome.WAITING:
                continue
            report = attempt()
            if outcome is Outcome.MINE:
                if report.status is OperationStatus.DOES_NOT_EXIST:
                    return replace(report, reason=f"{report.reason}; this replica compiles, others may wait for it")
                _give_lease_back(read_config, waiter.session)  # it was published just before the lease was free
    except Exception as error:  # noqa: BLE001 - this is the edge
        logger.warning("not waiting for another replica to compile: %s", error)
    return report


def _give_lease_back(read_config: Callable[[], Config], holder: Session) -> None:
    deadline = Deadline("giving the lease back", _WINDOW_S)
    run_within(deadline, lambda: compile_once.release(read_config(), deadline, holder))


def _wait_a_while(read_config: Callable[[], Config], left_s: float, waiter: compile_once.Waiter) -> Outcome:
    """A wait in parts, so that a mount that hangs meanwhile is noticed."""
    window_s = min(left_s, _WINDOW_S)
    deadline = Deadline("waiting for another replica to compile", window_s + _WINDOW_S)
    config = run_within(deadline, read_config)
    if not config.locks:
        return Outcome.NOBODY
    return run_within(deadline, lambda: compile_once.wait(config, deadline, window_s, waiter))


def save(
    *,
    namespace: str | None = None,
    store: StorePath | None = None,
    deadline_s: float | None = None,
    observe: Observer | None = None,
) -> SaveReport:
    """Publish the compile artifacts that the store lacks, and report what was published or why nothing was.

    Args:
        namespace: Workload that the pack is published for. Default: ``B10_NAMESPACE``, else ``default``.
        store: Directory or URL of the store. Default: ``B10_STORE``; if that is unset, docs/configuration.md says what
            is used.
        deadline_s: Seconds after which the save gives up, above 0 and at most 86400. Default:
            ``B10_DEADLINE_SECONDS``, else 60.
        observe: Called once with the operation's :class:`Deadline` when it begins, for a display of its progress.
            Default: none.

    Returns:
        The report. Its ``status`` is what :func:`save_compile_cache` returns.

    Raises:
        KeyboardInterrupt, SystemExit: The program is to stop. No other exception leaves this function.

    Example:
        >>> from b10_transfer import load, save
        >>> print(load().status.name)
        SUCCESS
        >>> print(save().reason)
        nothing new: all 1 units are in the store
    """

    published: list[str] = []

    def operate(deadline: Deadline) -> SaveReport:
        config = Config.from_environment(namespace=namespace, store=store)
        try:
            deadline.check("writing traces")
            instant_start.flush()
            return saving.save(config, deadline, published.append)
        finally:
            compile_once.release(config, deadline, session)

    started = time.perf_counter()
    report = _attempt("save", deadline_s, operate, SaveReport, observe)
    if published and not report.packs:  # it failed after some packs, or while it compacted
        reason = f"{report.reason}; before that some units were {saving.published_as(published)}"
        report = replace(report, reason=reason, packs=tuple(published), pack=published[-1])
    return _told("save", report, started)


def cache_report() -> CacheReport:
    """Report how the caches were used since the last load of this process. Call it when the model is warm.

    The report is also logged, as a WARNING if restored units were not used. It takes milliseconds.

    Returns:
        For each cache the number of restored, used and newly compiled units, and torch's counts of hits and misses if
        this process compiled. If the caches cannot be read, ``warning`` says why.

    Raises:
        KeyboardInterrupt, SystemExit: The program is to stop. No other exception leaves this function.

    Example:
        >>> from b10_transfer import cache_report, load
        >>> print(load().status.name)
        SUCCESS
        >>> [use] = cache_report().caches
        >>> print(use.cache, use.restored, use.compiled)
        triton 1 0
    """
    try:
        last = session.last_load
        report = last().report() if last is not None else CacheReport((), compile_counters())
    except Exception as error:  # noqa: BLE001 - this is the edge
        report = CacheReport((), warning=f"what became of the caches cannot be told: {error}")
    with suppress(Exception):
        for line in str(replace(report, warning="")).splitlines():
            logger.info("%s", line)
        if report.warning:
            logger.warning("%s", report.warning)
    return report


def _attempt(
    operation: str,
    deadline_s: float | None,
    operate: Callable[[Deadline], R],
    report_type: type[R],
    observe: Observer | None,
) -> R:
    """Run an operation within its deadline; whatever goes wrong is in the report."""
    try:
        deadline = Deadline(operation, read_deadline(deadline_s))
        if observe is not None:
            observe(deadline)
        return run_within(deadline, lambda: operate(deadline))
    except Exception as error:  # noqa: BLE001 - this is the edge
        return report_type(status=OperationStatus.ERROR, reason=str(error) or type(error).__name__, error=error)


def _told(operation: str, report: R, started: float) -> R:
    """The report with its seconds, said on the log."""
    report = replace(report, seconds=time.perf_counter() - started)
    with suppress(Exception):  # a program's own logging handler may raise, and there is no way to tell it
        _log(operation, report)
    return report


def _log(operation: str, report: Report) -> None:
    """One line for each operation."""
    if report.status is OperationStatus.ERROR:
        # A traceback only for what nobody foresaw: our own errors say all there is to say.
        unforeseen = report.error if not isinstance(report.error, CacheError) else None
        logger.error("%s failed after %.2f s: %s", operation, report.seconds, report.reason, exc_info=unforeseen)
        return
    amount = ""
    if report.units:
        amount = f", {report.units} units, {report.files} files, {report.bytes / 1e6:.1f} MB"
        if not getattr(report, "instant", ""):  # the seconds would include the import of torch
            rate = report.bytes / 1e6 / max(report.seconds, 1e-9)
            amount += f" at {rate:.{0 if rate >= 10 else 1}f} MB/s"
    logger.info("%s: %s in %.2f s%s (%s)", operation, report.status.name, report.seconds, amount, report.reason)
