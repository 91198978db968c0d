"""Forecasts of a load and a save for ``info``, ``explain`` and ``doctor``. They are the operations' own plans."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

from ..adapters import CacheRoot
from ..concurrency.deadline import Deadline
from ..config import Config
from ..environment import Environment
from ..errors import CacheError
from ..local import snapshot
from ..local.snapshot import Snapshot
from ..operations import load_plan, save_plan
from ..operations.load_plan import LoadPlan, LocalRoots
from ..operations.save_plan import Stored
from ..pack import PackUnit
from ..repository.catalogue import Amount, Catalogue
from ..repository.results import CollectedResults
from ..repository.siblings import describe, read_siblings
from ..repository.union import Union
from ..status import OperationStatus
from ..stores.base import ReadStore


@dataclass(frozen=True)
class Forecast:
    """The result that an operation would return now."""

    status: OperationStatus
    reason: str
    units: int = 0
    files: int = 0
    bytes: int = 0
    partial: str = ""
    """For a load: what this pod would get, and why not more; empty if it would get everything, or nothing."""


def read_stored(store: ReadStore, config: Config, environment: Environment, deadline: Deadline) -> Stored:
    """Read what a store holds for a pod of some environment. Raises StoreError."""
    catalogue = Catalogue(store, config, deadline)
    repository = catalogue.repository(config.namespace, environment.id)
    union = repository.union()
    recalled = repository.recalled_content(union)
    union = repository.with_note(replace(union, withheld=frozenset(recalled)))
    collected = CollectedResults(repository, union)
    results = {name: collected.of(name) for name in union.units}
    read_only = store.facts().read_only
    siblings = None
    if config.siblings and not any(name.partition("/")[0] in config.caches for name in union.units):
        siblings = read_siblings(catalogue, config.namespace, environment)
    return Stored(union, lambda: recalled, results.get, lambda: read_only, siblings)


def units_lacking(found: Snapshot, stored: Stored) -> list[str]:
    """Names of units in this pod's caches that a new replica would not find in the store, and would compile."""
    there = stored.union if stored.siblings is None else stored.siblings
    known = {name: unit for name, (_pack, unit) in there.units.items()}
    lacking = snapshot.lacking(found.units, known, ())
    return sorted(unit.name for unit in lacking if unit.root.adapter.is_reported)


def of_load(pod: Environment, local: LocalRoots, stored: Stored | CacheError) -> Forecast:
    """Forecast a load. ``stored`` is the store's content, or the error that reading it raised."""
    if unidentified := _unidentified(pod):
        return unidentified
    return _of_plan(stored, partial(load_plan.plan, local))


def units_to_restore(local: LocalRoots, stored: Stored | CacheError) -> list[PackUnit]:
    """The units that a load would restore now; none if it would fail."""
    try:
        planned = load_plan.plan(local, lambda: _or_raise(stored).union)
    except CacheError:
        return []
    return [planned.union.units[name][1] for name in planned.names] if planned.union is not None else []


def of_load_to_empty_caches(caches: Collection[str], stored: Stored | CacheError) -> Forecast:
    """Forecast a load of another pod whose caches, named by ``caches``, are empty."""
    return _of_plan(stored, lambda read_union: load_plan.plan_for_empty_caches(caches, read_union()))


def of_save(
    config: Config, pod: Environment, roots: Sequence[CacheRoot], found: Snapshot, stored: Stored | CacheError
) -> Forecast:
    """Forecast a save. It knows only the indexes of packs; the save itself verifies every byte of them."""
    if not config.read_only and (unidentified := _unidentified(pod)):
        return unidentified
    try:
        planned = save_plan.plan(config, roots, found, lambda: _or_raise(stored))
    except CacheError as error:
        return Forecast(OperationStatus.ERROR, str(error))
    files, size = sum(len(unit.files) for unit in planned.units), sum(unit.size for unit in planned.units)
    return Forecast(planned.status, planned.reason, len(planned.units), files, size)


def _of_plan(stored: Stored | CacheError, plan: Callable[[Callable[[], Union]], LoadPlan]) -> Forecast:
    """Forecast a load from its plan. It restores units of siblings if the pod's own environment has nothing."""
    try:
        planned = plan(lambda: _or_raise(stored).union)
    except CacheError as error:
        return Forecast(OperationStatus.ERROR, str(error))
    siblings = stored.siblings if isinstance(stored, Stored) else None
    if planned.status is OperationStatus.DOES_NOT_EXIST and siblings is not None:
        with suppress(CacheError):
            instead = plan(lambda: siblings)
            if instead.status is OperationStatus.SUCCESS:
                found = describe(siblings, instead.names)
                planned = replace(instead, partial=f"no environment equals this pod's; {found} would be restored")
    return _forecast(planned)


def _forecast(planned: LoadPlan) -> Forecast:
    units = planned.union.units if planned.union is not None else {}
    amount = Amount.of(units[name][1] for name in planned.names)
    return Forecast(planned.status, planned.reason, amount.units, amount.files, amount.bytes, planned.partial)


def _unidentified(pod: Environment) -> Forecast | None:
    """The forecast for a pod whose device could not be identified; None if it was."""
    errors = [remark for remark in pod.remarks if remark.level >= logging.ERROR]
    return Forecast(OperationStatus.ERROR, str(errors[0])) if errors else None


def _or_raise(stored: Stored | CacheError) -> Stored:
    if isinstance(stored, CacheError):
        raise stored
    return stored
