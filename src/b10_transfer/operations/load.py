"""One load: scan the local caches, read the store, and put missing units in place.

:func:`plan` makes every decision. The load acts on it; ``info``, ``explain`` and ``doctor`` show it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from types import MappingProxyType

from ..adapters import CacheRoot, all_adapters, locate_caches, named
from ..concurrency.deadline import Deadline
from ..config import Config
from ..environment import identify
from ..errors import CacheError, ConfigurationError, LocalCacheError, UnreadablePackError
from ..local import snapshot
from ..local.left_out import planned_without
from ..local.ownership import user_to_restore_as
from ..local.presence import missing
from ..local.restore import restore
from ..local.staging import LOCKS_SHARE, locked, remove_leftovers, wait_for_restore
from ..pack import Limits
from ..repository.ignored import errors_in, newer_in, reasons
from ..repository.repository import Repository
from ..repository.signing import trusted_keys
from ..repository.union import Rejected, Union
from ..status import LoadReport, OperationStatus
from ..stores.opening import opened
from .siblings import of_siblings, read_siblings

logger = logging.getLogger(__name__)


def load(
    config: Config, deadline: Deadline, seen: set[str] | None = None, *, from_siblings: bool = False
) -> LoadReport:
    """Restore what the store holds for this environment.

    Args:
        config: The settings.
        deadline: Bounds the load.
        seen: Receives the ids of the packs that the load has read or rejected.
        from_siblings: Whether to restore what sibling environments hold instead.

    Raises:
        CacheError: Nothing was restored.
    """
    deadline.check("looking at the local caches")
    # The store first: its worker process starts while this one looks around.
    with opened(config, deadline) as store:
        trusted = trusted_keys(config)
        environment = identify()
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

        def read_union() -> Union:
            if from_siblings:
                return read_siblings(store, config, environment, deadline)
            union = repository.union()
            _log_ignored(union.rejected, len(union.unread))
            if seen is not None:
                seen.update(pack.id for pack in union.packs)
                seen.update(pack.id for pack in union.rejected)
                seen.update(union.unread)
            return union

        planned = planned_without(local.failed, lambda: plan(local, read_union))
        if planned.status is OperationStatus.SUCCESS:
            report = _restore(repository, planned, config, deadline, patience, report)
        else:
            report = _report_of(planned, report)
        if from_siblings and planned.union is not None:
            report = of_siblings(report, planned.union)
        for path in sorted({root.outermost for root in (*local.used, *local.open)}):
            remove_leftovers(path, may_be_shared=config.shared_roots)  # where nothing was staged, which does it, too
        return report


@dataclass(frozen=True)
class LocalRoots:
    """Cache roots, grouped by how a load may use them."""

    open: Sequence[CacheRoot]
    """Roots that it may add to: those without artifacts, or all if it merges."""
    used: Sequence[CacheRoot]
    """Roots that already hold artifacts."""
    failed: Mapping[str, CacheError]
    """Why other caches cannot be used, by name."""

    def only(self, names: set[str]) -> LocalRoots:
        """The roots with some names."""
        return LocalRoots(
            [root for root in self.open if root.name in names],
            [root for root in self.used if root.name in names],
            {name: error for name, error in self.failed.items() if name in names},
        )

    def refreshed(self, config: Config) -> LocalRoots:
        """The same roots, after a new scan of the open ones."""
        now = survey(self.open, config)
        return LocalRoots(now.open, [*self.used, *now.used], {**self.failed, **now.failed})

    @property
    def accepts_artifacts(self) -> bool:
        """Whether one open root is more than an auxiliary cache: those are restored only together with artifacts."""
        return any(not root.adapter.accompanies for root in self.open)


@dataclass(frozen=True)
class LoadPlan:
    """A load's decision. SUCCESS: it restores ``names``; another status: it restores nothing."""

    status: OperationStatus
    reason: str
    local: LocalRoots
    """The caches that the store holds something for, or all of them if the store was not read."""
    names: Sequence[str] = ()
    """Names of the units to put in place."""
    already_present: int = 0
    """Units of the store that are in place."""
    union: Union | None = None
    """What the store holds; None if the plan did not depend on it."""

    @property
    def roots(self) -> list[CacheRoot]:
        """The caches that something is restored to."""
        return _holding(self.names, self.local.open)


def survey(
    roots: Sequence[CacheRoot], config: Config, refused: Mapping[str, ConfigurationError] = MappingProxyType({})
) -> LocalRoots:
    """Find out which roots a load may add to.

    Args:
        roots: The caches that can be used where they are.
        config: The settings.
        refused: Why other caches are not used.
    """
    open_roots: list[CacheRoot] = []
    used: list[CacheRoot] = []
    failed: dict[str, CacheError] = dict(refused)
    for root in roots:
        try:
            user_to_restore_as(root)
            (open_roots if config.merge or not snapshot.has_artifacts(root) else used).append(root)
        except LocalCacheError as error:
            failed[root.name] = error
    return LocalRoots(open_roots, used, failed)


def plan(local: LocalRoots, read_union: Callable[[], Union]) -> LoadPlan:
    """Decide what a load restores. Changes nothing.

    Args:
        local: The caches of this pod.
        read_union: Reads the store. Called only if a cache may be added to.

    Raises:
        CacheError: The load would fail with this error.
    """
    if not local.accepts_artifacts:
        _raise_if_nothing_is_usable(local)
        return LoadPlan(OperationStatus.SKIPPED, _nothing_open(local), local)
    return _plan_with(read_union(), local)


def plan_for_empty_caches(caches: Collection[str], union: Union) -> LoadPlan:
    """Decide what a load of another pod restores, if the caches with these names are empty there.

    Raises:
        CacheError: The load would fail with this error.
    """
    nowhere = LocalRoots((), (), {})
    if not union.units:
        return _plan_without_units(nowhere, union)
    auxiliary = {adapter.name for adapter in all_adapters() if adapter.accompanies}
    names = [name for name in union.units if name.partition("/")[0] in caches]
    if names and not auxiliary.issuperset(caches):
        return LoadPlan(OperationStatus.SUCCESS, "would restore", nowhere, names, union=union)
    return LoadPlan(
        OperationStatus.DOES_NOT_EXIST, "the store has only caches that the pod leaves out", nowhere, union=union
    )


def _plan_with(union: Union, local: LocalRoots) -> LoadPlan:
    """Decide what to restore from a store that was read."""
    if not union.units:
        return _plan_without_units(local, union)
    selected = {root.name for root in (*local.open, *local.used)} | local.failed.keys()
    stored = {name.partition("/")[0] for name in union.units}
    if not selected & stored:
        reason = f"the store has only caches that B10_CACHES leaves out: {', '.join(sorted(stored))}"
        return LoadPlan(OperationStatus.DOES_NOT_EXIST, reason, local, union=union)
    local = local.only(stored)
    usable = {root.name for root in (*local.open, *local.used)}
    absent = missing(union.units, [*local.open, *local.used])
    present = sum(name.partition("/")[0] in usable for name in union.units) - len(absent)
    is_open = {root.name for root in local.open if local.accepts_artifacts}
    names = [name for name in absent if name.partition("/")[0] in is_open]
    if names:
        return LoadPlan(OperationStatus.SUCCESS, "would restore", local, names, present, union)
    _raise_if_nothing_is_usable(local)
    reason = "all that the store holds is already in place" if _is_complete(local) else _nothing_open(local)
    return LoadPlan(OperationStatus.SKIPPED, reason, local, (), present, union)


def _raise_if_nothing_is_usable(local: LocalRoots) -> None:
    """Raise the reason why caches cannot be used, unless another cache can: its artifacts are in place."""
    if all(root.adapter.accompanies for root in (*local.open, *local.used)):
        for error in local.failed.values():
            raise error


def _plan_without_units(local: LocalRoots, union: Union) -> LoadPlan:
    """An empty store is a miss. A store that does not deliver what it holds is an error."""
    for pack in union.rejected:
        if isinstance(pack.error, UnreadablePackError):
            raise pack.error
    found = f"{union.ignored} unusable packs" if union.ignored else "nothing"
    return LoadPlan(OperationStatus.DOES_NOT_EXIST, f"the store has {found} for this pod", local, union=union)


def _restore(
    repository: Repository,
    planned: LoadPlan,
    config: Config,
    deadline: Deadline,
    patience: Deadline,
    report: LoadReport,
) -> LoadReport:
    union = planned.union
    assert union is not None  # there is something to restore
    with ExitStack() as locks:
        # In one order everywhere, so that two processes never wait for each other.
        for path in sorted({root.outermost for root in planned.roots}):
            if config.locks:
                locks.enter_context(locked(path, patience, may_be_shared=config.shared_roots))
        # Another rank may have restored, or a compiler begun, while this one waited.
        planned = _plan_with(union, planned.local.refreshed(config))
        if planned.status is not OperationStatus.SUCCESS:
            return _report_of(planned, report)
        restored = restore(repository, union, planned.names, planned.roots, deadline)
        known = {pack.id for pack in union.rejected}
        damaged = [pack for pack in restored.union.rejected if pack.id not in known]
        _log_ignored(damaged)
        if not config.read_only:
            own = {pack.id for pack in union.packs if pack.index.environment_id == report.environment_id}
            repository.suspect(pack for pack in damaged if pack.id in own)
    if not restored.units:  # every pack turned out to be damaged, or other processes were faster
        planned = _plan_with(restored.union, planned.local.refreshed(config))
        if planned.status is OperationStatus.SUCCESS:
            reason = "other processes changed the caches while this load ran; nothing was restored"
            planned = replace(planned, status=OperationStatus.SKIPPED, reason=reason)
        return _report_of(planned, report)
    return replace(
        report,
        status=OperationStatus.SUCCESS,
        reason=f"restored to {named(_holding(restored.names, planned.roots))}",
        rejected_packs=reasons(restored.union),
        ignored_packs=restored.union.ignored,
        already_present=planned.already_present,
        restored=tuple(restored.names),
        units=restored.units,
        files=restored.files,
        bytes=restored.bytes,
        packed_bytes=restored.packed_bytes,
        packs=tuple(sorted(restored.packs)),
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
        already_present=planned.already_present,
        rejected_packs=reasons(planned.union) if planned.union is not None else (),
        ignored_packs=planned.union.ignored if planned.union is not None else 0,
    )


def _holding(names: Iterable[str], roots: Iterable[CacheRoot]) -> list[CacheRoot]:
    """Those roots that some units belong to."""
    caches = {name.partition("/")[0] for name in names}
    return [root for root in roots if root.name in caches]


def _is_complete(local: LocalRoots) -> bool:
    return local.accepts_artifacts and not local.used


def _nothing_open(local: LocalRoots) -> str:
    """Why a load can add to no cache."""
    if local.used:
        return _in_use(local.used)
    if local.open:
        return f"{named(local.open)} is restored only together with compile artifacts, and B10_CACHES leaves those out"
    return "B10_CACHES leaves no cache that can be used where it is"


def _in_use(roots: Sequence[CacheRoot]) -> str:
    return f"{named(roots)} already {'holds' if len(roots) == 1 else 'hold'} compile artifacts"


def _log_ignored(rejected: Sequence[Rejected], unread: int = 0) -> None:
    """Log which packs a load ignores: a line for each, or one line if they are many."""
    for line in newer_in(rejected):
        logger.info("%s; left alone", line)
    for line in errors_in(rejected, unread):
        logger.error("%s. A load ignores it; the next save that has its units publishes them again", line)
