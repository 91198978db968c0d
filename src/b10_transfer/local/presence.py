"""Which units are already in a cache root."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from ..adapters import CacheRoot, Unit, UnitKind
from ..adapters.base import is_transient
from ..pack import PackUnit
from ..repository.union import Pack

Wanted = Mapping[str, tuple[Pack, PackUnit]]


def missing(units: Wanted, roots: Iterable[CacheRoot]) -> list[str]:
    """Names of the units that belong to one of ``roots`` and are not there."""
    by_name = {root.name: root for root in roots}
    exist = {name: os.path.exists(root.path) for name, root in by_name.items()}
    listings: dict[Path, list[str]] = {}
    absent = []
    for name, (_pack, unit) in units.items():
        root = name.partition("/")[0]
        if root in by_name and not (exist[root] and is_present(by_name[root], known_unit(unit), listings)):
            absent.append(name)
    return absent


def known_unit(unit: PackUnit) -> Unit:
    """A unit as its adapter knows it."""
    return Unit(below_root(unit.name), UnitKind(unit.kind))


def is_present(root: CacheRoot, unit: Unit, listings: dict[Path, list[str]]) -> bool:
    """Whether any artifact of a unit is there; locks and what a killed compiler left half written are none."""
    path = root.path / unit.path
    if unit.kind is UnitKind.FOLDER:
        try:
            return any(not is_transient(name) for name in os.listdir(path))
        except FileNotFoundError:
            return False
        except NotADirectoryError:
            return True
    if path.parent not in listings:
        try:
            listings[path.parent] = os.listdir(path.parent)
        except (FileNotFoundError, NotADirectoryError):
            listings[path.parent] = []
    folder = unit.path[: -len(path.name)]
    return any(
        name.startswith(path.name) and root.adapter.unit_of(folder + name) == unit for name in listings[path.parent]
    )


def below_root(name: str) -> str:
    """A path in a pack without the name of its root."""
    return name.partition("/")[2]
