"""Lists a store: its namespaces, their environments, the packs of each. Only reads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from ..concurrency.deadline import Deadline
from ..config import Config, is_namespace
from ..environment import Environment
from ..errors import StoreError
from ..pack import Limits, PackUnit
from ..stores.base import ObjectInfo, ReadStore
from .ignored import DAMAGED, NOT_READ, state_of
from .layout import VERSION, is_environment_id, last
from .listing import PRUNED_STATE, RECALLED_STATE, SET_ASIDE_STATE
from .marks import Mark
from .repository import ReadRepository
from .signing import trusted_keys
from .union import Pack, Rejected, Union

USABLE, SUPERSEDED = "usable", "superseded"
SET_ASIDE, RECALLED, PRUNED = SET_ASIDE_STATE, RECALLED_STATE, PRUNED_STATE
_WHY = {
    SET_ASIDE: "a save found it damaged",
    RECALLED: "no reason was given",
    PRUNED: "no reason was given",
    NOT_READ: "a load opens the newest packs only",
}
LEAVING = (PRUNED, SUPERSEDED)
"""States of packs that will be deleted."""


@dataclass(frozen=True)
class Amount:
    """How much of something there is."""

    units: int = 0
    files: int = 0
    bytes: int = 0
    """Size of the files themselves, unpacked."""

    @classmethod
    def of(cls, units: Iterable[PackUnit]) -> Amount:
        units = list(units)
        return cls(len(units), sum(len(unit.members) for unit in units), sum(unit.size for unit in units))


@dataclass(frozen=True)
class StoredPack:
    """One pack."""

    id: str
    state: str
    """``usable``; or why a load ignores it: ``damaged``, ``unreadable``, ``newer`` (of a later version of this
    package), ``not named`` (only extra caches that B10_EXTRA_CACHES does not name), ``too large`` (over a limit, or no
    room beside newer packs), ``not read`` (older than what a load opens), ``untrusted`` (B10_TRUSTED_KEYS),
    ``set aside`` (a saver found it damaged), ``recalled`` (by an operator), ``pruned``; or ``superseded``: a merged
    pack holds all of it."""
    why: str
    """Why it cannot be used; empty if it can."""
    published_s: float
    """When it appeared, in seconds since 1970 on the store's clock."""
    packed_bytes: int
    units: int = 0
    files: int = 0
    bytes: int = 0
    superseded_by: str = ""
    """Id of a merged pack that holds all of it; empty if there is none."""
    recalled_in_part: bool = False
    """Whether it is a merged pack of which something was recalled, and counts as absent."""
    marked_by: str = ""
    """User and host that recalled or pruned it; empty if unknown."""
    marked_s: float | None = None
    """When it was recalled, pruned or set aside, in seconds since 1970 on the store's clock."""

    @property
    def is_damaged(self) -> bool:
        """Whether its bytes are not those that were published."""
        return self.state == DAMAGED


@dataclass(frozen=True)
class StoredEnvironment:
    """One environment in one namespace."""

    namespace: str
    id: str
    parts: Mapping[str, str]
    """The key's compared parts; empty if neither a description nor a usable pack names them."""
    this_pod: bool
    """Whether it is the environment of the pod that asks."""
    units: int
    """Of the union of its usable packs; so are the next two."""
    files: int
    bytes: int
    packed_bytes: int
    """Room that all its packs take in the store."""
    newest_s: float | None
    """When its latest pack appeared, in seconds since 1970 on the store's clock."""
    used_s: float | None
    """When its packs were last loaded, in seconds since 1970 on the store's clock; None if there is no record."""
    caches: Mapping[str, Amount]
    """The same by cache."""
    packs: tuple[StoredPack, ...]
    """Oldest first."""


@dataclass(frozen=True)
class Inventory:
    """The content of a store."""

    store: str
    exists: bool
    """False if nothing was ever saved there."""
    environment_id: str
    """The environment of the pod that asks."""
    environments: tuple[StoredEnvironment, ...]
    errors: tuple[str, ...]
    """One line for each environment that could not be read; the others are above all the same."""
    namespaces: tuple[str, ...] = ()
    """All namespaces of the store, if none was chosen or the chosen one has no packs."""


@dataclass(frozen=True)
class KnownById(Environment):
    """An environment with a known id. Its parts may be unknown."""

    known_id: str = field(default="", kw_only=True)

    @property
    def id(self) -> str:
        return self.known_id


class Catalogue:
    """Finds what is in a store."""

    def __init__(self, store: ReadStore, config: Config, deadline: Deadline) -> None:
        self._store = store
        self.limits = Limits.of(config)
        self._trusted = trusted_keys(config)
        self._deadline = deadline

    def namespaces(self) -> list[str]:
        """Every namespace in which something was saved. Raises StoreError, as all that follows."""
        self._deadline.check(f"listing the namespaces in {self._store.location}")
        return [name for name in map(last, self._store.folders(VERSION)) if is_namespace(name)]

    def environments(self, namespace: str) -> list[str]:
        """Ids of a namespace's environments."""
        self._deadline.check(f"listing the environments in {self._store.location}")
        return list(filter(is_environment_id, map(last, self._store.folders(f"{VERSION}/{namespace}"))))

    def repository(self, namespace: str, environment_id: str) -> ReadRepository:
        """The packs of an environment."""
        environment = KnownById({}, known_id=environment_id)
        return ReadRepository(self._store, namespace, environment, self.limits, self._deadline, self._trusted)

    def parts(self, namespace: str, environment_id: str, usable: Iterable[Pack] | None = None) -> Mapping[str, str]:
        """The parts of an environment's key, from its description or else from a pack; empty if neither has them."""
        repository = self.repository(namespace, environment_id)
        described = repository.described_parts()
        if described is not None:
            return described
        packs = repository.union().packs if usable is None else usable
        for pack in packs:
            if Environment(pack.index.parts).id == environment_id:
                return pack.index.parts
        return {}

    def inspect(
        self, namespace: str, environment_id: str, pod: Environment, *, verify_frames: bool = False
    ) -> StoredEnvironment | None:
        """Everything about an environment; None if nothing is left of it but folders."""
        repository = self.repository(namespace, environment_id)
        listed = repository.look(with_use=True)
        if not listed.packs:
            return None
        known: dict[str, Pack | Rejected | str] = dict.fromkeys(listed.damaged, SET_ASIDE)
        known |= dict.fromkeys(listed.pruned, PRUNED)
        known |= dict.fromkeys(listed.recalled, RECALLED)
        union = repository.union(verify_frames=verify_frames, listed=listed)
        known |= {pack.id: pack for pack in union.packs}
        known |= {rejected.id: rejected for rejected in union.rejected}
        known |= dict.fromkeys(union.unread, NOT_READ)
        # What was listed and is not known has been deleted since.
        marks = repository.marks_of(listed.packs, listed)
        packs = tuple(
            _described(id_, info, known[id_], union, marks.get(id_))
            for id_, info in listed.packs.items()
            if id_ in known
        )
        stored = [unit for _pack, unit in union.units.values()]
        caches = sorted({unit.name.partition("/")[0] for unit in stored})
        together = Amount.of(stored)
        return StoredEnvironment(
            namespace=namespace,
            id=environment_id,
            parts=self.parts(namespace, environment_id, union.packs),
            this_pod=environment_id == pod.id,
            units=together.units,
            files=together.files,
            bytes=together.bytes,
            packed_bytes=sum(pack.packed_bytes for pack in packs),
            newest_s=max((pack.published_s for pack in packs), default=None),
            used_s=listed.used_s,
            caches={cache: Amount.of(u for u in stored if u.name.startswith(f"{cache}/")) for cache in caches},
            packs=packs,
        )


def take_inventory(
    store: ReadStore,
    pod: Environment,
    config: Config,
    deadline: Deadline,
    namespace: str | None = None,
    *,
    verify_frames: bool = False,
) -> Inventory:
    """Read the index of every pack in a store, or in one of its namespaces, and with ``verify_frames`` every byte.

    Raises CacheError.
    """
    catalogue = Catalogue(store, config, deadline)
    deadline.check(f"looking at {store.location}")
    exists = store.facts().exists
    namespaces = catalogue.namespaces() if namespace is None else [namespace]
    found: list[StoredEnvironment] = []
    errors: list[str] = []
    for name in namespaces:
        with collect_errors(errors):
            for environment_id in catalogue.environments(name):
                with collect_errors(errors):
                    environment = catalogue.inspect(name, environment_id, pod, verify_frames=verify_frames)
                    found += [environment] if environment is not None else []
    if namespace is not None:
        namespaces = catalogue.namespaces() if not found else []
    return Inventory(store.location, exists, pod.id, tuple(found), tuple(errors), tuple(namespaces))


@contextmanager
def collect_errors(errors: list[str]) -> Iterator[None]:
    """Note a StoreError instead of raising it: one environment that cannot be read must not hide the others."""
    try:
        yield
    except StoreError as error:
        errors.append(str(error))


def _described(
    pack_id: str, info: ObjectInfo, pack: Pack | Rejected | str, union: Union, mark: Mark | None
) -> StoredPack:
    """A pack as it was listed, with what reading it has shown; or its state, if that kept it from being read."""
    if isinstance(pack, Pack):
        amount = Amount.of(pack.index.units)
        merged = union.superseded.get(pack_id)
        return StoredPack(
            pack_id,
            USABLE if merged is None else SUPERSEDED,
            f"merged into {merged.id}" if merged is not None else "",
            info.modified_s,
            info.size_bytes,
            amount.units,
            amount.files,
            amount.bytes,
            superseded_by=merged.id if merged is not None else "",
            recalled_in_part=union.holds_recalled(pack),
        )
    if isinstance(pack, str):
        stored = StoredPack(pack_id, pack, _WHY[pack], info.modified_s, info.size_bytes)
        if mark is None:
            return stored
        return replace(stored, why=mark.why or stored.why, marked_by=mark.who, marked_s=mark.time_s)
    return StoredPack(pack_id, state_of(pack.error), pack.error.detail, info.modified_s, info.size_bytes)
