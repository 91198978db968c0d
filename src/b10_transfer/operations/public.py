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
from functools import partial

from .. import instant as instant_start
from ..adapters import cache_roots
from ..concurrency.deadline import Deadline
from ..concurrency.forks import no_fork
from ..config import Config
from ..environment.imported_torch import compile_counters
from ..local.usage import CacheReport, CacheUse, Usage
from ..status import LoadReport, OperationStatus, SaveReport
from . import compile_once, rest
from . import load as loading
from .autosave import start_if_requested
from .edge import Observer, finish
from .edge import attempt as attempt_operation
from .instant_start import prepare_if_requested
from .session import session
from .siblings import load_from_siblings
from .unsaved import ExitWarning
from .waiting import wait_for_compile

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

StorePath = str | os.PathLike[str]

exit_warning = ExitWarning()
"""That of this process."""


def load_compile_cache(
    *,
    namespace: str | None = None,
    store: StorePath | None = None,
    merge: bool | None = None,
    deadline_s: float | None = None,
    wait_for_compile_s: float | None = None,
    instant: bool | None = None,
    autosave: bool | None = None,
    group: str | None = None,
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
        autosave: Whether a separate process saves what this program compiles from now on (docs/autosave.md). It ends
            with the program. Default: ``B10_AUTOSAVE``, else false.
        group: What the processes of one job have in common, at most 200 characters. They load the same packs, or none
            of them loads any. Default: ``B10_GROUP``, else each process loads the newest packs.

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
        autosave=autosave,
        group=group,
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
        SUCCESS: all new units were published, in one pack or several. SKIPPED: the store already has every unit,
        nothing was compiled, or this pod can only read the store. ERROR: the save failed, and the log says why, what to
        do, and which packs were published before: each is complete by itself.

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
    autosave: bool | None = None,
    group: str | None = None,
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
        autosave: Whether a separate process saves what this program compiles from now on (docs/autosave.md). It ends
            with the program. Default: ``B10_AUTOSAVE``, else false.
        group: What the processes of one job have in common, at most 200 characters. They load the same packs, or none
            of them loads any. Default: ``B10_GROUP``, else each process loads the newest packs.
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
        return Config.from_environment(namespace=namespace, store=store, merge=merge, group=group)

    waiter = compile_once.Waiter(session)
    settings: list[Config] = []
    left: list[rest.Rest] = []

    def operate(
        deadline: Deadline, deliver: Callable[[LoadReport], None], *, from_siblings: bool = False
    ) -> LoadReport:
        config = read_config()
        is_first = not settings
        settings.append(config)
        began_ns = time.time_ns()
        restored: list[LoadReport] = []

        def remember(report: LoadReport) -> None:
            if not restored:
                restored.append(report)
                ended_ns = time.time_ns()
                # cache_report() looks for the caches again: that takes a millisecond, and a load does not pay for it.
                session.last_load = lambda: Usage(cache_roots(config), report, began_ns, ended_ns)
                exit_warning.loaded(config, report, began_ns)

        def deliver_early(report: LoadReport) -> None:
            remember(report)
            deliver(report)

        early = None if from_siblings else deliver_early
        left.clear()
        report = loading.load(
            config,
            deadline,
            waiter.known,
            from_siblings=from_siblings,
            is_first=is_first,
            deliver=early,
            leave=None if from_siblings else left.append,
        )
        remember(report)
        return report

    def attempt() -> LoadReport:
        return attempt_operation("load", deadline_s, operate, LoadReport, observe)

    started, began_ns = time.perf_counter(), time.time_ns()
    report = attempt()
    tried_s = time.perf_counter() - started
    if report.status is OperationStatus.DOES_NOT_EXIST and report.group != "cold":
        report = wait_for_compile(report, wait_for_compile_s, read_config, attempt, waiter)
    # Siblings are no part of a group's record: its processes could find different ones.
    if report.status is OperationStatus.DOES_NOT_EXIST and settings[-1].siblings and not settings[-1].group:
        report = load_from_siblings(report, partial(operate, from_siblings=True), deadline_s, tried_s)
    report = replace(report, instant=prepare_if_requested(instant, report, read_config, deadline_s, tried_s))
    report = replace(report, autosave=start_if_requested(autosave, report, began_ns, namespace, store))
    if report.rest and left:
        rest.start(left[0], deadline_s)
    return finish("load", report, started)


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
        nothing new: the unit is in the store
    """
    with no_fork:
        from . import save as saving  # a load does not pay for the imports
        from . import starts

    published: list[str] = []
    began_ns = [time.time_ns()]
    """The last of them is after the traces were written: this save publishes those, too."""

    def operate(deadline: Deadline, deliver: Callable[[SaveReport], None]) -> SaveReport:
        config = Config.from_environment(namespace=namespace, store=store)
        last = session.last_load
        usage = last() if last is not None and config.restore_rest != "before" else None
        try:
            deadline.check("writing traces")
            instant_start.flush()
            began_ns.append(time.time_ns())
            report = saving.save(config, deadline, published.append, () if usage is None else usage.rest)
        finally:
            compile_once.release(config, deadline, session)
        if usage is not None:
            deliver(report)
            starts.record_start(usage, config)
        return report

    started = time.perf_counter()
    report = attempt_operation("save", deadline_s, operate, SaveReport, observe)
    if published and not report.packs:  # it failed after some packs, or while it compacted
        reason = f"{report.reason}; before that some units were {saving.published_as(published)}"
        report = replace(report, reason=reason, packs=tuple(published), pack=published[-1])
    exit_warning.saved(report, began_ns[-1])
    return finish("save", report, started)


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
        report = CacheReport((), warning=f"the use of the caches is unknown: {error}")
    report = replace(report, instant=instant_start.report())
    with suppress(Exception):
        hidden = {str(cache) for cache in report.caches if cache.log_level < logging.INFO}
        for line in str(replace(report, warning="")).splitlines():
            logger.log(logging.DEBUG if line in hidden else logging.INFO, "%s", line)
        logger.debug("torch's counts: %s", dict(report.counters))
        if report.warning:
            logger.warning("%s", report.warning)
    return report
