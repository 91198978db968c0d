"""The objects in the folders of an environment: packs, and the marks that set some of them aside."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from ..stores.base import ObjectInfo
from .layout import PRUNED, SUSPECT, Recall, marks_by_id, packs_by_id, recalls_by_id, records_by_day, starts_by_name

T = TypeVar("T")

RECALLED_STATE, PRUNED_STATE, SET_ASIDE_STATE = "recalled", "pruned", "set aside"


@dataclass(frozen=True)
class Listed:
    """All packs of an environment at one moment, by id. None of them has been read."""

    packs: Mapping[str, ObjectInfo]
    """Every pack's object, oldest first: those that are set aside as well."""
    damaged: Mapping[str, ObjectInfo]
    """The marks of packs that a saver found damaged."""
    pruned: Mapping[str, ObjectInfo]
    """The marks of packs that will be deleted."""
    recalls: Mapping[str, tuple[Recall, ...]]
    """The marks of packs that an operator recalled. Several operators may have recalled one."""
    suspected: Mapping[str, ObjectInfo]
    """The marks of packs in which a load or ``verify`` found damage. They count until a save has checked them."""
    records: Mapping[str, ObjectInfo] = field(default_factory=dict)
    """The records of use by day; empty if they were not listed."""
    starts: Mapping[str, ObjectInfo] = field(default_factory=dict)
    """The records of what starts used, by the last component of their names; empty if they were not listed."""

    @classmethod
    def of(
        cls,
        quarantine: Sequence[ObjectInfo],
        recalled: Sequence[ObjectInfo],
        packs: Sequence[ObjectInfo],
        used: Sequence[ObjectInfo] = (),
    ) -> Listed:
        """The content of the folders that :attr:`.layout.Place.listed` names, and of the records of use."""
        return cls(
            packs_by_id(packs),
            marks_by_id(quarantine),
            marks_by_id(quarantine, PRUNED),
            recalls_by_id(recalled),
            marks_by_id(quarantine, SUSPECT),
            records_by_day(used),
            starts_by_name(used),
        )

    def only(self, pack_ids: Collection[str]) -> Listed:
        """Of the packs these alone, without the marks of the others, and without records of use if there are others."""
        others = self.packs.keys() - pack_ids

        def kept(objects: Mapping[str, T]) -> dict[str, T]:
            return {pack_id: info for pack_id, info in objects.items() if pack_id not in others}

        return Listed(
            kept(self.packs),
            kept(self.damaged),
            kept(self.pruned),
            kept(self.recalls),
            kept(self.suspected),
            {} if others else self.records,
            {} if others else self.starts,
        )

    @property
    def used_s(self) -> float | None:
        """When the packs were last loaded, in seconds since 1970 on the store's clock; None if there is no record."""
        return max((info.modified_s for info in self.records.values()), default=None)

    def with_recalls(self, approves: Callable[[str, Recall], bool]) -> Listed:
        """With those recalls alone of which a mark is approved."""
        approved = {
            pack_id: marks for pack_id, marks in self.recalls.items() if any(approves(pack_id, mark) for mark in marks)
        }
        return replace(self, recalls=approved)

    @property
    def recalled(self) -> frozenset[str]:
        """Ids of the packs that an operator recalled."""
        return frozenset(self.recalls)

    @property
    def latest_recall(self) -> ObjectInfo | None:
        """The mark of the latest recall; None if nothing is recalled."""
        marks = [recall.info for recalls in self.recalls.values() for recall in recalls]
        return max(marks, key=lambda info: info.modified_s, default=None)

    def mark_of(self, pack_id: str) -> ObjectInfo | None:
        """The latest mark that sets a pack aside: of a recall, else of a prune, else of damage."""
        recalls = [recall.info for recall in self.recalls.get(pack_id, ())]
        latest = max(recalls, key=lambda info: info.modified_s, default=None)
        return latest or self.pruned.get(pack_id) or self.damaged.get(pack_id)

    @property
    def set_aside(self) -> frozenset[str]:
        """Ids of the packs that are ignored: damaged, pruned or recalled."""
        return frozenset((*self.damaged, *self.pruned, *self.recalls))

    @property
    def aside(self) -> dict[str, int]:
        """The number of packs that are set aside, by state."""
        states = [self.state_of(pack_id) for pack_id in self.packs.keys() & self.set_aside]
        return {state: states.count(state) for state in set(states)}

    def state_of(self, pack_id: str) -> str:
        """The state of a pack that is set aside."""
        if pack_id in self.recalls:
            return RECALLED_STATE
        return PRUNED_STATE if pack_id in self.pruned else SET_ASIDE_STATE

    @property
    def usable(self) -> dict[str, ObjectInfo]:
        """The packs that are not set aside, oldest first."""
        set_aside = self.set_aside
        return {pack_id: info for pack_id, info in self.packs.items() if pack_id not in set_aside}

    @property
    def marks(self) -> list[ObjectInfo]:
        """The marks of all kinds."""
        recalls = (recall.info for recalls in self.recalls.values() for recall in recalls)
        return [*self.damaged.values(), *self.pruned.values(), *self.suspected.values(), *recalls]
