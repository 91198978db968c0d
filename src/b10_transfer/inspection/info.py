"""Describes this pod: its key, its caches, its store, and what a load and a save would do now."""

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
from ..operations import load_plan
from ..operations.load_plan import LocalRoots
from ..operations.save_plan import Stored
from ..repository.catalogue import Amount
from ..repository.union import Union
from ..version import __version__
from . import forecast
from .bounded import Observer, open_store
from .forecast import Forecast
from .plugins import Addition, list_additions


@dataclass(frozen=True)
class LocalCache:
    """One cache of this pod, and what the store holds for it."""

    name: str
    title: str
    path: str
    exists: bool
    units: int
    """Number of complete units."""
    files: int
    bytes: int
    unfinished: int
    """Number of incomplete units: a compiler is writing them, or was stopped."""
    unrecognised: int
    """Number of files and folders that no compiler writes there. They are neither saved nor removed."""
    in_use: bool
    """Whether it has artifacts, so that a load without merging leaves it alone."""
    error: str
    """Why it could not be read; empty if it could."""
    stored: Amount | None = None
    """What the store holds for it; None if the store could not be read."""
    lacks: Amount | None = None
    """The part of ``stored`` that is missing here; None if the store could not be read."""


@dataclass(frozen=True)
class PodInfo:
    """Everything that ``info`` shows."""

    version: str
    store: str
    store_from: str
    """The setting that chose the store."""
    store_error: str
    """Why the store could not be read; empty if it could."""
    namespace: str
    environment_id: str
    parts: Mapping[str, str]
    """The environment key. Pods share artifacts if all parts are equal."""
    recorded: Mapping[str, str]
    """Facts that are stored with packs and not compared."""
    remarks: tuple[str, ...]
    """One line for each reason why the key may not be right."""
    caches: tuple[LocalCache, ...]
    packs: int | None
    """Number of usable packs for this pod; None if the store could not be read."""
    load: Forecast
    save: Forecast
    per_pod_variables: tuple[str, ...]
    """Variables of this process that vLLM hashes and whose values often differ between pods."""
    additions: tuple[Addition, ...] = ()
    """Caches and stores that other packages add."""


@dataclass(frozen=True)
class LocalState:
    """What is known of the pod without the store."""

    config: Config
    environment: Environment
    roots: tuple[CacheRoot, ...]
    caches: tuple[LocalCache, ...]
    found: Snapshot
    survey: LocalRoots
    refused: Mapping[str, ConfigurationError]
    """Why other caches are refused, by name."""


def inspect_pod(
    *,
    namespace: str | None = None,
    store: str | os.PathLike[str] | None = None,
    deadline_s: float | None = None,
    observe: Observer | None = None,
) -> PodInfo:
    """Describe this pod and its store. Changes nothing.

    Args:
        namespace: Overrides ``B10_NAMESPACE``.
        store: Overrides ``B10_STORE``.
        deadline_s: Overrides ``B10_DEADLINE_SECONDS``.
        observe: Receives the deadline when the work begins.

    Returns:
        The description. ``store_error`` says why the store could not be read.

    Raises:
        CacheError: A setting is wrong, or the pod's own caches could not be read in time.
    """
    deadline = Deadline("info", read_deadline(deadline_s))
    if observe is not None:
        observe(deadline)

    def work() -> LocalState:
        return survey_pod(Config.from_environment(namespace=namespace, store=store), deadline)

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


def survey_pod(config: Config, deadline: Deadline) -> LocalState:
    """Read this pod's caches. Raises ConfigurationError."""
    located = locate_caches(config)
    roots = tuple(located.roots)
    survey = load_plan.survey(roots, config, located.refused)
    found = snapshot.take(roots, deadline, located.refused)
    caches = tuple(_local_cache(root, survey, found) for root in roots)
    return LocalState(config, detect(), roots, caches, found, survey, located.refused)


def _refused_cache(name: str, error: ConfigurationError) -> LocalCache:
    [title] = [adapter.title for adapter in all_adapters() if adapter.root == name]
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
    except LocalCacheError:  # the survey reports the reason
        return False


def read_store(local: LocalState, deadline: Deadline) -> Stored | CacheError:
    """Read what the store holds for this pod; returns the error if it cannot be read."""

    def read() -> Stored:
        with open_store(local.config, deadline) as store:
            return forecast.read_stored(store, local.config, local.environment, deadline)

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
