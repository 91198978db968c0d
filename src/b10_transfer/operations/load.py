"""One load: scan the local caches, read the store, and put missing units in place.

:func:`.load_plan.plan` decides what is restored. The load acts on it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from ..adapters import locate_caches, named
from ..concurrency.deadline import Deadline
from ..concurrency.forks import no_fork
from ..config import Config
from ..environment import identify
from ..errors import CacheError
from ..local.deferral import compilers_wait, split
from ..local.left_out import planned_without
from ..local.placing import Restored, why_unfit
from ..local.restore import restore
from ..local.staging import LOCKS_SHARE, locked, remove_leftovers, wait_for_restore
from ..pack import Limits
from ..repository.group import ColdGroupError, Group
from ..repository.ignored import reasons, state_of, states
from ..repository.repository import Repository
from ..repository.union import Union
from ..repository.use import today
from ..status import LoadReport, OperationStatus
from ..stores.opening import check_shared, opened
from .damage import damaged_since, log_ignored, report_damage
from .key_facts import differences, facts_of, warn_of_threads
from .load_plan import LoadPlan, holding, partial_restore, plan, plan_with, survey
from .rest import Rest, split_by_use, with_rest
from .siblings import of_siblings, read_siblings

if TYPE_CHECKING:
    from ..repository.signing import Trust

logger = logging.getLogger(__name__)


def load(
    config: Config,
    deadline: Deadline,
    seen: set[str] | None = None,
    *,
    from_siblings: bool = False,
    is_first: bool = True,
    deliver: Callable[[LoadReport], None] | None = None,
    leave: Callable[[Rest], None] | None = None,
) -> LoadReport:
    """Restore what the store holds for this environment.

    Args:
        config: The settings.
        deadline: Bounds the load.
        seen: Receives the ids of the packs that the load has read or rejected.
        from_siblings: Whether to restore what sibling environments hold instead.
        is_first: Whether this operation has not loaded before. If it has, packs may have been published since the group
            recorded that there are none. Default: true.
        deliver: Receives the report if the load goes on, with units that no start needs at once. Default: such units
            are restored like others.
        leave: Receives the units that no start uses, for their restore after this load. Called before the report is
            delivered. Default: such units are restored like others.

    Raises:
        CacheError: Nothing was restored.
    """
    deadline.check("looking at the local caches")
    check_shared(config)
    # The store first: its worker process starts while this one looks around.
    with opened(config, deadline) as store:
        trusted = _trusted_keys(config)
        environment = identify(logs=is_first)
        caches = locate_caches(config)
        report = LoadReport(
            status=OperationStatus.SKIPPED,
            reason="",
            namespace=config.namespace,
            environment_id=environment.id,
            store=str(config.store),
        )
        patience = Deadline("load", deadline.remaining_s * LOCKS_SHARE)
        if config.locks:
            for path in sorted({root.outermost for root in caches.roots}):
                wait_for_restore(path, patience, may_be_shared=config.shared_roots)
        local = survey(caches.roots, config, caches.refused)
        limits = Limits.of(config)
        repository = Repository(store, config.namespace, environment, limits, deadline, trusted)
        group = None
        if config.group and not from_siblings:
            group = Group(store, repository, config.group, read_only=config.read_only, renews=not is_first)

        def read_union() -> Union:
            if from_siblings:
                return read_siblings(store, config, environment, deadline)
            return _read_union(repository, group, seen)

        used: Union | None = None
        try:
            planned = planned_without(local.failed, lambda: plan(local, read_union))
            if planned.status is OperationStatus.SUCCESS:
                report = _restore(repository, planned, config, deadline, patience, report, deliver, group, leave)
            else:
                report = _report_of(planned, report)
            if from_siblings and planned.union is not None:
                report = of_siblings(report, planned.union)
            used = planned.union
        except ColdGroupError as cold:
            logger.warning("%s", cold)
            report = replace(report, status=OperationStatus.DOES_NOT_EXIST, reason=str(cold))
        report = _with_group(report, group)
        for path in sorted({root.outermost for root in (*local.used, *local.open)}):
            remove_leftovers(path, may_be_shared=config.shared_roots)  # where nothing was staged, which does it, too
        _record_use(repository, used, config, report, deliver)
        return report


def _read_union(repository: Repository, group: Group | None, seen: set[str] | None) -> Union:
    union = repository.with_recalled_names(repository.union() if group is None else group.union())
    log_ignored(union.rejected, len(union.unread))
    if seen is not None:
        seen.update(pack.id for pack in union.packs)
        seen.update(pack.id for pack in union.rejected)
        seen.update(union.unread)
    return union


def _with_group(report: LoadReport, group: Group | None) -> LoadReport:
    return report if group is None else replace(report, group=group.state)


def _record_use(
    repository: Repository,
    union: Union | None,
    config: Config,
    report: LoadReport,
    deliver: Callable[[LoadReport], None] | None,
) -> None:
    """Record that packs are used, once a day. No start waits for it."""
    if union is None or config.read_only or today() in union.recorded_days:
        return
    used = {pack.index.environment_id for pack in union.packs}
    if used and report.status in (OperationStatus.SUCCESS, OperationStatus.SKIPPED):
        if deliver is not None:
            deliver(report)
        repository.record_use(used, union)


def _restore(
    repository: Repository,
    planned: LoadPlan,
    config: Config,
    deadline: Deadline,
    patience: Deadline,
    report: LoadReport,
    deliver: Callable[[LoadReport], None] | None,
    group: Group | None,
    leave: Callable[[Rest], None] | None,
) -> LoadReport:
    union = planned.union
    assert union is not None  # there is something to restore
    with ExitStack() as locks:
        # In one order everywhere, so that two processes never wait for each other.
        for path in sorted({root.outermost for root in planned.roots}):
            if config.locks:
                locks.enter_context(locked(path, patience, may_be_shared=config.shared_roots))
        # Another rank may have restored, or a compiler begun, while this one waited.
        planned = plan_with(union, planned.local.refreshed(config))
        if planned.status is not OperationStatus.SUCCESS:
            return _report_of(planned, report)

        def agree(restored: Restored) -> None:
            if group is None:
                return
            damaged = damaged_since(union, restored)
            try:
                group.check(
                    [*(f"pack {pack.id} is {state_of(pack.error)}" for pack in damaged), *map(str, restored.failures)]
                )
            except CacheError:  # nothing is put in place
                report_damage(repository, union, damaged, config)
                raise

        def put_in_place(names: Sequence[str], before: Callable[[Restored], None] | None = None) -> Restored:
            restored = restore(repository, union, names, holding(names, planned.local.open), deadline, before)
            report_damage(repository, union, damaged_since(union, restored), config)
            return restored

        differing = differences(union, planned.names, facts_of(planned.roots, repository.environment, config.reader))
        warn_of_threads(differing)
        report = replace(report, key_differences=tuple(map(str, differing)))
        planned, rest = _without_rest(repository, planned, config, leave)
        if not planned.names:
            skipped = replace(planned, status=OperationStatus.SKIPPED, reason="all that starts use is in place")
            return with_rest(_report_of(skipped, report), union, rest, config.restore_rest)
        now, later = split(planned.names, planned.roots) if deliver is not None else (planned.names, ())
        restored = put_in_place(now, agree)
        report = _report_of_restored(restored, planned, config, report)
        report = with_rest(report, union, rest, config.restore_rest)
        if deliver is not None and later:
            with compilers_wait(later, planned.roots):
                deliver(_with_group(report, group))
                put_in_place(later)
        return report


def _without_rest(
    repository: Repository, planned: LoadPlan, config: Config, leave: Callable[[Rest], None] | None
) -> tuple[LoadPlan, Sequence[str]]:
    """A plan without the units that no start uses, and these, which are left for later or in the store."""
    union = planned.union
    if leave is None or config.restore_rest == "before" or union is None or not union.starts:
        return planned, ()
    names, rest = split_by_use(repository, union, planned.names)
    if rest and config.restore_rest == "after":
        leave(Rest(config, repository.environment, union, rest, holding(rest, planned.roots)))
    return replace(planned, names=names), rest


def _trusted_keys(config: Config) -> Trust | None:
    if config.trusted_keys is None:
        return None
    with no_fork:
        from ..repository.signing import trusted_keys  # most pods do not need it

    return trusted_keys(config)


def _report_of_restored(restored: Restored, planned: LoadPlan, config: Config, report: LoadReport) -> LoadReport:
    if not restored.units:  # every pack turned out to be damaged, or other processes were faster
        planned = plan_with(restored.union, planned.local.refreshed(config))
        if restored.unfit and planned.status is OperationStatus.SUCCESS:
            status = OperationStatus.SKIPPED if planned.already_present else OperationStatus.DOES_NOT_EXIST
            planned = replace(planned, status=status, reason=why_unfit(restored.unfit))
        elif planned.status is OperationStatus.SUCCESS:
            reason = "other processes changed the caches while this load ran; nothing was restored"
            planned = replace(planned, status=OperationStatus.SKIPPED, reason=reason)
        return _report_of(planned, report)
    return replace(
        report,
        status=OperationStatus.SUCCESS,
        reason=f"restored to {named(holding(restored.names, planned.roots))}",
        partial=partial_restore(planned, restored),
        rejected_packs=reasons(restored.union),
        ignored_packs=restored.union.ignored,
        pack_states=states(restored.union),
        already_present=planned.already_present,
        restored=tuple(restored.names),
        units=restored.units,
        files=restored.files,
        bytes=restored.bytes,
        packed_bytes=restored.packed_bytes,
        packs=tuple(sorted(restored.packs)),
        commands=restored.union.commands,
    )


def _report_of(planned: LoadPlan, report: LoadReport) -> LoadReport:
    """The report of a load that restores nothing."""
    reason = planned.reason
    if planned.status is OperationStatus.DOES_NOT_EXIST:
        reason = f"{reason}: {report.store}, environment {report.environment_id}, namespace {report.namespace!r}"
    return replace(
        report,
        status=planned.status,
        reason=reason,
        partial=planned.partial,
        already_present=planned.already_present,
        rejected_packs=reasons(planned.union) if planned.union is not None else (),
        ignored_packs=planned.union.ignored if planned.union is not None else 0,
        pack_states=states(planned.union) if planned.union is not None else {},
    )
