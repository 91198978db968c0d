"""The packs that all processes of a group load.

The first process records the packs that it is about to load, in one small object that it creates only if there is
none. The others load exactly these packs. If one of them cannot, it leaves a mark beside the record, and the processes
that see the mark load nothing. So no member of a job waits in a collective for another that compiles.

A record can only choose: its packs pass the same checks as all others. It expires, and no process waits for another.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import re
import socket
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import replace
from typing import NamedTuple

from ..errors import CacheError, ReadOnlyStoreError, StoreError, count
from ..pack import PACK_ID
from ..stores.base import MOST_LISTED, ObjectInfo, ReadStore, Store, read_small
from .ignored import state_of
from .layout import last
from .repository import Repository
from .union import Union

logger = logging.getLogger(__name__)

EXPIRES_S = 900.0
"""A record counts for so long: the members of a job start within some minutes, and a later job may have the same id."""
_NAME = re.compile(r"[0-9a-f]{32}\.[0-9]{8}(?:\.cold)?", re.ASCII)
_COLD = ".cold"
_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)
_MOST_BYTES = 65_536
_MOST_GENERATION = 99_999_999
_MOST_DELETED = 100
_TRIES = 8
"""Each time another process was faster to create the record."""


class ColdGroupError(CacheError):
    """The group starts cold: one of its processes cannot load what the others load."""


class _Record(NamedTuple):
    """The packs of a group, and the digest of the units in them."""

    packs: tuple[str, ...]
    units: str


_NONE = _Record((), "")


class Group:
    """The group of this process, in one environment.

    Args:
        store: The store.
        repository: The packs of the environment.
        name: What the members of the group have in common.
        read_only: Whether this process must not write.
        renews: Whether a record without packs may be followed by another one, because packs were published since then.
    """

    def __init__(
        self, store: Store, repository: Repository, name: str, *, read_only: bool = False, renews: bool = False
    ) -> None:
        self._store = store
        self._repository = repository
        self._name = name
        self._read_only = read_only
        self._renews = renews
        self._prefix = _prefix_of(repository.group_folder, name)
        self._record = ""
        """Name of the record that this process follows; empty if there is none."""
        self.state = ""
        """How this load uses the record: ``recorded``, ``followed``, or why there is none."""

    def union(self) -> Union:
        """Read the packs of the group. The first process of a group records them.

        Raises:
            ColdGroupError: The group starts cold.
            StoreError: The store could not be read.
        """
        for _ in range(_TRIES):
            generation, newest, is_cold = self._latest()
            record = _NONE
            if newest is not None:
                record = self._read(newest)
                if is_cold:
                    raise self._is_cold()
                if record.packs or not self._renews:
                    return self._follow(newest, record)
            union = _without_superseded(self._repository.union())
            if newest is not None and not union.units:
                return self._follow(newest, record)
            try:
                if self._create(f"{self._prefix}{generation + 1:08d}", _record_of(union)):
                    return union
            except ReadOnlyStoreError as error:
                return self._without(union, str(error))
        return self._without(self._repository.union(), "other processes create records all the time")

    def check(self, lost: Collection[str]) -> None:
        """Call this before files are put in place: afterwards it is too late to agree on a cold start.

        Args:
            lost: Why this process cannot load everything; empty if it can.

        Raises:
            ColdGroupError: The group starts cold.
            StoreError: The store could not be read.
        """
        if not self._record:
            return
        if lost:
            raise self._go_cold(next(iter(lost)))
        mark = self._store.open(self._record + _COLD)
        if mark is not None:
            mark.close()
            raise self._is_cold()

    def _latest(self) -> tuple[int, str | None, bool]:
        """The latest generation, the name of its record unless that has expired, and whether it is marked cold."""
        newest, is_cold = _newest(self._store, self._repository.group_folder, self._prefix)
        if newest is None:
            return 0, None, False
        generation = int(newest.name.rpartition(".")[2])
        if self._has_expired(newest):
            if generation == _MOST_GENERATION:  # no job has so many records: it is a fake
                self._store.delete(newest.name)
            return generation % _MOST_GENERATION, None, False
        return generation, newest.name, is_cold

    def _has_expired(self, info: ObjectInfo, times: int = 1) -> bool:
        if abs(time.time() - info.modified_s) <= EXPIRES_S:
            return False
        # This machine's clock may be wrong.
        age_s = time.time() - info.modified_s
        with suppress(StoreError):
            age_s = self._store.now() - info.modified_s
        return abs(age_s) > times * EXPIRES_S

    def _read(self, name: str) -> _Record:
        """Read a record. One that this package has not written has no packs, for every member alike."""
        data = read_small(self._store, name, _MOST_BYTES)
        if data is None:
            raise StoreError("read", name, "it was deleted")
        if (record := _decoded(data, self._repository.limits.load_packs)) is not None:
            return record
        logger.error("%s is no record of a group. The group starts cold until it expires", name)
        return _NONE

    def _follow(self, name: str, record: _Record) -> Union:
        """Read the packs of a record. Raises ColdGroupError if they are not what they were."""
        self._record, self.state = name, "followed"
        listed = self._repository.look(with_use=True)
        # A listing of NFS may lack a new pack. Marks count whether or not their packs are in the record: recalls
        # concern units of merged packs, too.
        packs = {
            pack_id: listed.packs.get(pack_id) or ObjectInfo(self._repository.name_of(pack_id), 0, 0.0)
            for pack_id in sorted(record.packs)
        }
        union = self._repository.union(listed=replace(listed, packs=packs))
        if not record.packs:
            return union
        for pack in union.rejected:
            if pack.id in packs:
                raise self._go_cold(f"pack {pack.id} is {state_of(pack.error)}")
        if lost := packs.keys() - {pack.id for pack in union.packs}:
            pack_id = min(lost)
            state = "set aside" if pack_id in listed.set_aside else "gone"
            raise self._go_cold(f"pack {pack_id} is {state}")
        if _record_of(union).units != record.units:
            raise self._go_cold("this process finds other units in the packs: after a recall, or with another version")
        return union

    def _create(self, name: str, record: _Record) -> bool:
        """Create a record, and delete expired ones; False if another process was faster. Raises ReadOnlyStoreError."""
        if self._read_only:
            raise ReadOnlyStoreError("write", self._store.location, "B10_READ_ONLY=1")
        content = json.dumps({"packs": record.packs, "units": record.units}).encode()
        if not self._store.create(name, io.BytesIO(content)):
            return False
        self._record, self.state = name, "recorded"
        with suppress(StoreError):
            for info in self._store.list(self._repository.group_folder)[:_MOST_DELETED]:
                if _is_ours(info) and info.name != name and self._has_expired(info, times=2):
                    self._store.delete(info.name)
        return True

    def _without(self, union: Union, why: str) -> Union:
        self.state = f"not recorded: {why}"
        logger.warning("the packs of the group %s are not recorded, so its processes may differ: %s", self._name, why)
        return union

    def _is_cold(self) -> ColdGroupError:
        self.state = "cold"
        return ColdGroupError(f"the group {self._name} starts cold: another process of it could not load its packs")

    def _go_cold(self, why: str) -> ColdGroupError:
        """Mark the group cold. Returns the error to raise."""
        self.state = "cold"
        content = json.dumps({"why": why, "host": socket.gethostname(), "pid": os.getpid()}).encode()
        try:
            if self._read_only:
                raise ReadOnlyStoreError("write", self._store.location, "B10_READ_ONLY=1")
            self._store.create(self._record + _COLD, io.BytesIO(content))
        except StoreError as error:
            logger.error("the other processes of the group %s do not know that it starts cold: %s", self._name, error)
        return ColdGroupError(f"the group {self._name} starts cold: {why}")


def packs_of_group(store: ReadStore, folder: str, name: str) -> tuple[str, frozenset[str] | None]:
    """What a group has recorded, without any change: a text for people, and the packs; None if any would be loaded.

    Args:
        store: The store.
        folder: The folder of the records of groups.
        name: What the members of the group have in common.

    Raises:
        StoreError: The store could not be read.
    """
    newest, is_cold = _newest(store, folder, _prefix_of(folder, name))
    if newest is None or (age_s := abs(time.time() - newest.modified_s)) >= EXPIRES_S:
        return "has no record: its next load records the packs that it finds", None
    if is_cold:
        return "starts cold: one of its processes could not load its packs", frozenset()
    record = _decoded(read_small(store, newest.name, _MOST_BYTES) or b"", MOST_LISTED)
    if record is None or not record.packs:
        return "has recorded that there is nothing to load", frozenset()
    return f"loads the {count(len(record.packs), 'pack')} that it recorded {age_s:.0f} s ago", frozenset(record.packs)


def _prefix_of(folder: str, name: str) -> str:
    digest = hashlib.sha256(b"b10-transfer group 1\n" + name.encode("utf-8", "surrogateescape")).hexdigest()
    return f"{folder}/{digest[:32]}."


def _newest(store: ReadStore, folder: str, prefix: str) -> tuple[ObjectInfo | None, bool]:
    """The latest record of a group, and whether it is marked cold."""
    found = {info.name: info for info in store.list(folder) if _is_ours(info) and info.name.startswith(prefix)}
    newest = max((name for name in found if not name.endswith(_COLD)), default=None)
    return (None, False) if newest is None else (found[newest], newest + _COLD in found)


def _decoded(data: bytes, most_packs: int) -> _Record | None:
    """The record in an object; None if this package has not written it."""
    with suppress(ValueError, TypeError, KeyError, RecursionError):
        found = json.loads(data)
        packs, units = found["packs"], found["units"]
        if (
            isinstance(packs, list)
            and len(packs) <= most_packs
            and all(isinstance(one, str) and PACK_ID.fullmatch(one) for one in packs)
            and isinstance(units, str)
            and _DIGEST.fullmatch(units)
        ):
            return _Record(tuple(packs), units)
    return None


def _without_superseded(union: Union) -> Union:
    """The same units, of the packs that are not deleted soon."""
    return replace(union, packs=tuple(pack for pack in union.packs if pack.id not in union.superseded))


def _record_of(union: Union) -> _Record:
    """The packs of a union, and the digest of its units with their origins."""
    packs = tuple(pack.id for pack in union.packs)
    units = sorted((name, pack.origin(unit)) for name, (pack, unit) in union.units.items())
    return _Record(packs, hashlib.sha256(json.dumps(units).encode()).hexdigest())


def _is_ours(info: ObjectInfo) -> bool:
    return _NAME.fullmatch(last(info.name)) is not None
