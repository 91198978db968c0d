"""Why a load would find something for this pod, or would not: its key against what the store holds, part by part."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..adapters import locate_caches
from ..concurrency.deadline import Deadline
from ..config import Config
from ..config.per_pod import per_pod_variables
from ..environment import Environment, detect
from ..errors import (
    CorruptPackError,
    PackError,
    PackTooLargeError,
    UnreadablePackError,
    UnsupportedPackError,
    UntrustedPackError,
)
from ..operations import load as loading
from ..repository.catalogue import Amount, Catalogue, collect_errors
from ..repository.ignored import reasons
from ..repository.union import Union
from ..status import OperationStatus
from . import forecast
from .bounded import Observer, bounded, open_store
from .forecast import Forecast

_NEAREST = 3
"""Environments that are shown: an explanation fits one screen."""


@dataclass(frozen=True)
class Difference:
    """One part of the key in which the store and this pod differ."""

    part: str
    store: str
    pod: str
    text: str
    """The difference in words, for people."""


@dataclass(frozen=True)
class Neighbour:
    """An environment of the store that is not this pod's."""

    namespace: str
    id: str
    packs: int
    newest_s: float
    """When its latest pack appeared, in seconds since 1970 on the store's clock."""
    differences: tuple[Difference, ...] | None
    """None if nothing in the store says what its parts are."""


@dataclass(frozen=True)
class Explanation:
    """What a load would find now, and why."""

    would_hit: bool
    verdict: str
    """One sentence for a person."""
    advice: str
    """What to do about it; empty if nothing is to be done."""
    store: str
    namespace: str
    environment_id: str
    parts: Mapping[str, str]
    remarks: tuple[str, ...]
    """One line for each reason why the key may not be right."""
    packs: int
    """Usable packs for this pod; the three below are what they hold together."""
    units: int
    files: int
    bytes: int
    rejected_packs: tuple[str, ...]
    """Why packs of this pod's environment are ignored: a line for each if they are few, else one line."""
    set_aside_packs: tuple[str, ...]
    """Ids of those that a saver found damaged before."""
    recalled_packs: tuple[str, ...]
    """Ids of those that an operator recalled."""
    nearest: tuple[Neighbour, ...]
    """Other environments, fewest differences first; only if there is nothing for this pod."""
    more: int
    """How many environments are further away than these."""
    elsewhere: tuple[str, ...]
    """Other namespaces that hold packs for this pod's environment."""
    errors: tuple[str, ...]
    """One line for each other environment or namespace that could not be read."""
    load: Forecast
    """What a load would return now."""
    local_caches: tuple[str, ...]
    """Caches of this pod that hold artifacts already, so that a load without merging leaves them alone."""
    refused_caches: tuple[str, ...]
    """One line for each cache of this pod that a load leaves out: its path and why."""
    per_pod_variables: tuple[str, ...]
    """Variables in this process's environment that enter vLLM's hash, often with another value in each pod."""


def explain(
    *,
    namespace: str | None = None,
    store: str | os.PathLike[str] | None = None,
    deadline_s: float | None = None,
    observe: Observer | None = None,
) -> Explanation:
    """Explain what a load would do now. Changes nothing. Raises CacheError."""

    def work(deadline: Deadline) -> Explanation:
        return _explain(Config.from_environment(namespace=namespace, store=store), deadline)

    return bounded("explain", work, deadline_s=deadline_s, observe=observe)


def _explain(config: Config, deadline: Deadline) -> Explanation:
    with open_store(config, deadline) as store:
        pod = detect()
        caches = locate_caches(config)
        local = loading.survey(caches.roots, config, caches.refused)
        catalogue = Catalogue(store, config, deadline)
        repository = catalogue.repository(config.namespace, pod.id)
        stored = forecast.read_stored(repository)
        union = stored.union
        listed = repository.look()
        recalled, set_aside = listed.recalled, listed.set_aside - listed.recalled
        errors: list[str] = []
        selected = {root.name for root in caches.roots}
        usable = [unit for name, (_pack, unit) in union.units.items() if name.partition("/")[0] in selected]
        nearest, more = ([], 0) if usable else _nearest(catalogue, config.namespace, pod, errors)
        elsewhere = []
        for name in catalogue.namespaces():
            with collect_errors(errors):
                if name != config.namespace and _live_packs(catalogue, name, pod.id):
                    elsewhere.append(name)
        exists = store.facts().exists
    together = Amount.of(usable)
    verdict, advice = _verdict(config, union, together, set_aside, recalled, nearest, elsewhere, exists)
    expected = forecast.of_load(pod, local, stored)
    if usable and expected.status is OperationStatus.ERROR:
        verdict, advice = f"{verdict}, but would fail: {expected.reason}", ""
    return Explanation(
        would_hit=bool(usable) and expected.status is not OperationStatus.ERROR,
        verdict=verdict,
        advice=advice,
        store=str(config.store),
        namespace=config.namespace,
        environment_id=pod.id,
        parts=pod.parts,
        remarks=tuple(map(str, pod.remarks)),
        packs=len(union.packs),
        units=together.units,
        files=together.files,
        bytes=together.bytes,
        rejected_packs=reasons(union),
        set_aside_packs=tuple(sorted(set_aside)),
        recalled_packs=tuple(sorted(recalled)),
        nearest=tuple(nearest),
        more=more,
        elsewhere=tuple(elsewhere),
        errors=tuple(errors),
        load=expected,
        local_caches=tuple(root.name for root in local.used),
        refused_caches=tuple(str(error) for error in local.failed.values()),
        per_pod_variables=tuple(per_pod_variables(os.environ)),
    )


def _nearest(catalogue: Catalogue, namespace: str, pod: Environment, errors: list[str]) -> tuple[list[Neighbour], int]:
    """The environments that differ least, of this namespace or, if it has none, of all."""
    found = _neighbours(catalogue, [namespace], pod, errors)
    if not found:
        found = _neighbours(catalogue, catalogue.namespaces(), pod, errors)
    # The newest of equals: it is what pods like this one are likely to have been.
    found.sort(key=lambda other: (len(other.differences or ()) or len(pod.parts) + 1, -other.newest_s))
    return found[:_NEAREST], len(found[_NEAREST:])


def _neighbours(
    catalogue: Catalogue, namespaces: Sequence[str], pod: Environment, errors: list[str]
) -> list[Neighbour]:
    found: list[Neighbour] = []
    for namespace in namespaces:
        with collect_errors(errors):
            for environment_id in catalogue.environments(namespace):
                with collect_errors(errors):
                    found += _neighbour(catalogue, namespace, environment_id, pod)
    return found


def _neighbour(catalogue: Catalogue, namespace: str, environment_id: str, pod: Environment) -> list[Neighbour]:
    """One environment, unless it is the pod's own or has no packs that count."""
    published = _live_packs(catalogue, namespace, environment_id)
    if environment_id == pod.id or not published:
        return []
    parts = catalogue.parts(namespace, environment_id)
    differences = compare(parts, pod.parts) if parts else None
    return [Neighbour(namespace, environment_id, len(published), max(published), differences)]


def _live_packs(catalogue: Catalogue, namespace: str, environment_id: str) -> list[float]:
    """When each pack of an environment appeared that is not set aside. None of them is read."""
    repository = catalogue.repository(namespace, environment_id)
    return [info.modified_s for info in repository.look().usable.values()]


def compare(store: Mapping[str, str], pod: Mapping[str, str]) -> tuple[Difference, ...]:
    """The parts in which two keys differ, in the order of the pod's."""
    names = [*pod, *(name for name in sorted(store) if name not in pod)]
    return tuple(
        Difference(name, store.get(name, ""), pod.get(name, ""), _in_words(name, store.get(name), pod.get(name)))
        for name in names
        if store.get(name) != pod.get(name)
    )


def _in_words(part: str, store: str | None, pod: str | None) -> str:
    if part == "cpu features" and store is not None and pod is not None:
        theirs, ours = set(store.split()), set(pod.split())
        words = [
            f"{has} {' '.join(sorted(extra))}"
            for has, extra in (("this pod lacks", theirs - ours), ("this pod also has", ours - theirs))
            if extra
        ]
        return "; ".join(words) or f"store has {store!r}, this pod {pod!r}"
    return f"store has {_shown(store)}, this pod {_shown(pod)}"


def _shown(value: str | None) -> str:
    """A part's value; one that a version of this package does not know is not there at all."""
    return "no such part" if value is None else value or "none"


_HEALS = "the next save from a pod that has compiled makes the store whole again"
_ADVICE: tuple[tuple[type[PackError], str], ...] = (
    (CorruptPackError, _HEALS),
    (UntrustedPackError, "let a pod with B10_SIGNING_KEY save, or add its public key to B10_TRUSTED_KEYS"),
    (UnsupportedPackError, "they are of a later version of b10-transfer: run the same version here"),
    (PackTooLargeError, "raise the variable named below, or prune the packs that nobody needs"),
    (UnreadablePackError, "the store did not deliver them: `b10-compile-cache doctor` tries it out"),
)


def _verdict(
    config: Config,
    union: Union,
    usable: Amount,
    set_aside: frozenset[str],
    recalled: frozenset[str],
    nearest: Sequence[Neighbour],
    elsewhere: Sequence[str],
    exists: bool,
) -> tuple[str, str]:
    """What a load would find, and what to do if that is nothing."""
    if usable.units:
        return f"a load finds {usable.units} {'unit' if usable.units == 1 else 'units'} for this pod", ""
    if union.units:
        names = ", ".join(sorted({name.partition("/")[0] for name in union.units}))
        return f"the store has only caches that B10_CACHES leaves out: {names}", "name them in B10_CACHES, or unset it"
    if union.rejected:
        # Why, is told pack by pack; what to do depends on it.
        kinds = {type(pack.error) for pack in union.rejected}
        advice = next((advice for kind, advice in _ADVICE if kinds <= {kind}), "see below, pack by pack")
        return f"every pack for this pod is unusable ({union.ignored})", advice
    if elsewhere:
        return (
            f"namespace {config.namespace!r} has nothing for this pod, namespace {elsewhere[0]!r} has",
            f"set B10_NAMESPACE={elsewhere[0]}, if that is the same workload",
        )
    if set_aside:
        return (
            f"every pack for this pod was found damaged and set aside ({len(set_aside)})",
            _HEALS,
        )
    if recalled:
        return (
            f"every pack for this pod was recalled ({len(recalled)})",
            "`b10-compile-cache restore` has one count again; what is compiled anew is saved",
        )
    if nearest:
        return (
            "no environment in the store equals this pod's",
            "let one pod like this one compile and save; or run the image and the kind of node that saved",
        )
    if exists:
        return "the store is empty", "nothing was saved there yet; if something should have been, check B10_STORE"
    return "the store does not exist yet", "the first save makes it; if there should be one, check B10_STORE"
