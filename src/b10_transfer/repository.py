"""The packs of one environment and namespace in a store: what they hold together, and how more are added.

The rules that make it safe without locks: packs are never rewritten, each appears whole under a unique name, and for
every unit the latest pack that holds it wins. So the union of any two savers' work is what both published.
"""

from __future__ import annotations

import io
import json
import logging
import re
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from typing import BinaryIO

from .adapters import ADAPTERS, Adapter, Unit, UnitKind
from .adapters.base import is_transient
from .deadline import Deadline
from .environment import Environment
from .errors import (
    CacheError,
    CorruptPackError,
    PackError,
    StoreError,
    UnreadablePackError,
    UnsupportedPackError,
)
from .pack import Index, Limits, Member, PackReader, PackUnit
from .signing import SigningKey, TrustedKeys
from .stores.base import ObjectInfo, ReadStore, Store
from .workers import Pipeline

logger = logging.getLogger(__name__)

LAYOUT = "v1"
_PACK_NAME = re.compile(r"(?P<id>(?P<time>[0-9a-f]{12})-[0-9a-f]{16})\.tar\.zst", re.ASCII)
_DESCRIPTION = "environment.json"
_MOST_DESCRIBED_BYTES = 64 * 1024
Content = frozenset[tuple[str, str]]
"""What a unit holds: path in the pack and SHA-256 of each file."""
_MARKS = ("quarantine", "recalled")
"""Folders of what sets a pack aside."""
_SETTLED_MS = 3_600_000
_THREADS = 8
"""Indexes are read so many at a time: each is a wait for the store, hardly any work."""


@dataclass(frozen=True)
class Pack:
    """A pack whose index has been read and verified."""

    id: str
    name: str
    """The object's name in the store."""
    index: Index
    packed_bytes: int

    @property
    def published_ms(self) -> int:
        """When it was published, in milliseconds since 1970, as its id tells."""
        return int(self.id[:12], 16)


@dataclass(frozen=True)
class Rejected:
    """A pack that counts as absent, and why."""

    id: str
    error: PackError


@dataclass(frozen=True)
class Union:
    """What the packs of a repository hold together, at one moment."""

    packs: tuple[Pack, ...]
    """Usable packs, oldest first."""
    rejected: tuple[Rejected, ...]

    @cached_property
    def units(self) -> Mapping[str, tuple[Pack, PackUnit]]:
        """Every unit by name, out of the latest pack that holds it."""
        return {unit.name: (pack, unit) for pack in self.packs for unit in pack.index.units}

    def settled(self) -> set[str]:
        """Names of the units that were published long enough ago to be replaced.

        A compiler that never accepts what it finds would otherwise have every start publish.
        """
        now_ms = time.time() * 1000
        return {name for name, (pack, _unit) in self.units.items() if now_ms - pack.published_ms > _SETTLED_MS}

    def without(self, pack: Pack, error: PackError) -> Union:
        """This union if ``pack`` were not there."""
        return Union(
            tuple(other for other in self.packs if other.id != pack.id),
            (*self.rejected, Rejected(pack.id, error)),
        )


class ReadRepository:
    """Reads the packs of one environment and namespace; with ``trusted`` keys, only those that one of them signed."""

    def __init__(
        self,
        store: ReadStore,
        namespace: str,
        environment: Environment,
        limits: Limits,
        deadline: Deadline,
        trusted: TrustedKeys | None = None,
    ) -> None:
        self.environment = environment
        self.namespace = namespace
        self.limits = limits
        self._store = store
        self._deadline = deadline
        self._trusted = trusted
        self._folder = f"{LAYOUT}/{namespace}/{environment.id}"

    def union(self, *, verify_frames: bool = False) -> Union:
        """Read every pack's index, and with ``verify_frames`` check every byte of every pack as well.

        A pack that cannot be used is in ``rejected``. Raises StoreError if the store cannot be read.
        """
        self._deadline.check(f"listing the packs in {self._store.location}")
        ids = list(self.usable())
        packs: list[Pack] = []
        rejected: list[Rejected] = []
        self._deadline.check(f"reading the packs in {self._store.location}")

        def read(pack_id: str) -> Pack | Rejected | None:
            return self._read(pack_id, verify_frames)

        self._store.expect([self._name(pack_id) for pack_id in ids])
        with Pipeline(read, min(_THREADS, max(len(ids), 1)), self._deadline) as pipeline:
            for found in pipeline.map(ids, 2 * _THREADS):
                if isinstance(found, Pack):
                    packs.append(found)
                elif found is not None:
                    rejected.append(found)
        return Union(tuple(packs), tuple(rejected))

    def is_current(self, union: Union) -> bool:
        """Whether no pack has come or gone since a union was read."""
        known = {pack.id for pack in union.packs} | {pack.id for pack in union.rejected}
        return self.usable().keys() == known

    @contextmanager
    def opened(self, pack: Pack) -> Iterator[PackReader]:
        """A reader of a pack's files. Raises PackError if the pack has been deleted since its index was read, which on
        NFS is an error of any read."""
        try:
            source = self._store.open(pack.name)
            if source is None:
                raise UnreadablePackError(pack.id, "it was deleted while it was being read")
            with source:
                yield PackReader(pack.id, source, self.limits, self._deadline)
        except StoreError as error:
            raise UnreadablePackError(pack.id, str(error)) from error

    def listing(self) -> dict[str, ObjectInfo]:
        """Every pack's object by the pack's id, oldest first: those that are set aside as well, and none is read."""
        return _by_id(self._list("packs"))

    def usable(self) -> dict[str, ObjectInfo]:
        """The same without those that are set aside."""
        folders = [f"{self._folder}/{name}" for name in ("packs", *_MARKS)]
        packs, *marks = self._store.list_each(folders)
        set_aside = {_last(info.name) for marked in marks for info in marked}
        return {pack_id: info for pack_id, info in _by_id(packs).items() if pack_id not in set_aside}

    def set_aside(self) -> set[str]:
        """Ids of the packs that count as absent: a saver found them damaged, or an operator recalled them."""
        return self._marks("quarantine") | self.recalled()

    def recalled(self) -> set[str]:
        """Ids of the packs that an operator recalled."""
        return self._marks("recalled")

    def recalled_content(self) -> dict[str, set[Content]]:
        """What the recalled packs hold, by unit: it must not be published again by pods that have restored it.

        A recalled pack that cannot be read says nothing.
        """
        found: dict[str, set[Content]] = {}
        for pack_id in sorted(self.recalled()):
            pack = self._read(pack_id, verify_frames=False)
            if isinstance(pack, Pack):
                for unit in pack.index.units:
                    content = frozenset((member.path, member.sha256) for member in unit.members)
                    found.setdefault(unit.name, set()).add(content)
        return found

    def _marks(self, folder: str) -> set[str]:
        return {_last(info.name) for info in self._list(folder)}

    def described_parts(self) -> dict[str, str] | None:
        """The environment's parts as its ``environment.json`` names them; None if that is missing or not as written."""
        source = self._store.open(f"{self._folder}/{_DESCRIPTION}")
        if source is None:
            return None
        with source:
            data = bytes(source.read_at(0, source.size_bytes)) if source.size_bytes <= _MOST_DESCRIBED_BYTES else b""
        try:
            parts = json.loads(data)["parts"]
            environment = Environment({str(name): str(value) for name, value in parts.items()})
            # Only the very bytes that a saver writes for this environment count.
            is_sound = environment.id == self.environment.id and environment.to_json() == data
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None
        return dict(environment.parts) if is_sound else None

    def _ids(self) -> list[str]:
        """Ids of the packs, oldest first."""
        return list(self.listing())

    def _list(self, folder: str) -> list[ObjectInfo]:
        return self._store.list(f"{self._folder}/{folder}")

    def _name(self, pack_id: str) -> str:
        return f"{self._folder}/packs/{pack_id}.tar.zst"

    def _read(self, pack_id: str, verify_frames: bool) -> Pack | Rejected | None:
        try:
            try:
                return self._read_once(pack_id, verify_frames)
            except CorruptPackError:
                # What a client of NFS has cached of a file may be stale until it opens it again.
                return self._read_once(pack_id, verify_frames)
        except PackError as error:
            return Rejected(pack_id, error)

    def _read_once(self, pack_id: str, verify_frames: bool) -> Pack | None:
        name = self._name(pack_id)
        try:
            source = self._store.open(name)
            if source is None:  # deleted since it was listed: superseded or pruned, hence nothing is missing
                return None
            with source:
                approve = partial(self._trusted.check, pack_id) if self._trusted is not None else None
                reader = PackReader(pack_id, source, self.limits, self._deadline, approve)
                index = reader.read_index()
                self._check_place(pack_id, index)
                if verify_frames:
                    reader.verify_frames(index)
                return Pack(pack_id, name, index, source.size_bytes)
        except StoreError as error:
            raise UnreadablePackError(pack_id, str(error)) from error

    def _check_place(self, pack_id: str, index: Index) -> None:
        """A pack belongs where it was published: artifacts of another environment may be illegal instructions."""
        if (index.namespace, index.environment_id) != (self.namespace, self.environment.id):
            raise CorruptPackError(
                pack_id,
                f"it was published for environment {index.environment_id!a:.80}, namespace {index.namespace!a:.120}",
            )
        if unknown := [root for root in index.roots if root not in _ADAPTERS]:
            raise UnsupportedPackError(pack_id, f"holds caches this version does not know: {', '.join(unknown)!a:.120}")
        for unit in index.units:
            root, _, path = unit.name.partition("/")
            if not _is_unit(_ADAPTERS[root], Unit(path, UnitKind(unit.kind)), unit.members):
                raise CorruptPackError(pack_id, f"{unit.name!a:.120} is no unit of the {root} cache")


def _by_id(listed: Sequence[ObjectInfo]) -> dict[str, ObjectInfo]:
    found = ((_PACK_NAME.fullmatch(_last(info.name)), info) for info in listed)
    return {match.group("id"): info for match, info in found if match}


def _last(name: str) -> str:
    return name.rpartition("/")[2]


_ADAPTERS = {adapter.name: adapter for adapter in ADAPTERS}


def _is_unit(adapter: Adapter, expected: Unit, members: Sequence[Member]) -> bool:
    """Whether an adapter would group these files so: only then do units of two packs never get in each other's way."""
    if expected.kind is UnitKind.FOLDER:
        if any(is_transient(member.path) for member in members):
            return False
        members = members[:1]  # the others are below the same folder
    return all(adapter.unit_of(member.path.partition("/")[2]) == expected for member in members)


class Repository(ReadRepository):
    """Reads packs and publishes more."""

    def __init__(
        self,
        store: Store,
        namespace: str,
        environment: Environment,
        limits: Limits,
        deadline: Deadline,
        trusted: TrustedKeys | None = None,
        signer: SigningKey | None = None,
    ) -> None:
        super().__init__(store, namespace, environment, limits, deadline, trusted)
        self._writable = store
        self._signer = signer

    @property
    def lease_folder(self) -> str:
        """Where leases that concern this environment alone are."""
        return f"{self._folder}/leases"

    def publish(self, pack: BinaryIO) -> str:
        """Make a finished pack part of the union, as its latest; returns its id.

        Raises StoreError if that fails, and then nothing is part of the union.
        """
        self._describe()
        while True:
            self._deadline.check(f"publishing to {self._store.location}")
            pack_id = self._new_id()
            if self._signer is not None:
                self._signer.sign(pack, pack_id)
            pack.seek(0)
            if self._writable.create(self._name(pack_id), pack):
                return pack_id

    def quarantine(self, rejected: Rejected) -> None:
        """Mark a damaged pack, so that nobody reads it again. It stays where it is, for people to look at."""
        note = {"pack": rejected.id, "why": rejected.error.detail}
        self._writable.create(f"{self._folder}/quarantine/{rejected.id}", io.BytesIO(json.dumps(note).encode()))

    def recall(self, pack_id: str, why: str) -> bool:
        """Have a pack count as absent, and nothing like it published again; False if it was recalled already."""
        note = {"pack": pack_id, "why": why}
        return self._writable.create(f"{self._folder}/recalled/{pack_id}", io.BytesIO(json.dumps(note).encode()))

    def reinstate(self, pack_id: str) -> bool:
        """Remove whatever mark sets a pack aside; False if there was none."""
        marks = [f"{self._folder}/{folder}/{pack_id}" for folder in _MARKS]
        removed = [self._writable.delete(mark) for mark in marks]
        return any(removed)

    def remove(self) -> None:
        """Delete every pack of this environment, the marks of damaged ones and the description.

        For people who want the room back: nothing else deletes a pack. A load that is reading one finds it unreadable,
        and a save that goes on meanwhile publishes what it has. Leases stay; they run out. Raises StoreError, and then
        what was not deleted yet is still there.
        """
        # Marks after packs: without its mark a damaged pack would count again.
        for info in (*self._list("packs"), *self._list("quarantine"), *self._list("recalled")):
            self._deadline.check(f"deleting packs from {self._store.location}")
            self._writable.delete(info.name)
        self._writable.delete(f"{self._folder}/{_DESCRIPTION}")

    def _new_id(self) -> str:
        """A unique id that sorts behind every pack there is, whatever this machine's clock says.

        Were ids plain times, a pod whose clock is behind could not supersede a unit, and would try again for ever.
        """
        latest = max((int(pack_id[:12], 16) for pack_id in self._ids()), default=-1)
        now = min(max(time.time_ns() // 1_000_000, latest + 1), 0xFFFFFFFFFFFF)
        return f"{now:012x}-{secrets.token_hex(8)}"

    def _describe(self) -> None:
        """Leave the environment's parts beside its packs, for people and for explanations of a miss."""
        name, expected = f"{self._folder}/{_DESCRIPTION}", self.environment.to_json()
        try:
            source = self._store.open(name)
            if source is not None:
                with source:
                    if source.size_bytes == len(expected) and source.read_at(0, len(expected)) == expected:
                        return
                self._writable.delete(name)  # damaged: what is written instead is what it always was
            self._writable.create(name, io.BytesIO(expected))
        except CacheError as error:
            logger.warning("could not describe the environment in %s: %s", self._store.location, error)
