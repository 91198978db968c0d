"""Forecasts of a load and a save for ``info``, ``explain`` and ``doctor``. They are the operations' own plans."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from ..adapters import CacheRoot
from ..config import Config
from ..environment import Environment
from ..errors import CacheError
from ..local.snapshot import Snapshot
from ..operations import load as loading
from ..operations import save_plan
from ..operations.load import LoadPlan, LocalRoots
from ..operations.save_plan import Stored
from ..repository.catalogue import Amount
from ..repository.repository import ReadRepository
from ..repository.results import collected_results
from ..repository.union import Union
from ..status import OperationStatus
from ..stores.base import StoreFacts


@dataclass(frozen=True)
class Forecast:
    """The result that an operation would return now."""

    status: OperationStatus
    reason: str
    units: int = 0
    files: int = 0
    bytes: int = 0


def read_stored(repository: ReadRepository, facts: StoreFacts) -> Stored:
    """Read what a store holds for this pod. Raises StoreError."""
    union = repository.union()
    recalled = repository.recalled_content(union)
    results = {name: collected_results(repository, union, name) for name in union.units}
    return Stored(union, lambda: recalled, results.get, lambda: facts.read_only)


def of_load(pod: Environment, local: LocalRoots, stored: Stored | CacheError) -> Forecast:
    """Forecast a load. ``stored`` is the store's content, or the error that reading it raised."""
    if unidentified := _unidentified(pod):
        return unidentified

    def read_union() -> Union:
        return _or_raise(stored).union

    try:
        planned = loading.plan(local, read_union)
    except CacheError as error:
        return Forecast(OperationStatus.ERROR, str(error))
    return _forecast(planned)


def of_load_to_empty_caches(caches: Collection[str], stored: Stored | CacheError) -> Forecast:
    """Forecast a load of another pod whose caches, named by ``caches``, are empty."""
    try:
        planned = loading.plan_for_empty_caches(caches, _or_raise(stored).union)
    except CacheError as error:
        return Forecast(OperationStatus.ERROR, str(error))
    return _forecast(planned)


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


def _forecast(planned: LoadPlan) -> Forecast:
    units = planned.union.units if planned.union is not None else {}
    amount = Amount.of(units[name][1] for name in planned.names)
    return Forecast(planned.status, planned.reason, amount.units, amount.files, amount.bytes)


def _unidentified(pod: Environment) -> Forecast | None:
    """The forecast for a pod whose device could not be identified; None if it was."""
    errors = [remark for remark in pod.remarks if remark.level >= logging.ERROR]
    return Forecast(OperationStatus.ERROR, str(errors[0])) if errors else None


def _or_raise(stored: Stored | CacheError) -> Stored:
    if isinstance(stored, CacheError):
        raise stored
    return stored
