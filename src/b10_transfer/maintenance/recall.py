"""Recall packs, so that loads ignore them, and reinstate them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from ..concurrency.deadline import Deadline
from ..config import Config
from ..environment import Environment
from ..errors import CorruptPackError, StoreError
from ..pack import Limits
from ..repository.catalogue import Catalogue, Inventory, KnownById
from ..repository.repository import Repository
from ..repository.union import Rejected
from ..stores.base import Store


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
) -> list[Marked]:
    """Have packs count as absent: those named, and all of the configured namespace that were published ``since`` then.

    Named packs may lie in any namespace. One that has been merged into another is recalled there; a merged pack is
    recalled with all that was merged into it. Raises StoreError if one of them is not there, and then none is recalled.
    """
    chosen = _find(store, config, deadline, packs)
    if since is not None:
        for environment_id in Catalogue(store, config, deadline).environments(config.namespace):
            repository = _repository(store, config, deadline, config.namespace, environment_id)
            published_ids = sorted(frozenset().union(*repository.origins().values()))
            chosen += [(repository, pack_id) for pack_id in published_ids if published(pack_id) >= since]
    return [_marked(repository, pack_id) for repository, pack_id in chosen if repository.recall(pack_id, why)]


def reinstate(store: Store, config: Config, deadline: Deadline, packs: Collection[str]) -> list[Marked]:
    """Have packs count again, whoever set them aside. Raises StoreError, and changes nothing, if one is not there."""
    chosen = _find(store, config, deadline, packs)
    return [_marked(repository, pack_id) for repository, pack_id in chosen if repository.reinstate(pack_id)]


def mark_damaged(store: Store, config: Config, deadline: Deadline, inventory: Inventory) -> None:
    """Mark the packs in which ``verify`` found damage, so that the next save checks them and publishes them again."""
    for found in inventory.environments:
        damaged = [Rejected(pack.id, CorruptPackError(pack.id, pack.why)) for pack in found.packs if pack.is_damaged]
        if damaged:
            _repository(store, config, deadline, found.namespace, found.id).suspect(damaged)


def published(pack_id: str) -> datetime:
    """When a pack was published, as its id tells: by its saver's clock, or just behind the pack before it."""
    return datetime.fromtimestamp(int(pack_id[:12], 16) / 1000).astimezone()


def _find(store: Store, config: Config, deadline: Deadline, packs: Collection[str]) -> list[tuple[Repository, str]]:
    """The named packs, and what was merged into them, each with its repository."""
    missing = set(packs)
    found: list[tuple[Repository, str]] = []
    catalogue = Catalogue(store, config, deadline)
    for namespace in catalogue.namespaces() if missing else ():
        for environment_id in catalogue.environments(namespace):
            repository = _repository(store, config, deadline, namespace, environment_id)
            origins = repository.origins()
            here = missing.intersection([*origins, *frozenset().union(*origins.values())])
            meant = here.union(*(origins.get(pack_id, ()) for pack_id in here))
            found += [(repository, pack_id) for pack_id in sorted(meant)]
            missing -= here
    if missing:
        raise StoreError(
            "find", f"pack {min(missing)}", f"{store.location} has none of that id; `ls --packs` lists them"
        )
    return found


def _repository(store: Store, config: Config, deadline: Deadline, namespace: str, environment_id: str) -> Repository:
    environment: Environment = KnownById({}, known_id=environment_id)
    return Repository(store, namespace, environment, Limits.of(config), deadline)


def _marked(repository: Repository, pack_id: str) -> Marked:
    return Marked(pack_id, repository.namespace, repository.environment.id)
