"""What lies in the folders of an environment: packs, and the marks that set some of them aside."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..pack import PACK_ID
from ..stores.base import ObjectInfo

FOLDERS = ("packs", "quarantine", "recalled")
PRUNED = ".pruned"
"""How the name of a mark ends where somebody wants the pack gone; it lies in ``quarantine``."""
_PACK_NAME = re.compile(rf"(?P<id>{PACK_ID.pattern})\.tar\.zst", re.ASCII)


@dataclass(frozen=True)
class Listed:
    """All packs of an environment at one moment, by id. None of them has been read."""

    packs: Mapping[str, ObjectInfo]
    """Every pack's object, oldest first: those that are set aside as well."""
    pruned: Mapping[str, ObjectInfo]
    """The marks of packs that somebody wants gone."""
    recalled: frozenset[str]
    """Packs that an operator recalled."""
    set_aside: frozenset[str]
    """Packs that count as absent: a saver found them damaged, an operator recalled or pruned them."""

    @classmethod
    def of(
        cls, packs: Sequence[ObjectInfo], quarantine: Sequence[ObjectInfo], recalled: Sequence[ObjectInfo]
    ) -> Listed:
        """What the listings of the :data:`FOLDERS` say."""
        return cls(
            packs_by_id(packs),
            {marked(info): info for info in quarantine if info.name.endswith(PRUNED)},
            frozenset(map(marked, recalled)),
            frozenset(map(marked, (*quarantine, *recalled))),
        )

    @property
    def usable(self) -> dict[str, ObjectInfo]:
        """The packs that are not set aside, oldest first."""
        return {pack_id: info for pack_id, info in self.packs.items() if pack_id not in self.set_aside}


def packs_by_id(listed: Sequence[ObjectInfo]) -> dict[str, ObjectInfo]:
    """The packs of a listing; whatever else lies there is none."""
    found = ((_PACK_NAME.fullmatch(_last(info.name)), info) for info in listed)
    return {match.group("id"): info for match, info in found if match}


def marked(mark: ObjectInfo) -> str:
    """The id of the pack that a mark is about."""
    return _last(mark.name).removesuffix(PRUNED)


def _last(name: str) -> str:
    return name.rpartition("/")[2]
