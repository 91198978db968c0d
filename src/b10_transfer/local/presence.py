"""Finds units that are already in a cache root."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Mapping
from dataclasses import replace

from ..adapters import CacheRoot, Unit, UnitKind
from ..adapters.accumulation import MOST_BYTES
from ..errors import LocalCacheError
from ..pack import PackUnit
from ..repository.union import Pack
from .files import LocalFile, RootScan
from .ownership import open_private

Wanted = Mapping[str, tuple[Pack, PackUnit]]


def missing(units: Wanted, roots: Iterable[CacheRoot]) -> list[str]:
    """Names of the units that belong to one of ``roots`` and are not there, or not finished."""
    presence = {root.name: Presence(root) for root in roots}
    absent = []
    for name, (_pack, unit) in units.items():
        found = presence.get(name.partition("/")[0])
        if found is not None and (not found.has(known_unit(unit)) or found.lacks_results(unit)):
            absent.append(name)
    return absent


class Presence:
    """The units in a cache root at the time of the first look."""

    def __init__(self, root: CacheRoot) -> None:
        self._root = root
        self._stems: dict[str, dict[Unit, list[LocalFile]]] = {}
        """The units of folders that hold many."""
        self._reserved = {path.partition("/")[0] for path in root.other_places}
        """Names at the top of the root that lead to a place of another use."""
        # A file that a neighbour claims is there, too. Otherwise each load would restore it again.
        self._all = (
            Presence(replace(root, neighbours=())) if root.neighbours and not root.adapter.takes_everything else self
        )
        try:
            self._opened = open_private(root, to_restore=True)
        except LocalCacheError:  # it is not restored to either
            self._opened = None

    def has(self, unit: Unit) -> bool:
        """Whether a unit is there and its compiler has finished it.

        In an extra cache also if it must not be put there, because the place of another use has or would have its name.
        """
        takes_everything = self._root.adapter.takes_everything
        if takes_everything and unit.path in self._reserved:
            return True
        files = [file.path for file in self._all.files(unit)]
        if not files and takes_everything:
            return self._is_in_the_way(unit)
        return bool(files) and self._root.adapter.is_complete(self._root.path, unit, files)

    def _is_in_the_way(self, unit: Unit) -> bool:
        """Whether an extra cache has an entry of a unit's name that is another kind of entry, or is not whole.

        Nothing is added to such an entry.
        """
        if self._opened is None:
            return False
        try:
            mode = os.stat(unit.path, dir_fd=self._opened.descriptor, follow_symlinks=False).st_mode
        except OSError:
            return False
        if unit.kind is UnitKind.STEM or not stat.S_ISDIR(mode):
            return True
        scan = RootScan(self._opened)
        return any(scan.units(unit.path)) or (scan.wholeness is not None and scan.wholeness.is_partial(unit))

    def lacks_results(self, unit: PackUnit) -> bool:
        """Whether an existing file of results may lack some results of the stored one."""
        path = below_root(unit.name)
        if self._root.adapter.results_of(path) is None or unit.size > MOST_BYTES:
            return False
        try:
            local = (self._root.path / path).read_bytes()
        except OSError:
            return False
        return len(local) <= MOST_BYTES and hashlib.sha256(local).hexdigest() != unit.members[0].sha256

    def files(self, unit: Unit) -> list[LocalFile]:
        """The files of a unit that are there."""
        if self._opened is None:
            return []
        scan = RootScan(self._opened)
        if unit.kind is UnitKind.FOLDER:
            return next((files for found, files in scan.units(unit.path) if found == unit), [])
        folder = unit.path.rpartition("/")[0]
        if folder not in self._stems:
            self._stems[folder] = dict(scan.units(folder, deep=False))
        return self._stems[folder].get(unit, [])


def known_unit(unit: PackUnit) -> Unit:
    """A unit as its adapter knows it."""
    return Unit(below_root(unit.name), UnitKind(unit.kind))


def below_root(name: str) -> str:
    """A path in a pack without the name of its root."""
    return name.partition("/")[2]
