"""Deletes packs by an operator's rules, and packs whose grace period is over.

There are two steps. A pack that a rule selects is marked, and loads ignore it. A later prune or save deletes it after a
grace period, so that no load loses a pack that it is reading.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

from ..concurrency.deadline import Deadline
from ..config import Config
from ..environment import detect
from ..errors import count
from ..repository.catalogue import (
    LEAVING,
    SET_ASIDE,
    USABLE,
    Catalogue,
    KnownById,
    StoredPack,
    collect_errors,
    take_inventory,
)
from ..repository.compaction import due, own_repository, sweep
from ..repository.repository import Repository
from ..stores.base import Store
from .write_access import require_write_access

MARK, DELETE = "mark", "delete"
_PRUNABLE = (USABLE, SET_ASIDE, "damaged")
"""States of packs that rules apply to. Packs that this pod cannot judge stay: of later versions, of other signers, over
its limits, unreadable. Recalled packs stay, because saves must know which units not to publish."""


@dataclass(frozen=True)
class Rules:
    """The rules that select packs; None for a rule that is not used."""

    older_than_s: float | None = None
    """Packs that were published longer ago, by the store's clock. A merged pack counts as new."""
    keep: int | None = None
    """In each environment all usable packs except this many of the latest."""
    most_bytes: int | None = None
    """The packs that were used longest ago, until the others take at most this many bytes."""
    unused_for_s: float | None = None
    """Packs that were published, and last used, longer ago. Packs of environments without a record of use stay."""


@dataclass(frozen=True)
class PrunedPack:
    """A pack that was marked or deleted, or would be."""

    namespace: str
    environment_id: str
    pack: str
    packed_bytes: int
    action: str
    """``mark``: loads ignore it from now on. ``delete``: its grace period is over."""
    why: str


@dataclass(frozen=True)
class Pruning:
    """The result of a prune."""

    store: str
    packs: tuple[PrunedPack, ...]
    kept_packs: int
    """Number of packs that are neither marked nor superseded afterwards."""
    kept_bytes: int
    errors: tuple[str, ...]
    """One line for each environment that could not be read or pruned."""


@dataclass(frozen=True)
class _Stored:
    """A pack with its namespace and environment."""

    namespace: str
    environment_id: str
    pack: StoredPack
    used_s: float | None
    """When packs of its environment were last used; None if there is no record."""

    @property
    def last_use_s(self) -> float:
        """When it was last used, or else published."""
        return max(self.used_s or 0.0, self.pack.published_s)

    @property
    def place(self) -> tuple[str, str]:
        return self.namespace, self.environment_id

    @property
    def is_prunable(self) -> bool:
        """Whether rules apply to it."""
        return self.pack.state in _PRUNABLE and not self.pack.recalled_in_part

    def pruned(self, action: str, why: str) -> PrunedPack:
        return PrunedPack(*self.place, self.pack.id, self.pack.packed_bytes, action, why)


def prune(
    store: Store,
    config: Config,
    deadline: Deadline,
    rules: Rules,
    *,
    namespace: str | None = None,
    only: Collection[str] | None = None,
    pretend: bool = False,
) -> Pruning:
    """Mark the packs that a rule selects, and delete those whose grace period (``config.grace_s``) is over.

    Args:
        store: The store.
        config: The settings of this pod.
        deadline: Of the operation.
        rules: The rules.
        namespace: Only this namespace. Default: all.
        only: Ids of packs that an operator confirmed; others are not marked. Default: no limit.
        pretend: Whether to change nothing. Default: false.

    Returns:
        What was done, or would be.

    Raises:
        CacheError: The store is read-only for this pod, or it could not be read.
    """
    if not pretend:
        require_write_access(config)
    inventory = take_inventory(store, detect(), config, deadline, namespace)
    errors = list(inventory.errors)
    stored = [
        _Stored(found.namespace, found.id, pack, found.used_s)
        for found in inventory.environments
        for pack in found.packs
    ]
    # A pod that may not write cannot read the store's clock.
    now_s = 0.0 if not stored else time.time() if config.read_only else store.now()
    selected = {id_: why for id_, why in _select(stored, rules, now_s).items() if only is None or id_ in only}
    selected = _with_superseded(stored, selected)
    pruned_packs = {one.pack.id: one.pruned(MARK, selected[one.pack.id]) for one in stored if one.pack.id in selected}
    for place, repository in _repositories(store, config, deadline, namespace):
        here = [one for one in stored if one.place == place]
        with collect_errors(errors):
            if not pretend:
                for one in here:  # oldest first: a superseded pack before the one that supersedes it
                    if one.pack.id in selected:
                        repository.prune(one.pack.id, selected[one.pack.id])
            found = due(repository, repository.union(), config.grace_s, lambda: now_s if pretend else store.now())
            for one_due in found if pretend else sweep(repository, found):
                why = pruned_packs[one_due.id].why if one_due.id in pruned_packs else one_due.why
                pruned_packs[one_due.id] = PrunedPack(*place, one_due.id, one_due.packed_bytes, DELETE, why)
            if not pretend:
                _remove_empty(store, repository, config)
                repository.forget_use(repository.look(with_use=True))
    if not pretend:
        store.remove_abandoned(config.incomplete_timeout_s)
    kept = [one.pack for one in stored if one.pack.id not in pruned_packs and one.pack.state not in LEAVING]
    return Pruning(
        store.location, tuple(pruned_packs.values()), len(kept), sum(pack.packed_bytes for pack in kept), tuple(errors)
    )


def _select(stored: Sequence[_Stored], rules: Rules, now_s: float) -> dict[str, str]:
    """Ids of the packs that rules select, with the reasons."""
    selected: dict[str, str] = {}
    if rules.older_than_s is not None:
        selected |= _too_old(stored, rules.older_than_s, now_s)
    if rules.unused_for_s is not None:
        selected = _unused(stored, rules.unused_for_s, now_s) | selected
    if rules.keep is not None:
        selected = _too_many(stored, rules.keep) | selected
    if rules.most_bytes is not None:
        left = [one for one in stored if one.pack.state not in LEAVING and one.pack.id not in selected]
        selected |= _too_large(left, rules.most_bytes)
    return selected


def _with_superseded(stored: Sequence[_Stored], selected: dict[str, str]) -> dict[str, str]:
    """Also select packs that were merged into a selected one: loads would use them again."""
    found = dict(selected)
    for one in reversed(stored):  # the latest first: a superseded pack may itself be a merged one
        if one.pack.superseded_by in found:
            found[one.pack.id] = f"it was merged into {one.pack.superseded_by}, which is pruned"
    return found


def _too_old(stored: Sequence[_Stored], most_s: float, now_s: float) -> dict[str, str]:
    ages_s = {one.pack.id: now_s - one.pack.published_s for one in stored if one.is_prunable}
    return {id_: f"it is {_age(age_s)} old" for id_, age_s in ages_s.items() if age_s > most_s}


def _unused(stored: Sequence[_Stored], most_s: float, now_s: float) -> dict[str, str]:
    ages_s = {one.pack.id: now_s - one.last_use_s for one in stored if one.is_prunable and one.used_s is not None}
    return {id_: f"it was last used {_age(age_s)} ago" for id_, age_s in ages_s.items() if age_s > most_s}


def _age(seconds: float) -> str:
    """``41.2 days``; below one day in hours, minutes or seconds."""
    if seconds >= 86400:
        return f"{seconds / 86400:.1f} days"
    for length, unit in ((3600, "h"), (60, "min")):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def _too_many(stored: Sequence[_Stored], keep: int) -> dict[str, str]:
    usable: dict[tuple[str, str], list[str]] = {}
    for one in stored:
        if one.is_prunable and one.pack.state == USABLE:
            usable.setdefault(one.place, []).append(one.pack.id)
    why = f"{count(keep, 'later pack')} {'stays' if keep == 1 else 'stay'}"
    return {id_: why for ids in usable.values() for id_ in ids[: max(len(ids) - keep, 0)]}


def _too_large(stored: Sequence[_Stored], most_bytes: int) -> dict[str, str]:
    selected = {}
    room = sum(one.pack.packed_bytes for one in stored)
    for one in sorted(stored, key=lambda one: (one.last_use_s, one.pack.published_s)):
        if room > most_bytes and one.is_prunable:
            room -= one.pack.packed_bytes
            selected[one.pack.id] = "the store is over the size limit, and this was used longest ago"
    return selected


def _repositories(
    store: Store, config: Config, deadline: Deadline, namespace: str | None
) -> Iterator[tuple[tuple[str, str], Repository]]:
    """Every environment, also those without packs."""
    catalogue = Catalogue(store, config, deadline)
    for name in catalogue.namespaces() if namespace is None else [namespace]:
        for environment_id in catalogue.environments(name):
            environment = KnownById({}, known_id=environment_id)
            yield (
                (name, environment_id),
                own_repository(store, replace(config, namespace=name), environment, deadline),
            )


def _remove_empty(store: Store, repository: Repository, config: Config) -> None:
    """Delete the marks and the description of an environment without packs, unless a save may be about to publish."""
    listed = repository.look(with_use=True)
    if listed.packs:
        return
    description = repository.description_info()
    records = [*listed.records.values(), *listed.starts.values()]
    left = [*listed.marks, *records, *([description] if description is not None else [])]
    if left and store.now() - max(info.modified_s for info in left) >= config.grace_s:
        repository.remove(listed, description=description is not None)
