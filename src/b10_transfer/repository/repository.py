"""The packs of one environment and namespace in a store: how they are read, and how more are added.

The rules that make it safe without locks: packs are never rewritten, each appears whole under a unique name, and of
every unit the latest publication wins. So the union of any two savers' work is what both published. A pack is deleted
only when the union is the same without it, or when an operator pruned it (:mod:`.compaction`).
"""

from __future__ import annotations

import io
import logging
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, BinaryIO

from ..concurrency.deadline import Deadline
from ..environment import Environment
from ..errors import (
    CacheError,
    CorruptPackError,
    StoreError,
)
from ..pack import Budget, Limits
from ..stores.base import ObjectInfo, Store
from .layout import Place
from .listing import Listed
from .marks import content_of, operator
from .order import id_behind, new_id
from .reader import Content, ReadRepository
from .starts import record_start
from .union import Rejected, Union
from .use import record_use

if TYPE_CHECKING:
    from .signing import SigningKey, Trust

__all__ = ["Content", "ReadRepository", "Repository"]

logger = logging.getLogger(__name__)

_MOST_DESCRIBED_BYTES = 64 * 1024


class Repository(ReadRepository):
    """Reads packs and publishes more."""

    def __init__(
        self,
        store: Store,
        namespace: str,
        environment: Environment,
        limits: Limits,
        deadline: Deadline,
        trusted: Trust | None = None,
        signer: SigningKey | None = None,
    ) -> None:
        super().__init__(store, namespace, environment, limits, deadline, trusted)
        self._writable = store
        self._signer = signer

    @property
    def lease_folder(self) -> str:
        """The folder of the leases of this environment."""
        return self._place.leases

    def publish(self, pack: BinaryIO, behind: str | None = None) -> str:
        """Make a finished pack part of the union, as its latest, or right behind another one; returns its id.

        Raises StoreError if that fails, and then nothing is part of the union.
        """
        undescribed = self._describe()
        while True:
            self._deadline.check(f"publishing to {self._store.location}")
            pack_id = self._new_id() if behind is None else id_behind(behind)
            if self._signer is not None:
                self._signer.sign(pack, pack_id)
            pack.seek(0)
            if self._writable.create(self._place.pack(pack_id), pack):
                self._judged[pack_id] = True
                if undescribed is not None:  # now, because a store that refuses the pack too is one error
                    logger.warning("could not describe the environment in %s: %s", self._store.location, undescribed)
                return pack_id

    def quarantine(self, rejected: Rejected) -> None:
        """Mark a damaged pack, so that no pod reads it again. It stays where it is, so that people can examine it."""
        self._mark(self._place.damaged(rejected.id), rejected.id, rejected.error.detail)

    def suspect(self, rejected: Iterable[Rejected]) -> None:
        """Mark packs in which damage was found. They still count; the next save reads every byte of them.

        A pod that may not write leaves no marks.
        """
        for pack in rejected:
            if isinstance(pack.error, CorruptPackError):
                try:
                    self._mark(self._place.suspected(pack.id), pack.id, pack.error.detail)
                except StoreError as error:
                    logger.info("the damaged pack %s is not marked for the next save: %s", pack.id, error)
                    return

    def clear(self, pack_id: str) -> None:
        """Remove the mark of a suspect pack: it is whole, or it has been set aside."""
        self._writable.delete(self._place.suspected(pack_id))

    def recall(self, pack_id: str, why: str) -> bool:
        """Have loads ignore a pack, and saves publish nothing like it; False if it was recalled already.

        With a signing key the recall is signed.
        """
        signature = self._signer.sign_recall(self._place.folder, pack_id) if self._signer is not None else ""
        return self._mark(self._place.recalled(pack_id, signature), pack_id, why, operator())

    def reinstate(self, pack_id: str, *, only_recalls: bool = False) -> bool:
        """Remove whatever mark sets a pack aside, or only those of recalls; False if there was none."""
        listed = Listed.of(*self._store.list_each(self._place.listed))
        marks = [] if only_recalls else [self._place.damaged(pack_id), self._place.pruned(pack_id)]
        marks += [recall.info.name for recall in listed.recalls.get(pack_id, ())]
        removed = [self._writable.delete(mark) for mark in marks]
        return any(removed)

    def prune(self, pack_id: str, why: str) -> bool:
        """Have loads ignore a pack until it is deleted; False if it was marked so already."""
        return self._mark(self._place.pruned(pack_id), pack_id, why, operator())

    def delete(self, pack_ids: Sequence[str], listed: Listed) -> None:
        """Delete packs in this order, and then what marks them: without its mark a pack would count again.

        Marks in ``listed`` of packs that are no longer there go as well. The mark of a recall stays: what other packs
        hold of a recalled one does not count either.
        """
        for pack_id in pack_ids:
            self._deadline.check(f"deleting packs from {self._store.location}")
            self._writable.delete(self._place.pack(pack_id))
        for marks in (listed.damaged, listed.pruned, listed.suspected):
            for pack_id, mark in marks.items():
                # The process of an earlier deletion may have died before it deleted the mark.
                if pack_id in pack_ids or (pack_id not in listed.packs and not self._is_there(pack_id)):
                    self._writable.delete(mark.name)

    def remove(self, listed: Listed, *, description: bool = False) -> None:
        """Delete the packs and marks of a listing, and on request the description.

        At once, for people who want the room back now. A load that is reading one finds it unreadable. What a save has
        published since then is no part of the listing and stays. So do leases; they expire. Raises StoreError, and then
        what was not deleted yet is still there.
        """
        # Marks after packs: without its mark a damaged pack would count again.
        for info in (*listed.packs.values(), *listed.marks, *listed.records.values(), *listed.starts.values()):
            self._deadline.check(f"deleting packs from {self._store.location}")
            self._writable.delete(info.name)
        if description:
            self._writable.delete(self._place.description)

    def record_use(self, environment_ids: Iterable[str], union: Union) -> None:
        """Record that packs of this and other environments are used today, unless the union has a record of today."""
        for environment_id in sorted(environment_ids):
            record_use(self._writable, Place(self.namespace, environment_id), union.recorded_days)

    def record_start(self, used: Collection[str]) -> bool:
        """Record the units that a warm start used; whether a record was created. Raises StoreError."""
        return record_start(self._writable, self._place, self.look(with_use=True).starts, used)

    def forget_use(self, listed: Listed) -> None:
        """Delete all records of use but the latest."""
        for day in sorted(listed.records, key=lambda day: listed.records[day].modified_s)[:-1]:
            self._deadline.check(f"deleting records of use from {self._store.location}")
            self._writable.delete(listed.records[day].name)

    def description_info(self) -> ObjectInfo | None:
        """The object that describes the environment; None if there is none."""
        listed = self._store.list(self._place.folder)
        return next((info for info in listed if info.name == self._place.description), None)

    def _mark(self, name: str, pack_id: str, why: str, who: str = "") -> bool:
        return self._writable.create(name, io.BytesIO(content_of(pack_id, why, who=who)))

    def _is_there(self, pack_id: str) -> bool:
        source = self._store.open(self._place.pack(pack_id))
        if source is not None:
            source.close()
        return source is not None

    def _new_id(self) -> str:
        def is_valid(pack_id: str) -> bool:
            if pack_id not in self._judged:
                self._read(pack_id, Budget(self.limits))
            return self._judged.get(pack_id, True)  # one that cannot be read now may be valid

        valid = {pack_id for pack_id, is_sound in self._judged.items() if is_sound}
        return new_id(self.listing(), valid, is_valid, self._writable.now, self.limits.load_packs)

    def _describe(self) -> CacheError | None:
        """Leave the environment's parts beside its packs, for people and for explanations of a miss.

        Returns why that failed, or None.
        """
        name, expected = self._place.description, self.environment.to_json()
        try:
            source = self._store.open(name)
            if source is not None:
                with source:
                    if source.size_bytes == len(expected) and source.read_at(0, len(expected)) == expected:
                        return None
                self._writable.delete(name)  # damaged: what is written instead is what it always was
            self._writable.create(name, io.BytesIO(expected))
        except CacheError as error:
            return error
        return None
