"""Explains why a load would find something for this pod, or why not: compares its key with those in the store."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from ..concurrency.deadline import Deadline
from ..config import CacheSelection, Config
from ..environment import Environment
from ..errors import (
    CorruptPackError,
    PackError,
    PackTooLargeError,
    UnnamedCachesError,
    UnreadablePackError,
    UnsupportedPackError,
    UntrustedPackError,
)
from ..operations.key_facts import differences
from ..operations.load_plan import why_only_others
from ..operations.rest import others, split_by_use
from ..pack import PackUnit
from ..repository.catalogue import Amount, Catalogue, collect_errors
from ..repository.group import packs_of_group
from ..repository.ignored import MOST_LINES, reasons
from ..repository.listing import Listed
from ..repository.repository import ReadRepository
from ..repository.siblings import describe
from ..repository.union import Union
from ..status import OperationStatus
from . import forecast
from .bounded import Observer, bounded, open_store
from .differences import Difference, compare
from .forecast import Forecast
from .pods import Pod, PodDescription, this_pod

_NEAREST = 3
"""At most this many environments are shown, so that an explanation fits one screen."""


@dataclass(frozen=True)
class Neighbour:
    """Another environment in the store."""

    namespace: str
    id: str
    packs: int
    newest_s: float
    """When its latest pack was published, in seconds since 1970 on the store's clock."""
    differences: tuple[Difference, ...] | None
    """None if the store has no readable description of its parts."""


@dataclass(frozen=True)
class Explanation:
    """What a load would find now, and the reasons."""

    would_hit: bool
    partial: str
    """What a load would give, and why not more; empty if it would give everything that was saved for this pod."""
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
    """Usable packs for this pod. ``units``, ``files`` and ``bytes`` are those of their union."""
    units: int
    files: int
    bytes: int
    rest: int
    """How many of the units starts did not use, so that a load restores them after the others, or never."""
    group: str
    """What the group of this process has recorded (``B10_GROUP``); empty without a group."""
    commands: tuple[str, ...]
    """Command lines of the servers that saved the packs for this pod, at most five, the latest last."""
    key_differences: tuple[str, ...]
    """Paths and numbers in compilers' keys that this pod has, and the pods that saved had not: a line for each."""
    rejected_packs: tuple[str, ...]
    """Why packs of this pod's environment are ignored: a line for each if they are few, else one line."""
    set_aside_packs: tuple[str, ...]
    """Ids of packs that a save found damaged."""
    pruned_packs: tuple[str, ...]
    """Ids of packs that ``prune`` marked, and that are not deleted yet."""
    recalled_packs: tuple[str, ...]
    """Ids of packs that an operator recalled."""
    marks: tuple[str, ...]
    """Who recalled, pruned or set aside packs, when and why: a line for each of the latest three."""
    nearest: tuple[Neighbour, ...]
    """The most similar other environments, fewest differences first. Empty if there is something for this pod."""
    more: int
    """How many environments differ more than these."""
    elsewhere: tuple[str, ...]
    """Other namespaces that hold packs for this pod's environment."""
    errors: tuple[str, ...]
    """One line for each other environment or namespace that could not be read."""
    load: Forecast
    """What a load would return now."""
    local_caches: tuple[str, ...]
    """Caches of this pod that already have artifacts, so that a load without merging leaves them alone."""
    refused_caches: tuple[str, ...]
    """One line for each cache of this pod that a load leaves out: its path and the reason."""
    per_pod_variables: tuple[str, ...]
    """Variables of this process that vLLM hashes and whose values often differ between pods."""


def explain(
    *,
    namespace: str | None = None,
    store: str | os.PathLike[str] | None = None,
    deadline_s: float | None = None,
    other: PodDescription | None = None,
    observe: Observer | None = None,
) -> Explanation:
    """Explain what a load would do now. Changes nothing.

    Args:
        namespace: Overrides ``B10_NAMESPACE``, or the other pod's namespace.
        store: Overrides ``B10_STORE``.
        deadline_s: Overrides ``B10_DEADLINE_SECONDS``.
        other: Another pod to answer for, with empty caches. Default: this pod.
        observe: Receives the deadline when the work begins.

    Raises:
        CacheError: A setting is wrong, the store could not be read, or the time is up.
    """

    def work(deadline: Deadline) -> Explanation:
        chosen = namespace if other is None or namespace is not None else other.namespace
        config = Config.from_environment(namespace=chosen, store=store)
        return _explain(config, this_pod(config) if other is None else other.pod(), deadline)

    return bounded("explain", work, deadline_s=deadline_s, observe=observe)


@dataclass(frozen=True)
class _Found:
    """Everything in the store that a verdict depends on."""

    namespace: str
    exists: bool
    union: Union
    usable: tuple[PackUnit, ...]
    """Units of the caches that B10_CACHES selects."""
    set_aside: frozenset[str]
    pruned: frozenset[str]
    recalled: frozenset[str]
    marks: tuple[str, ...]
    nearest: tuple[Neighbour, ...]
    more: int
    elsewhere: tuple[str, ...]
    errors: tuple[str, ...]


def _explain(config: Config, pod: Pod, deadline: Deadline) -> Explanation:
    with open_store(config, deadline) as store:
        catalogue = Catalogue(store, config, deadline)
        repository = catalogue.repository(config.namespace, pod.environment.id)
        facts = store.facts()
        stored = forecast.read_stored(store, config, pod.environment, deadline)
        group, members = "", None
        if config.group:
            group, members = packs_of_group(store, repository.group_folder, config.group)
        found = _search(catalogue, repository, stored.union, pod.caches, pod.environment, exists=facts.exists)
        if members is not None:
            found = replace(found, usable=_of_packs(found.usable, stored.union, members))
        rest: Sequence[str] = ()
        if config.restore_rest != "before":
            _first, rest = split_by_use(repository, stored.union, [unit.name for unit in found.usable])
    verdict, advice = _verdict(found, config.caches)
    if rest:
        first = len(found.usable) - len(rest)
        verdict = f"{verdict}: first the {first:,} that earlier starts used; {others(rest, config.restore_rest)}"
    if group and not found.usable and stored.union.units:
        verdict, advice = f"the group {config.group} {group}", "a job with another B10_GROUP loads the newest packs"
    expected = pod.forecast(stored)
    partial = expected.partial or forecast.of_load_to_empty_caches(pod.caches, stored).partial
    if found.usable and expected.status is OperationStatus.ERROR:
        verdict, advice = f"{verdict}, but would fail: {expected.reason}", ""
    elif stored.siblings is not None and expected.status is OperationStatus.SUCCESS:
        names = [name for name in stored.siblings.units if name.partition("/")[0] in pod.caches]
        verdict = f"no environment equals this pod's; {describe(stored.siblings, names)} would be restored"
    amount = Amount.of(found.usable)
    return Explanation(
        would_hit=bool(found.usable) and expected.status is not OperationStatus.ERROR,
        partial=partial if found.usable else "",
        verdict=verdict,
        advice=advice,
        store=str(config.store),
        namespace=config.namespace,
        environment_id=pod.environment.id,
        parts=pod.environment.parts,
        remarks=pod.remarks,
        packs=len(found.union.packs),
        units=amount.units,
        files=amount.files,
        bytes=amount.bytes,
        rest=len(rest),
        group=group,
        commands=found.union.commands,
        key_differences=tuple(map(str, differences(found.union, [unit.name for unit in found.usable], pod.key_facts))),
        rejected_packs=reasons(found.union),
        set_aside_packs=tuple(sorted(found.set_aside)),
        pruned_packs=tuple(sorted(found.pruned)),
        recalled_packs=tuple(sorted(found.recalled)),
        marks=found.marks,
        nearest=found.nearest,
        more=found.more,
        elsewhere=found.elsewhere,
        errors=found.errors,
        load=expected,
        local_caches=pod.used_caches,
        refused_caches=pod.refused_caches,
        per_pod_variables=pod.per_pod_variables,
    )


def _of_packs(units: Iterable[PackUnit], union: Union, packs: Collection[str]) -> tuple[PackUnit, ...]:
    """Those of some units that a load of these packs alone restores."""
    held = replace(union, packs=tuple(pack for pack in union.packs if pack.id in packs)).units
    return tuple(held[unit.name][1] for unit in units if unit.name in held)


def _search(
    catalogue: Catalogue,
    repository: ReadRepository,
    union: Union,
    selected: Collection[str],
    pod: Environment,
    *,
    exists: bool,
) -> _Found:
    """Search the store for packs of this pod, and for similar environments if there are none."""
    listed = repository.look()
    errors: list[str] = []
    usable = tuple(unit for name, (_pack, unit) in union.units.items() if name.partition("/")[0] in selected)
    nearest, more = ([], 0) if usable else _nearest(catalogue, repository.namespace, pod, errors)
    elsewhere = []
    for name in catalogue.namespaces():
        with collect_errors(errors):
            if name != repository.namespace and _live_packs(catalogue, name, pod.id):
                elsewhere.append(name)
    return _Found(
        namespace=repository.namespace,
        exists=exists,
        union=union,
        usable=usable,
        set_aside=frozenset(listed.damaged.keys() - listed.pruned.keys() - listed.recalled),
        pruned=frozenset((listed.pruned.keys() & listed.packs.keys()) - listed.recalled),
        recalled=listed.recalled,
        marks=_marks(repository, listed),
        nearest=tuple(nearest),
        more=more,
        elsewhere=tuple(elsewhere),
        errors=tuple(errors),
    )


def _marks(repository: ReadRepository, listed: Listed) -> tuple[str, ...]:
    """A line for each of the latest marks."""
    found = repository.marks_of(listed.set_aside, listed, MOST_LINES)
    latest = sorted(found.items(), key=lambda one: one[1].time_s, reverse=True)[:MOST_LINES]
    return tuple(f"pack {pack_id} was {listed.state_of(pack_id)} {mark}" for pack_id, mark in latest)


def _nearest(catalogue: Catalogue, namespace: str, pod: Environment, errors: list[str]) -> tuple[list[Neighbour], int]:
    """The environments with the fewest differences, of this namespace or, if it has none, of all."""
    found = _neighbours(catalogue, [namespace], pod, errors)
    if not found:
        found = _neighbours(catalogue, catalogue.namespaces(), pod, errors)
    # Among equals the newest first: pods like this one are more likely to have saved it.
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
    """One environment; none if it is the pod's own or has no usable packs."""
    published = _live_packs(catalogue, namespace, environment_id)
    if environment_id == pod.id or not published:
        return []
    parts = catalogue.parts(namespace, environment_id)
    differences = compare(parts, pod.parts) if parts else None
    return [Neighbour(namespace, environment_id, len(published), max(published), differences)]


def _live_packs(catalogue: Catalogue, namespace: str, environment_id: str) -> list[float]:
    """When each pack was published that no mark excludes. It reads no pack."""
    repository = catalogue.repository(namespace, environment_id)
    return [info.modified_s for info in repository.look().usable.values()]


_NEXT_SAVE = "you need to do nothing: the next save of a pod that has compiled publishes the units again"
_ADVICE: tuple[tuple[type[PackError], str], ...] = (
    (CorruptPackError, _NEXT_SAVE),
    (UntrustedPackError, "let a pod with B10_SIGNING_KEY save, or add its public key to B10_TRUSTED_KEYS"),
    (UnnamedCachesError, "name the caches in B10_EXTRA_CACHES, if this pod needs them"),
    (UnsupportedPackError, "a later version of b10-transfer wrote them: use the same version here"),
    (PackTooLargeError, "raise the variable named below, or prune packs"),
    (UnreadablePackError, "the store did not deliver them: `b10-compile-cache doctor` checks it"),
)


def _verdict(found: _Found, selected: CacheSelection) -> tuple[str, str]:
    """What a load would find; and what to do if that is nothing."""
    if found.usable:
        number = len(found.usable)
        return f"a load finds {number} {'unit' if number == 1 else 'units'} for this pod", ""
    if found.union.units:
        return why_only_others({name.partition("/")[0] for name in found.union.units}, selected)
    if found.union.rejected:
        kinds = {type(pack.error) for pack in found.union.rejected}
        advice = next((advice for kind, advice in _ADVICE if kinds <= {kind}), "see the reason of each pack below")
        return f"every pack for this pod is unusable ({found.union.ignored})", advice
    if found.elsewhere:
        return (
            f"namespace {found.namespace!r} has nothing for this pod, but namespace {found.elsewhere[0]!r} has",
            f"set B10_NAMESPACE={found.elsewhere[0]}, if that is the same workload",
        )
    if found.set_aside or found.pruned or found.recalled:
        return _verdict_of_marked(found)
    if found.nearest:
        return (
            "no environment in the store equals this pod's",
            "let one pod like this one compile and save, or use the image and the kind of node of a pod that saved",
        )
    if found.exists:
        return "the store is empty", "nothing was saved there yet; if something should have been, check B10_STORE"
    return "the store does not exist yet", "the first save creates it; if it should exist, check B10_STORE"


def _verdict_of_marked(found: _Found) -> tuple[str, str]:
    """The verdict if every pack is marked, and what to do."""
    kinds = {"found damaged and set aside": found.set_aside, "pruned": found.pruned, "recalled": found.recalled}
    *first, last = [f"{kind} ({len(packs)})" for kind, packs in kinds.items() if packs]
    verdict = f"every pack for this pod was {' or '.join(filter(None, (', '.join(first), last)))}"
    if found.recalled:
        advice = "if they are good after all, `b10-compile-cache reinstate` undoes that; new compilations are saved"
    elif found.pruned:
        advice = "until they are deleted, `b10-compile-cache reinstate` undoes that; new compilations are saved"
    else:
        advice = _NEXT_SAVE
    return verdict, advice
