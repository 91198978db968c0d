"""Keeps an environment's packs few: merges them, and deletes what is superseded or pruned, after a period of grace.

Needs no lock. If two processes do this at once, or one dies at any point, a load gets the same units: a merged pack
does not change the union. A pack is deleted only while another holds all of it, or if an operator pruned it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from ..concurrency.deadline import Deadline
from ..config import Config
from ..environment import Environment
from ..errors import PackError, count
from ..pack import Limits
from ..pack.spool import building_errors, spool
from ..stores import leases
from ..stores.base import ObjectInfo, Store
from ..stores.opening import opened
from .merging import chosen, merge, mergeable, scattered
from .repository import Repository
from .signing import OwnPacks, signing_key
from .union import Pack, Union

logger = logging.getLogger(__name__)

_LEASE = "compact"


@dataclass(frozen=True)
class Due:
    """A pack that may be deleted now."""

    id: str
    packed_bytes: int
    why: str
    superseded_by: Pack | None
    """None if it was pruned."""


def is_due(store: Store, repository: Repository, union: Union, config: Config) -> bool:
    """Whether there is something to do, as far as a save that has just published knows. Raises StoreError."""
    many = len(union.packs) - len(union.superseded) + 1 > config.max_packs > 0
    return many or bool(due(repository, union, config.grace_s, store.now))


def compact(config: Config, environment: Environment, deadline: Deadline) -> None:
    """Merge an environment's packs if they have become many, and delete what is due. Raises CacheError.

    Does nothing while another replica does it.
    """
    with opened(config, deadline) as store:
        repository = own_repository(store, config, environment, deadline)
        with _lease(store, repository, config, deadline) as is_mine:
            if is_mine:
                tidy(store, repository, config, deadline)


def tidy(store: Store, repository: Repository, config: Config, deadline: Deadline) -> None:
    """Delete what is due, and merge what has become too much. Raises CacheError."""
    union = repository.union()
    sweep(repository, due(repository, union, config.grace_s, store.now))
    _merge(repository, union, config, deadline)


def own_repository(store: Store, config: Config, environment: Environment, deadline: Deadline) -> Repository:
    """The packs that this pod could have published itself; whatever else there is counts as absent.

    Merging what others have signed would put this pod's signature under it, and take it from those who do not trust
    this pod's key.
    """
    signer = signing_key(config)
    limits = Limits.of(config)
    return Repository(store, config.namespace, environment, limits, deadline, OwnPacks(signer), signer)


def due(repository: Repository, union: Union, grace_s: float, clock: Callable[[], float]) -> list[Due]:
    """The packs that may be deleted now, oldest first: no pack counts again when the pack that superseded it is gone.

    ``clock`` is the store's. It is read only if there are such packs.
    """
    listed = repository.look()
    if not listed.pruned and not union.superseded:
        return []
    packs, now_s = listed.packs, clock()

    def is_past(info: ObjectInfo | None) -> bool:
        return info is not None and now_s - info.modified_s >= grace_s

    found = [
        Due(pack_id, packs[pack_id].size_bytes, "pruned", None)
        for pack_id, mark in listed.pruned.items()
        if pack_id in packs and is_past(mark)
    ]
    found += [
        Due(pack_id, packs[pack_id].size_bytes, f"merged into {pack.id}", pack)
        for pack_id, pack in union.superseded.items()
        if pack_id in packs and is_past(packs.get(pack.id))
    ]
    return sorted(found, key=lambda one: one.id)


def sweep(repository: Repository, found: Sequence[Due]) -> list[Due]:
    """Delete what is due, and return what was. Raises StoreError, and then the rest goes another time."""
    if not found:
        return []
    holders = {one.superseded_by.id: one.superseded_by for one in found if one.superseded_by is not None}
    whole = {pack_id for pack_id, pack in holders.items() if repository.is_whole(pack)}
    # Asked last: an operator may have recalled or restored something meanwhile.
    listed = repository.look()
    swept = []
    for one in found:
        if one.superseded_by is None:
            is_gone = one.id in listed.pruned
        else:
            is_gone = one.superseded_by.id in whole - listed.set_aside and one.id not in listed.set_aside
        if is_gone:
            logger.debug("deleting pack %s: %s", one.id, one.why)
            swept.append(one)
    repository.delete([one.id for one in swept], listed)
    return swept


def _merge(repository: Repository, union: Union, config: Config, deadline: Deadline) -> None:
    """Merge packs into one, if there are more than there should be, or if starts need units from all over them."""
    if config.max_packs == 0:
        return
    packs, first = mergeable(union, repository.limits), repository.starts(union).days.keys()
    fewest = 2
    if len(packs) <= config.max_packs:
        packs, fewest = scattered(union, packs, first), 1
    if not packs:
        return
    deadline.check(f"merging packs in {config.store}")
    packs = [pack for pack in chosen(packs, repository.limits) if repository.is_whole(pack)]
    with spool(config.work_dir) as out, building_errors(config.work_dir):
        while len(packs) >= fewest:
            try:
                index = merge(repository, packs, out, deadline, first)
            except PackError as error:  # it stays alone
                logger.debug("%s; it is not merged", error)
                packs = [pack for pack in packs if pack.id != error.pack]
                out.seek(0)
                out.truncate()
                continue
            if repository.look().set_aside.isdisjoint(pack.id for pack in packs):
                pack_id = repository.publish(out, behind=packs[-1].id)
                logger.info("merged %d packs into %s, %s", len(packs), pack_id, count(len(index.units), "unit"))
            return


@contextmanager
def _lease(store: Store, repository: Repository, config: Config, deadline: Deadline) -> Iterator[bool]:
    """Yields whether this process may merge: no other process holds the lease."""
    if not config.locks:
        yield True
        return
    lease = leases.try_acquire(
        store,
        repository.lease_folder,
        [_LEASE],
        config.lock_timeout_s,
        renewing=lambda: opened(config, deadline),
    )
    try:
        yield lease is not None
    finally:
        if lease is not None:
            lease.release()
