"""This pod: its key, its caches, its store, and what a load and a save would do now."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ..adapters import CacheRoot, cache_roots
from ..concurrency.deadline import Deadline, run_within
from ..config import Config, read_deadline
from ..config import store as store_location
from ..config.per_pod import per_pod_variables
from ..environment import Environment, detect
from ..errors import CacheError, LocalCacheError
from ..local import snapshot
from ..local.files import LocalUnit
from ..local.presence import missing
from ..pack import PackUnit
from ..repository.catalogue import Amount, Catalogue
from ..repository.repository import Content
from ..repository.union import Union
from ..status import OperationStatus
from ..version import __version__
from .bounded import Observer, open_store


@dataclass(frozen=True)
class LocalCache:
    """One cache of this pod, and what the store holds for it. Counts of the store are None if it could not be read."""

    name: str
    title: str
    path: str
    exists: bool
    units: int
    """Finished ones: what a save would look at."""
    files: int
    bytes: int
    unfinished: int
    """Units that a compiler is still writing, or never finished."""
    in_use: bool
    """Whether it holds artifacts, so that a load without merging leaves it alone."""
    error: str
    """Why it could not be looked through; empty if it could."""
    stored: Amount | None = None
    """What the store holds for it."""
    lacks: Amount | None = None
    """What of that is not here."""


@dataclass(frozen=True)
class Forecast:
    """What an operation would return now."""

    status: OperationStatus
    reason: str
    units: int = 0
    files: int = 0
    bytes: int = 0


@dataclass(frozen=True)
class PodInfo:
    """What there is to know of this pod."""

    version: str
    store: str
    store_from: str
    """What decided where the store is."""
    store_error: str
    """Why the store could not be read; empty if it could."""
    namespace: str
    environment_id: str
    parts: Mapping[str, str]
    """What is compared: artifacts are shared by pods in which all of it is equal."""
    recorded: Mapping[str, str]
    """What is written beside the artifacts and not compared."""
    caches: tuple[LocalCache, ...]
    packs: int | None
    """Usable packs for this pod, None if the store could not be read."""
    load: Forecast
    save: Forecast
    per_pod_variables: tuple[str, ...]
    """Variables in this process's environment that enter vLLM's hash, often with another value in each pod."""


@dataclass(frozen=True)
class _Local:
    """What was found without the store."""

    config: Config
    environment: Environment
    roots: tuple[CacheRoot, ...]
    caches: tuple[LocalCache, ...]
    units: tuple[LocalUnit, ...]


def inspect_pod(
    *,
    namespace: str | None = None,
    store: str | os.PathLike[str] | None = None,
    deadline_s: float | None = None,
    observe: Observer | None = None,
) -> PodInfo:
    """Look at this pod and its store; changes nothing. A store that cannot be read is told in the result.

    Raises CacheError if the pod itself cannot be looked at.
    """
    deadline = Deadline("info", read_deadline(deadline_s))
    if observe is not None:
        observe(deadline)

    def look_around() -> _Local:
        return _look_around(Config.from_environment(namespace=namespace, store=store), deadline)

    local = run_within(deadline, look_around)
    union: Union | None = None
    recalled: Mapping[str, set[Content]] = {}
    error = ""
    try:
        union, recalled = run_within(deadline, lambda: _read_store(local, deadline))
    except CacheError as failure:
        error = str(failure)
    caches = local.caches if union is None else tuple(_with_store(cache, local, union) for cache in local.caches)
    return PodInfo(
        version=__version__,
        store=str(local.config.store),
        store_from=store_location.origin(local.config.reader, store),
        store_error=error,
        namespace=local.config.namespace,
        environment_id=local.environment.id,
        parts=local.environment.parts,
        recorded=local.environment.recorded,
        caches=caches,
        packs=None if union is None else len(union.packs),
        load=_load_forecast(local, union, error),
        save=_save_forecast(local, union, recalled, error),
        per_pod_variables=tuple(per_pod_variables(os.environ)),
    )


def _look_around(config: Config, deadline: Deadline) -> _Local:
    roots = tuple(cache_roots(config))
    caches: list[LocalCache] = []
    units: list[LocalUnit] = []
    for root in roots:
        cache, found = look_through(root, deadline)
        caches.append(cache)
        units += found
    return _Local(config, detect(), roots, tuple(caches), tuple(units))


def look_through(root: CacheRoot, deadline: Deadline) -> tuple[LocalCache, Sequence[LocalUnit]]:
    """What a cache holds, and its finished units."""
    found, in_use, error = snapshot.Snapshot((), 0), False, ""
    try:
        found = snapshot.take([root], deadline)
        in_use = snapshot.has_artifacts(root)
    except LocalCacheError as failure:
        error = str(failure)
    cache = LocalCache(
        name=root.name,
        title=root.adapter.title,
        path=str(root.path),
        exists=os.path.isdir(root.path),
        units=len(found.units),
        files=sum(len(unit.files) for unit in found.units),
        bytes=sum(unit.size for unit in found.units),
        unfinished=found.incomplete,
        in_use=in_use,
        error=error,
    )
    return cache, found.units


def _read_store(local: _Local, deadline: Deadline) -> tuple[Union, Mapping[str, set[Content]]]:
    """What the store holds for this pod, and what was recalled."""
    config = local.config
    with open_store(config, deadline) as store:
        repository = Catalogue(store, config, deadline).repository(config.namespace, local.environment.id)
        union = repository.union()
        return union, repository.recalled_content(union)


def _with_store(cache: LocalCache, local: _Local, union: Union) -> LocalCache:
    roots = [root for root in local.roots if root.name == cache.name]
    return replace(
        cache,
        stored=Amount.of(unit for name, (_pack, unit) in union.units.items() if name.startswith(f"{cache.name}/")),
        lacks=_amount(union, missing(union.units, roots)),
    )


def _amount(union: Union, names: Sequence[str]) -> Amount:
    return Amount.of(union.units[name][1] for name in names)


def _load_forecast(local: _Local, union: Union | None, error: str) -> Forecast:
    """What ``loading`` would come to."""
    may_be_added_to = {
        cache.name for cache in local.caches if not cache.error and (local.config.merge or not cache.in_use)
    }
    opened = [root for root in local.roots if root.name in may_be_added_to]
    if all(root.adapter.accompanies for root in opened):
        return Forecast(OperationStatus.SKIPPED, "this pod's caches hold artifacts already (--merge adds to them)")
    if union is None:
        return Forecast(OperationStatus.ERROR, error)
    if not union.units:
        return Forecast(OperationStatus.DOES_NOT_EXIST, "the store has nothing for this pod (`explain` says why)")
    lacking = _amount(union, missing(union.units, opened))
    if not lacking.units:
        return Forecast(OperationStatus.SKIPPED, "all that the store holds for the caches it may touch is in place")
    return Forecast(OperationStatus.SUCCESS, "would restore", lacking.units, lacking.files, lacking.bytes)


def _save_forecast(local: _Local, union: Union | None, recalled: Mapping[str, set[Content]], error: str) -> Forecast:
    """What ``saving`` would come to, as far as indexes tell: a save verifies every byte of the store's packs."""
    if local.config.read_only:
        return Forecast(OperationStatus.SKIPPED, "B10_READ_ONLY=1: this pod publishes nothing")
    if not snapshot.hold_artifacts(local.units):
        return Forecast(OperationStatus.SKIPPED, "there are no finished compile artifacts")
    if union is None:
        return Forecast(OperationStatus.ERROR, error)
    stored: dict[str, PackUnit] = {name: unit for name, (_pack, unit) in union.units.items()}
    new = snapshot.lacking(local.units, stored, union.settled())
    new = [unit for unit in new if unit.name not in recalled or snapshot.content(unit) not in recalled[unit.name]]
    if not new:
        return Forecast(
            OperationStatus.SKIPPED, f"the store already holds all {len(local.units)} units, or they were recalled"
        )
    files, size = sum(len(unit.files) for unit in new), sum(unit.size for unit in new)
    return Forecast(OperationStatus.SUCCESS, "would publish", len(new), files, size)
