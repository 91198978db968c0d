"""The union of the packs of one environment: the latest publication of each unit.

A pack that was merged from others holds units of several origins. Which is the latest goes by origin, so a union is the
same with the old packs still there, merged, or deleted.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from ..concurrency.forks import cached_property
from ..environment import command_line
from ..errors import PackError, printable
from ..pack import Index, PackUnit
from ..stores.base import ObjectInfo
from .order import published_ms

_SETTLED_MS = 3_600_000
_MOST_COMMANDS = 5


@dataclass(frozen=True)
class Pack:
    """A pack whose index has been read and verified."""

    id: str
    name: str
    """The object's name in the store."""
    index: Index
    packed_bytes: int
    is_partial: bool = False
    """Whether the object also holds units that are not in ``index``, and that another pod may know."""
    ignored: tuple[str, ...] = ()
    """Why units of it are ignored."""

    def origin(self, unit: PackUnit) -> str:
        """The id of the pack that published a unit of this one."""
        return unit.origin or self.id

    @cached_property
    def origins(self) -> frozenset[str]:
        """Ids of the packs that published what it holds: its own, unless it was merged."""
        return frozenset(self.origin(unit) for unit in self.index.units)

    @property
    def is_merged(self) -> bool:
        """Whether it holds what other packs published."""
        return not self.origins <= {self.id}


class Rejected(NamedTuple):
    """A pack that counts as absent, and why."""

    id: str
    error: PackError
    units: frozenset[str] | None = None
    """Names of its units; None if its index could not be used."""


@dataclass(frozen=True)
class Union:
    """The union of the packs of a repository, at one moment."""

    packs: tuple[Pack, ...]
    """Usable packs, oldest first."""
    rejected: tuple[Rejected, ...]
    recalled: frozenset[str] = frozenset()
    """Ids of the packs that an operator recalled: what they published counts in no other pack either."""
    unread: tuple[str, ...] = ()
    """Ids of packs that were not read, because a load opens only so many. They are older than all others."""
    suspect: frozenset[str] = frozenset()
    """Ids of packs in which a load or ``verify`` found damage. They count until a save has checked them."""
    withheld: frozenset[str] = frozenset()
    """Names of units that were recalled, as far as they were looked up. The union may hold other versions of them."""
    latest_recall: ObjectInfo | None = None
    """The mark of the latest recall."""
    recall_note: str = ""
    """When and why that was, and who did it, if ``withheld`` was looked up."""
    aside: Mapping[str, int] = field(default_factory=dict)
    """Number of packs that were recalled, pruned and set aside."""
    recorded_days: frozenset[str] = frozenset()
    """Days for which the store has a record of use."""
    starts: str = ""
    """Name of the object with the latest record of what warm starts used; empty if there is none."""

    @property
    def commands(self) -> tuple[str, ...]:
        """The recorded command lines of the servers that saved the latest packs, bounded and printable."""
        found: dict[str, None] = {}
        for pack in reversed(self.packs):
            if text := pack.index.recorded.get(command_line.NAME, ""):
                found[printable(text[: command_line.MOST_CHARACTERS])] = None
            if len(found) == _MOST_COMMANDS:
                break
        return tuple(reversed(found))

    @property
    def ignored(self) -> int:
        """How many packs cannot be used or were not read."""
        return len(self.rejected) + len(self.unread)

    @cached_property
    def units(self) -> Mapping[str, tuple[Pack, PackUnit]]:
        """Every unit by name, as published last; of packs that hold the same, out of the latest."""
        found: dict[str, tuple[Pack, PackUnit]] = {}
        for pack in self.packs:
            for unit in pack.index.units:
                if unit.origin in self.recalled:
                    continue
                known = found.get(unit.name)
                if known is None or known[0].origin(known[1]) <= pack.origin(unit):
                    found[unit.name] = (pack, unit)
        return found

    def versions(self, name: str) -> list[tuple[Pack, PackUnit]]:
        """Every publication of a unit that counts, the oldest first; of packs that hold the same, one."""
        found = self._versions.get(name, {})
        return [found[origin] for origin in sorted(found)]

    @cached_property
    def _versions(self) -> Mapping[str, Mapping[str, tuple[Pack, PackUnit]]]:
        """The publications of each unit, by name and origin."""
        found: dict[str, dict[str, tuple[Pack, PackUnit]]] = {}
        for pack in self.packs:
            for unit in pack.index.units:
                if unit.origin not in self.recalled:
                    found.setdefault(unit.name, {})[pack.origin(unit)] = (pack, unit)
        return found

    @cached_property
    def superseded(self) -> Mapping[str, Pack]:
        """Packs that add nothing any more, by id, each with a merged pack that holds all of it, as new or newer.

        Only ever a pack of a later id, so that of two that hold the same one stays. A pack that holds anything recalled
        is none: it says what must not come back.
        """
        merged = [
            (pack, {unit.name: pack.origin(unit) for unit in pack.index.units if unit.origin not in self.recalled})
            for pack in self.packs
            if pack.is_merged
        ]
        found: dict[str, Pack] = {}
        for pack in self.packs:
            for other, held in merged:
                if (
                    not pack.is_partial
                    and pack.id < other.id
                    and not self.holds_recalled(pack)
                    and all(pack.origin(unit) <= held.get(unit.name, "") for unit in pack.index.units)
                ):
                    found[pack.id] = other
                    break
        return found

    def holds_recalled(self, pack: Pack) -> bool:
        """Whether a pack holds anything that an operator recalled."""
        return not self.recalled.isdisjoint(pack.origins)

    def settled(self) -> set[str]:
        """Names of the units that were published long enough ago to be replaced.

        A compiler that never accepts what it finds would otherwise have every start publish.
        """
        now_ms = time.time() * 1000
        return {
            name for name, (pack, unit) in self.units.items() if now_ms - published_ms(pack.origin(unit)) > _SETTLED_MS
        }

    def without(self, pack: Pack, error: PackError) -> Union:
        """This union if ``pack`` were not there."""
        return replace(
            self,
            packs=tuple(other for other in self.packs if other.id != pack.id),
            rejected=(*self.rejected, Rejected(pack.id, error, frozenset(unit.name for unit in pack.index.units))),
        )
