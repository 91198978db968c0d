"""What lies in the folders of an environment: packs, and the marks that set some of them aside."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from ..stores.base import ObjectInfo
from .layout import PRUNED, SUSPECT, marks_by_id, packs_by_id


@dataclass(frozen=True)
class Listed:
    """All packs of an environment at one moment, by id. None of them has been read."""

    packs: Mapping[str, ObjectInfo]
    """Every pack's object, oldest first: those that are set aside as well."""
    damaged: Mapping[str, ObjectInfo]
    """The marks of packs that a saver found damaged."""
    pruned: Mapping[str, ObjectInfo]
    """The marks of packs that will be deleted."""
    recalls: Mapping[str, ObjectInfo]
    """The marks of packs that an operator recalled."""
    suspected: Mapping[str, ObjectInfo]
    """The marks of packs in which a load or ``verify`` found damage. They count until a save has checked them."""

    @classmethod
    def of(
        cls, quarantine: Sequence[ObjectInfo], recalled: Sequence[ObjectInfo], packs: Sequence[ObjectInfo]
    ) -> Listed:
        """The content of the folders that :attr:`.layout.Place.listed` names."""
        return cls(
            packs_by_id(packs),
            marks_by_id(quarantine),
            marks_by_id(quarantine, PRUNED),
            marks_by_id(recalled),
            marks_by_id(quarantine, SUSPECT),
        )

    def only(self, pack_ids: Collection[str]) -> Listed:
        """Of the packs these alone, without the marks of the others."""
        others = self.packs.keys() - pack_ids

        def kept(objects: Mapping[str, ObjectInfo]) -> dict[str, ObjectInfo]:
            return {pack_id: info for pack_id, info in objects.items() if pack_id not in others}

        return Listed(kept(self.packs), kept(self.damaged), kept(self.pruned), kept(self.recalls), kept(self.suspected))

    @property
    def recalled(self) -> frozenset[str]:
        """Ids of the packs that an operator recalled."""
        return frozenset(self.recalls)

    @property
    def set_aside(self) -> frozenset[str]:
        """Ids of the packs that are ignored: damaged, pruned or recalled."""
        return frozenset((*self.damaged, *self.pruned, *self.recalls))

    @property
    def usable(self) -> dict[str, ObjectInfo]:
        """The packs that are not set aside, oldest first."""
        set_aside = self.set_aside
        return {pack_id: info for pack_id, info in self.packs.items() if pack_id not in set_aside}

    @property
    def marks(self) -> list[ObjectInfo]:
        """The marks of all kinds."""
        found = (self.damaged, self.pruned, self.recalls, self.suspected)
        return [mark for marks in found for mark in marks.values()]
