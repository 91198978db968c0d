"""This pod: its key, its caches, its store, and what a load and a save would do now."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ..adapters import CacheRoot, all_adapters, locate_caches
from ..concurrency.deadline import Deadline, run_within
from ..config import Config, read_deadline
from ..config import store as store_location
from ..config.per_pod import per_pod_variables
from ..environment import Environment, detect
from ..errors import CacheError, ConfigurationError, LocalCacheError
from ..local import snapshot
from ..local.presence import missing
from ..local.snapshot import Snapshot
from ..operations import load as loading
from ..operations.load import LocalRoots
from ..operations.save import Stored
from ..repository.catalogue import Amount, Catalogue
from ..repository.union import Union
from ..version import __version__
from . import forecast
from .bounded import Observer, open_store
from .forecast import Forecast
from .plugins import Addition, list_additions


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
    unrecognised: int
    """Files and folders that no compiler writes there: they are neither saved nor removed."""
    in_use: bool
    """Whether it holds artifacts, so that a load without merging leaves it alone."""
    error: str
    """Why it could not be looked through; empty if it could."""
    stored: Amount | None = None
    """What the store holds for it."""
    lacks: Amount | None = None
    """What of that is not here."""


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
    remarks: tuple[str, ...]
    """One line for each reason why the key may not be right."""
    caches: tuple[LocalCache, ...]
    packs: int | None
    """Usable packs for this pod, None if the store could not be read."""
    load: Forecast
    save: Forecast
    per_pod_variables: tuple[str, ...]
    """Variables in this process's environment that enter vLLM's hash, often with another value in each pod."""
    additions: tuple[Addition, ...] = ()
    """Caches and stores that other packages add."""


@dataclass(frozen=True)
class LocalState:
    """What was found without the store."""

    config: Config
    environment: Environment
    roots: tuple[CacheRoot, ...]
    caches: tuple[LocalCache, ...]
    found: Snapshot
    survey: LocalRoots
    refused: Mapping[str, ConfigurationError]
    """Why other caches are not used where they are, by name."""


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

    def work() -> LocalState:
        return look_around(Config.from_environment(namespace=namespace, store=store), deadline)

    local = run_within(deadline, work)
    stored = read_store(local, deadline)
    union = stored.union if isinstance(stored, Stored) else None
    caches = local.caches if union is None else tuple(_with_store(cache, local, union) for cache in local.caches)
    return PodInfo(
        version=__version__,
        store=str(local.config.store),
        store_from=store_location.origin(local.config.reader, store),
        store_error=str(stored) if isinstance(stored, CacheError) else "",
        namespace=local.config.namespace,
        environment_id=local.environment.id,
        parts=local.environment.parts,
        recorded=local.environment.recorded,
        remarks=tuple(map(str, local.environment.remarks)),
        caches=(*caches, *(_refused_cache(name, error) for name, error in local.refused.items())),
        packs=None if union is None else len(union.packs),
        load=forecast.of_load(local.environment, local.survey, stored),
        save=forecast.of_save(local.config, local.environment, local.roots, local.found, stored),
        per_pod_variables=tuple(per_pod_variables(os.environ)),
        additions=list_additions(),
    )


def look_around(config: Config, deadline: Deadline) -> LocalState:
    """Look at this pod's caches. Raises ConfigurationError."""
    located = locate_caches(config)
    roots = tuple(located.roots)
    survey = loading.survey(roots, config, located.refused)
    found = snapshot.take(roots, deadline, located.refused)
    caches = tuple(_local_cache(root, survey, found) for root in roots)
    return LocalState(config, detect(), roots, caches, found, survey, located.refused)


def _refused_cache(name: str, error: ConfigurationError) -> LocalCache:
    [title] = [adapter.title for adapter in all_adapters() if adapter.name == name]
    return LocalCache(name, title, error.value, False, 0, 0, 0, 0, 0, in_use=False, error=str(error))


def _local_cache(root: CacheRoot, survey: LocalRoots, found: Snapshot) -> LocalCache:
    units = [unit for unit in found.units if unit.root is root]
    return LocalCache(
        name=root.name,
        title=root.adapter.title,
        path=str(root.path),
        exists=os.path.isdir(root.path),
        units=len(units),
        files=sum(len(unit.files) for unit in units),
        bytes=sum(unit.size for unit in units),
        unfinished=found.unfinished.get(root.name, 0),
        unrecognised=found.unrecognised.get(root.name, 0),
        in_use=_is_in_use(root),
        error=str(survey.failed.get(root.name) or found.failed.get(root.name) or ""),
    )


def _is_in_use(root: CacheRoot) -> bool:
    try:
        return snapshot.has_artifacts(root)
    except LocalCacheError:  # the survey has the reason
        return False


def read_store(local: LocalState, deadline: Deadline) -> Stored | CacheError:
    """What the store holds for this pod, or why it cannot be read."""

    def read() -> Stored:
        with open_store(local.config, deadline) as store:
            catalogue = Catalogue(store, local.config, deadline)
            return forecast.read_stored(catalogue.repository(local.config.namespace, local.environment.id))

    try:
        return run_within(deadline, read)
    except CacheError as error:
        return error


def _with_store(cache: LocalCache, local: LocalState, union: Union) -> LocalCache:
    roots = [root for root in local.roots if root.name == cache.name]
    return replace(
        cache,
        stored=Amount.of(unit for name, (_pack, unit) in union.units.items() if name.startswith(f"{cache.name}/")),
        lacks=_amount(union, missing(union.units, roots)),
    )


def _amount(union: Union, names: Sequence[str]) -> Amount:
    return Amount.of(union.units[name][1] for name in names)
