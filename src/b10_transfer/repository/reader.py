"""Reads the packs of one environment and namespace in a store."""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from ..concurrency.deadline import Deadline
from ..environment import Environment
from ..errors import (
    CorruptPackError,
    PackError,
    StoreError,
    UnreadablePackError,
)
from ..notices import notices
from ..pack import Budget, Limits, PackReader
from ..stores.base import ObjectInfo, ReadStore, read_small
from .admission import admit, check_content
from .layout import Place, Recall, packs_by_id
from .listing import Listed
from .marks import MOST_READ, Mark, read_mark
from .order import named
from .starts import NONE, Starts, latest_of, read_starts
from .union import Pack, Rejected, Union

if TYPE_CHECKING:
    from .signing import Trust

logger = logging.getLogger(__name__)

_MOST_DESCRIBED_BYTES = 64 * 1024
_MOST_RECALLED_NAMED = 16
"""A load reads the indexes of so many recalled packs, to report what is missing. Each costs a request."""
MOST_FALSE_RECALLS = 1000
"""One listing checks so many recalls with wrong signatures. Each takes 0.2 ms, and any writer can create them."""
Content = frozenset[tuple[str, str]]
"""The content of a unit: path in the pack and SHA-256 of each file."""


class ReadRepository:
    """Reads the packs of one environment and namespace; with ``trusted`` keys, only those that one of them signed."""

    def __init__(
        self,
        store: ReadStore,
        namespace: str,
        environment: Environment,
        limits: Limits,
        deadline: Deadline,
        trusted: Trust | None = None,
    ) -> None:
        self.environment = environment
        self.namespace = namespace
        self.limits = limits
        self._store = store
        self._deadline = deadline
        self._trusted = trusted
        self._place = Place(namespace, environment.id)
        self._judged: dict[str, bool] = {}
        """Whether packs are valid, of those that could be read."""

    def union(
        self, *, verify_frames: bool = False, listed: Listed | None = None, budget: Budget | None = None
    ) -> Union:
        """Read the packs' indexes, newest first, and with ``verify_frames`` check every byte of these packs as well.

        The packs are those of ``listed``, or of a new listing, and are charged to ``budget``, or to a new one. A pack
        that cannot be used is in ``rejected``, and so is one that a load has no room for beside newer ones. Raises
        StoreError if the store cannot be read.
        """
        self._deadline.check(f"listing the packs in {self._store.location}")
        listed = self.look(with_use=True) if listed is None else listed
        newest_first = sorted(listed.usable, reverse=True)
        ids, unread = newest_first[: self.limits.load_packs], newest_first[self.limits.load_packs :]
        budget = Budget(self.limits) if budget is None else budget
        packs: list[Pack] = []
        rejected: list[Rejected] = []
        # A store in which opening takes a while opens them ahead, in this order.
        self._store.expect([self._place.pack(pack_id) for pack_id in ids])
        for pack_id in ids:
            self._deadline.check(f"reading the packs in {self._store.location}")
            found = self._read(pack_id, budget, verify_frames=verify_frames)
            if isinstance(found, Pack):
                packs.append(found)
            elif found is not None:
                rejected.append(found)
        _log_ignored_units(packs)
        return Union(
            tuple(reversed(packs)),
            tuple(reversed(rejected)),
            listed.recalled,
            tuple(reversed(unread)),
            frozenset(listed.suspected),
            latest_recall=listed.latest_recall,
            aside=listed.aside,
            recorded_days=frozenset(listed.records),
            starts=latest_of(listed.starts),
        )

    def starts(self, union: Union) -> Starts:
        """What warm starts used; nothing if there is no record, or if it cannot be read."""
        try:
            return read_starts(self._store, union.starts)
        except StoreError as error:
            logger.debug("the record of what starts use is not read: %s", error)
            return NONE

    def each(self) -> Iterator[Pack | Rejected]:
        """Every pack, oldest first and one at a time, every byte of it checked; a whole load's limits do not apply."""
        for pack_id in self.look().usable:
            self._deadline.check(f"reading the packs in {self._store.location}")
            found = self._read(pack_id, Budget(self.limits), verify_frames=True)
            if found is not None:
                yield found

    def is_current(self, union: Union) -> bool:
        """Whether no pack has come or gone since a union was read."""
        known = {pack.id for pack in union.packs} | {pack.id for pack in union.rejected} | set(union.unread)
        return self.look().usable.keys() == known

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

    def look(self, *, with_use: bool = False) -> Listed:
        """Every pack's object, and what sets packs aside, in one listing where the store can do that; none is read.

        On request also the records of use.
        """
        records = [self._place.records] if with_use else []
        *used, quarantine, recalled, packs = self._store.list_each([*records, *self._place.listed])
        listed = Listed.of(quarantine, recalled, packs, *used)
        trusted = self._trusted
        if trusted is None or not listed.recalls:
            return listed
        folder, wrong = self._place.folder, 0

        def approves(pack_id: str, mark: Recall) -> bool:
            nonlocal wrong
            approval = trusted.approves_recall(folder, pack_id, mark.signature)
            wrong += approval is False
            if wrong > MOST_FALSE_RECALLS:
                where = mark.info.name.rpartition("/")[0]
                detail = f"it holds more than {MOST_FALSE_RECALLS} recalls with wrong signatures; delete them"
                raise StoreError("read", f"{self._store.location}/{where}", detail)
            return approval is True

        approved = listed.with_recalls(approves)
        if ignored := sorted(listed.recalled - approved.recalled):
            message = (
                f"recalls that no trusted key has signed are ignored: {named(ignored)}; recall with B10_SIGNING_KEY"
            )
            notices.log(logger, logging.WARNING, message)
        return approved

    @property
    def group_folder(self) -> str:
        """The folder of the records of groups (:mod:`.group`)."""
        return self._place.groups

    def name_of(self, pack_id: str) -> str:
        """The name of a pack's object."""
        return self._place.pack(pack_id)

    def listing(self) -> dict[str, ObjectInfo]:
        """Every pack's object by the pack's id, oldest first: those that are set aside as well, and none is read."""
        return packs_by_id(self._store.list(self._place.listed[-1]))

    def with_recalled_names(self, union: Union) -> Union:
        """The same union with the names of recalled units, from at most 16 recalled packs, the newest."""
        if not union.recalled:
            return union
        return self.with_note(replace(union, withheld=frozenset(self.recalled_content(union, _MOST_RECALLED_NAMED))))

    def with_note(self, union: Union) -> Union:
        """The same union with who made the latest recall, when and why, if units are withheld."""
        if union.latest_recall is None or not union.withheld:
            return union
        return replace(union, recall_note=str(read_mark(self._store, union.latest_recall)))

    def marks_of(self, pack_ids: Iterable[str], listed: Listed, most: int = MOST_READ) -> dict[str, Mark]:
        """Who set packs aside, when and why. Only the latest ``most`` marks are read; the others have only a time."""
        found = [(pack_id, info) for pack_id in pack_ids if (info := listed.mark_of(pack_id)) is not None]
        found.sort(key=lambda one: one[1].modified_s, reverse=True)
        marks = {pack_id: Mark(info.modified_s) for pack_id, info in found[most:]}
        for pack_id, info in found[:most]:
            self._deadline.check(f"reading marks in {self._store.location}")
            marks[pack_id] = read_mark(self._store, info)
        return marks

    def recalled_content(self, union: Union, most: int | None = None) -> dict[str, set[Content]]:
        """The content of the recalled packs, by unit. Pods that have restored it must not publish it again.

        A recalled pack that cannot be read is left out, and so is one that exceeds the memory of a load.

        Args:
            union: The union, which names the recalled packs.
            most: How many recalled packs are read, the newest first. Default: as many as a load reads.
        """
        budget = Budget(self.limits)
        found: dict[str, set[Content]] = {}
        withheld = [unit for pack in union.packs for unit in pack.index.units if unit.origin in union.recalled]
        for pack_id in sorted(union.recalled, reverse=True)[: most or self.limits.load_packs]:
            pack = self._read(pack_id, budget)
            if isinstance(pack, Pack):
                withheld += pack.index.units
        for unit in withheld:
            content = frozenset((member.path, member.sha256) for member in unit.members)
            found.setdefault(unit.name, set()).add(content)
        return found

    def origins(self) -> dict[str, frozenset[str]]:
        """For every pack there is, set aside or not, the ids of the packs that published what it holds.

        One that cannot be read counts as holding what it published itself.
        """
        found: dict[str, frozenset[str]] = {}
        for pack_id in self._ids():
            pack = self._read(pack_id, Budget(self.limits))
            found[pack_id] = pack.origins if isinstance(pack, Pack) else frozenset({pack_id})
        return found

    def with_deadline(self, deadline: Deadline) -> ReadRepository:
        """The same packs with another deadline, for work that must leave time for more."""
        other = copy.copy(self)
        other._deadline = deadline
        return other

    def is_whole(self, pack: Pack) -> bool:
        """Whether every byte of a pack is still there, and as it was published."""
        return isinstance(self.checked(pack), Pack)

    def checked(self, pack: Pack) -> Pack | Rejected | None:
        """Read every byte of a pack: the pack, why it cannot be used, or None if it was deleted."""
        return self._read(pack.id, Budget(self.limits), verify_frames=True)

    def described_parts(self) -> dict[str, str] | None:
        """The environment's parts as its ``environment.json`` names them; None if that is missing or not as written."""
        data = read_small(self._store, self._place.description, _MOST_DESCRIBED_BYTES)
        if data is None:
            return None
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

    def read(self, pack_id: str) -> Pack | Rejected | None:
        """Read one pack, and check every byte of it; None if there is no such pack."""
        return self._read(pack_id, Budget(self.limits), verify_frames=True)

    def _read(self, pack_id: str, budget: Budget, *, verify_frames: bool = False) -> Pack | Rejected | None:
        # What a client of NFS has cached of a file may be stale until it opens it again: it is read twice.
        for is_last in (False, True):
            try:
                found = self._read_once(pack_id, budget, verify_frames)
                break
            except PackError as error:
                if isinstance(error, UnreadablePackError):
                    return Rejected(pack_id, error.with_traceback(None))
                if is_last or not isinstance(error, CorruptPackError):
                    self._judged[pack_id] = False
                    return Rejected(pack_id, _without_memory(error))
        self._judged[pack_id] = found is not None
        return found

    def _read_once(self, pack_id: str, budget: Budget, verify_frames: bool) -> Pack | None:
        name = self._place.pack(pack_id)
        try:
            source = self._store.open(name)
            if source is None:  # deleted since it was listed: superseded or pruned, hence nothing is missing
                return None
            with source:
                approve = partial(self._trusted.check, pack_id) if self._trusted is not None else None
                reader = PackReader(pack_id, source, self.limits, self._deadline, approve)
                admitted = admit(pack_id, reader.read_index(budget), self.namespace, self.environment.id)
                if verify_frames:
                    check_content(pack_id, reader, admitted.index)
                budget.take(pack_id, admitted.index.memory, admitted.index.room_bytes)
                return Pack(pack_id, name, admitted.index, source.size_bytes, admitted.is_partial, admitted.ignored)
        except StoreError as error:
            raise UnreadablePackError(pack_id, str(error)) from error


def _without_memory(error: PackError) -> PackError:
    """An error without the frames that raised it and its cause: those hold an index, and rejected packs may be many."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)


def _log_ignored_units(packs: Sequence[Pack]) -> None:
    """Log which units of usable packs are ignored, in one line however many packs they are in."""
    found = [pack for pack in packs if pack.ignored]
    if found:
        others = f" (and units of {len(found) - 1} more packs)" if len(found) > 1 else ""
        logger.info("pack %s: %s%s", found[0].id, "; ".join(found[0].ignored), others)
