"""Recall packs, so that loads ignore them, and reinstate them."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby

from ..concurrency.deadline import Deadline
from ..config import Config
from ..environment import Environment
from ..errors import ConfigurationError, CorruptPackError, StoreError
from ..pack import Limits
from ..repository.catalogue import Catalogue, Inventory, KnownById
from ..repository.listing import Listed
from ..repository.order import published_ms
from ..repository.repository import Repository
from ..repository.signing import signing_key, trusted_keys
from ..repository.union import Rejected
from ..stores.base import Store
from .write_access import require_write_access

_SHORTEST_ID = 4
"""Digits of an id that a beginning must have."""


@dataclass(frozen=True)
class Marked:
    """A pack whose mark was changed."""

    pack: str
    namespace: str
    environment_id: str


def recall(
    store: Store,
    config: Config,
    deadline: Deadline,
    *,
    packs: Collection[str] = (),
    since: datetime | None = None,
    why: str,
    pretend: bool = False,
) -> list[Marked]:
    """Recall packs, so that loads ignore them.

    A merged pack is recalled together with all packs that were merged into it. If this pod has a signing key, it signs
    the recalls.

    Args:
        store: The store.
        config: The settings of this pod.
        deadline: Of the operation.
        packs: Ids of packs in any namespace, or their unique beginnings, also of packs that were merged into others.
        since: Also every pack of the configured namespace that was published since this time.
        why: The reason, stored with the marks.
        pretend: Whether to change nothing. Default: false.

    Returns:
        The packs that were marked, or would be, without those that were recalled before.

    Raises:
        StoreError: One of the packs does not exist, or this pod may not change the store. Then none is recalled.
        ConfigurationError: B10_TRUSTED_KEYS is set, and this pod has no key that pods would accept for a recall.
    """
    if not pretend:
        require_write_access(config)
    _require_key(config)
    chosen = _find(store, config, deadline, packs)
    for repository in _repositories(store, config, deadline) if since is not None else ():
        published_ids = sorted(frozenset().union(*repository.origins().values()))
        chosen += [(repository, pack_id) for pack_id in published_ids if _is_since(pack_id, since)]
    if pretend:
        return [_marked(*one) for one, listed in _with_listing(chosen) if one[1] not in listed.recalled]
    return [_marked(repository, pack_id) for repository, pack_id in chosen if repository.recall(pack_id, why)]


def reinstate(
    store: Store,
    config: Config,
    deadline: Deadline,
    packs: Collection[str] = (),
    *,
    since: datetime | None = None,
    pretend: bool = False,
) -> list[Marked]:
    """Remove all marks of packs: of ``recall``, of ``prune``, and of saves that found them damaged.

    Args:
        store: The store.
        config: The settings of this pod.
        deadline: Of the operation.
        packs: Ids of packs in any namespace, or their unique beginnings.
        since: Also remove the recalls, but no other marks, of every pack of the configured namespace that was published
            since this time. This reverts a recall since the same time.
        pretend: Whether to change nothing. Default: false.

    Returns:
        The packs whose marks were removed, or would be.

    Raises:
        StoreError: One of the packs does not exist, or this pod may not change the store. Then no mark is removed.
    """
    if not pretend:
        require_write_access(config)
    named = _find(store, config, deadline, packs)
    recalled: list[tuple[Repository, str]] = []
    for repository in _repositories(store, config, deadline) if since is not None else ():
        recalled += [
            (repository, pack_id) for pack_id in sorted(repository.look().recalled) if _is_since(pack_id, since)
        ]
    if pretend:
        return [_marked(*one) for one, listed in _with_listing(named + recalled) if listed.mark_of(one[1]) is not None]
    return [
        *(_marked(repository, pack_id) for repository, pack_id in named if repository.reinstate(pack_id)),
        *(_marked(place, pack_id) for place, pack_id in recalled if place.reinstate(pack_id, only_recalls=True)),
    ]


def mark_damaged(store: Store, config: Config, deadline: Deadline, inventory: Inventory) -> None:
    """Mark the packs that ``verify`` found damaged, so that the next save checks them and publishes their units."""
    for found in inventory.environments:
        damaged = [Rejected(pack.id, CorruptPackError(pack.id, pack.why)) for pack in found.packs if pack.is_damaged]
        if damaged:
            _repository(store, config, deadline, found.namespace, found.id).suspect(damaged)


def _find(store: Store, config: Config, deadline: Deadline, packs: Collection[str]) -> list[tuple[Repository, str]]:
    """The named packs and those that were merged into them, each with its repository."""
    catalogue = Catalogue(store, config, deadline)
    places: list[tuple[Repository, dict[str, frozenset[str]], set[str]]] = []
    for namespace in catalogue.namespaces() if packs else ():
        for environment_id in catalogue.environments(namespace):
            repository = _repository(store, config, deadline, namespace, environment_id)
            origins = repository.origins()
            places.append((repository, origins, {*origins, *frozenset().union(*origins.values())}))
    known = set().union(*(ids for _, _, ids in places))
    wanted = {_whole_id(text, known, store.location) for text in packs}
    found: list[tuple[Repository, str]] = []
    for repository, origins, ids in places:
        here = wanted & ids
        meant = here.union(*(origins.get(pack_id, ()) for pack_id in here))
        found += [(repository, pack_id) for pack_id in sorted(meant)]
    return found


def _whole_id(text: str, known: Collection[str], location: str) -> str:
    """The id of a pack from its unique beginning. Raises StoreError."""
    if text in known:
        return text
    found = sorted(pack_id for pack_id in known if pack_id.startswith(text)) if len(text) >= _SHORTEST_ID else []
    if len(found) == 1:
        return found[0]
    if found:
        detail = f"{len(found)} packs begin so, for example {found[0]} and {found[1]}; give more of the id"
        raise StoreError("find", f"pack {text}", detail)
    raise StoreError("find", f"pack {text}", f"{location} has no pack with that id; `ls --packs` lists them")


def _with_listing(chosen: Iterable[tuple[Repository, str]]) -> Iterator[tuple[tuple[Repository, str], Listed]]:
    """Packs, each with what is listed of its environment. An environment is listed once for neighbouring packs."""
    for repository, of_repository in groupby(chosen, lambda one: one[0]):
        listed = repository.look()
        for one in of_repository:
            yield one, listed


def _is_since(pack_id: str, since: datetime | None) -> bool:
    return since is not None and published_ms(pack_id) >= _milliseconds(since)


def _repositories(store: Store, config: Config, deadline: Deadline) -> Iterator[Repository]:
    """Those of the configured namespace."""
    for environment_id in Catalogue(store, config, deadline).environments(config.namespace):
        yield _repository(store, config, deadline, config.namespace, environment_id)


def _milliseconds(when: datetime) -> float:
    """Milliseconds since 1970. A time without a time zone is local."""
    try:
        return when.timestamp() * 1000
    except (OverflowError, ValueError):  # in the first or last year that a datetime can hold
        return math.inf if when.year > 1970 else 0.0


def _repository(store: Store, config: Config, deadline: Deadline, namespace: str, environment_id: str) -> Repository:
    environment: Environment = KnownById({}, known_id=environment_id)
    return Repository(store, namespace, environment, Limits.of(config), deadline, signer=signing_key(config))


def _require_key(config: Config) -> None:
    """Pods with trusted keys ignore a recall that none of them signed: refuse to write such a recall."""
    trusted, signer = trusted_keys(config), signing_key(config)
    if trusted is not None and (signer is None or signer not in trusted):
        rule = "pods ignore a recall that no trusted key signed; set it to the private key of one in B10_TRUSTED_KEYS"
        raise ConfigurationError("B10_SIGNING_KEY", "" if signer is None else "(not shown)", rule)


def _marked(repository: Repository, pack_id: str) -> Marked:
    return Marked(pack_id, repository.namespace, repository.environment.id)
