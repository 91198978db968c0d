"""Decides what a load restores. The load acts on the plan; ``info``, ``explain`` and ``doctor`` show it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

from ..adapters import CacheRoot, all_adapters, find_adapter, named
from ..config import CacheSelection, Config
from ..errors import CacheError, ConfigurationError, LocalCacheError, UnreadablePackError, count
from ..local import snapshot
from ..local.ownership import user_to_restore_as
from ..local.placing import Restored, why_unfit
from ..local.presence import missing
from ..repository.union import Union
from ..status import OperationStatus
from . import partial


@dataclass(frozen=True)
class LocalRoots:
    """Cache roots, grouped by how a load may use them."""

    open: Sequence[CacheRoot]
    """Roots that it may add to: those without artifacts, or all if it merges."""
    used: Sequence[CacheRoot]
    """Roots that already hold artifacts."""
    failed: Mapping[str, CacheError]
    """Why other caches cannot be used, by name."""
    selected: CacheSelection = field(default_factory=CacheSelection)
    """The caches that B10_CACHES names."""

    def only(self, names: set[str]) -> LocalRoots:
        """The roots with some names."""
        return replace(
            self,
            open=[root for root in self.open if root.name in names],
            used=[root for root in self.used if root.name in names],
            failed={name: error for name, error in self.failed.items() if name in names},
        )

    def refreshed(self, config: Config) -> LocalRoots:
        """The same roots, after a new scan of the open ones."""
        now = survey(self.open, config)
        return replace(self, open=now.open, used=[*self.used, *now.used], failed={**self.failed, **now.failed})

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
    wanted: Collection[str] = ()
    """Names of the caches that the pod would restore to, also those that cannot be used."""
    partial: str = ""
    """What this pod gets, and why not more; empty if it gets everything."""

    @property
    def roots(self) -> list[CacheRoot]:
        """The caches that something is restored to."""
        return holding(self.names, self.local.open)


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
    return LocalRoots(open_roots, used, failed, config.caches)


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
    return plan_with(read_union(), local)


def plan_for_empty_caches(caches: Collection[str], union: Union) -> LoadPlan:
    """Decide what a load of another pod restores, if the caches with these names are empty there.

    Raises:
        CacheError: The load would fail with this error.
    """
    nowhere = LocalRoots((), (), {})
    if not union.units:
        return _plan_without_units(nowhere, union)
    auxiliary = {adapter.root for adapter in all_adapters() if adapter.accompanies}
    names = [name for name in union.units if name.partition("/")[0] in caches]
    if names and not auxiliary.issuperset(caches):
        return _with_partial(LoadPlan(OperationStatus.SUCCESS, "would restore", nowhere, names, 0, union, caches))
    return LoadPlan(
        OperationStatus.DOES_NOT_EXIST, "the store has only caches that the pod leaves out", nowhere, union=union
    )


def plan_with(union: Union, local: LocalRoots) -> LoadPlan:
    """Decide what to restore from a store that was read."""
    if not union.units:
        return _plan_without_units(local, union)
    wanted = {root.name for root in local.open} | local.failed.keys()
    selected = {root.name for root in local.used} | wanted
    stored = {name.partition("/")[0] for name in union.units}
    if not selected & stored:
        reason, _advice = why_only_others(stored, local.selected)
        return LoadPlan(OperationStatus.DOES_NOT_EXIST, reason, local, union=union)
    local = local.only(stored)
    usable = {root.name for root in (*local.open, *local.used)}
    absent = missing(union.units, [*local.open, *local.used])
    present = sum(name.partition("/")[0] in usable for name in union.units) - len(absent)
    is_open = {root.name for root in local.open if local.accepts_artifacts}
    names = [name for name in absent if name.partition("/")[0] in is_open]
    if names:
        return _with_partial(LoadPlan(OperationStatus.SUCCESS, "would restore", local, names, present, union, wanted))
    _raise_if_nothing_is_usable(local)
    reason = "all that the store holds is already in place" if _is_complete(local) else _nothing_open(local)
    return _with_partial(LoadPlan(OperationStatus.SKIPPED, reason, local, (), present, union, wanted))


def _with_partial(planned: LoadPlan) -> LoadPlan:
    """The same plan, with the reason why this pod would get only a part of what was saved for it."""
    union = planned.union
    assert union is not None  # the plan depends on it
    suspects = partial.suspect_packs(union, planned.names)
    sure = planned.already_present + len(planned.names) - sum(len(cause.units or ()) for cause in suspects)
    missing_from_store = partial.missing_packs(union, planned.wanted)
    causes = [*missing_from_store, *suspects, *partial.left_out_caches(planned.local.failed, union)]
    return replace(planned, partial=partial.in_words(sure, causes))


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
    found = count(union.ignored, "unusable pack") if union.ignored else "nothing"
    return LoadPlan(OperationStatus.DOES_NOT_EXIST, f"the store has {found} for this pod", local, union=union)


def partial_restore(planned: LoadPlan, restored: Restored) -> str:
    """Why a restore gives this pod only a part of what was saved for it."""
    union = restored.union
    causes = [*partial.missing_packs(union, planned.wanted), *partial.left_out_caches(planned.local.failed, union)]
    causes.append(partial.Cause(why_unfit(restored.unfit), restored.unfit.keys()))
    if restored.failures:
        lost = set(planned.names).intersection(union.units).difference(restored.names, restored.unfit)
        causes.append(partial.Cause(str(restored.failures[0]), lost))
    return partial.in_words(planned.already_present + restored.units, causes)


def why_only_others(stored: Iterable[str], selected: CacheSelection) -> tuple[str, str]:
    """Why a pod takes none of the caches that a store holds; and what to do.

    Args:
        stored: Names of the caches, as packs have them.
        selected: The caches that B10_CACHES names.
    """
    found = [adapter for name in sorted(stored) if (adapter := find_adapter(name)) is not None]
    if placeless := [adapter for adapter in found if adapter.cache in selected]:
        names = ", ".join(adapter.root for adapter in placeless)
        variables = dict.fromkeys(adapter.variables[-1].name for adapter in placeless if adapter.variables)
        return f"the store has only caches that have no place on this pod: {names}", f"set {', '.join(variables)}"
    return (
        f"the store has only caches that B10_CACHES leaves out: {', '.join(sorted(stored))}",
        "name them in B10_CACHES, or unset it",
    )


def holding(names: Iterable[str], roots: Iterable[CacheRoot]) -> list[CacheRoot]:
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
        return f"{named(local.open)} is restored only together with artifacts, and this pod takes none from the store"
    return "B10_CACHES leaves no cache that can be used where it is"


def _in_use(roots: Sequence[CacheRoot]) -> str:
    return f"{named(roots)} already {'holds' if len(roots) == 1 else 'hold'} compile artifacts"
