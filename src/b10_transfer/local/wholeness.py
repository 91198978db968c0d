"""The units of an extra cache that cannot be saved whole, and why.

An adapter of a compiler knows which files are artifacts, and its units are whole without the others. Of an extra cache
nothing is known: a unit of which one entry cannot be saved is left out.
"""

from __future__ import annotations

import os
from collections.abc import Collection

from ..adapters import CacheRoot, Unit, closed_by_name, is_transient
from ..errors import LocalCacheError, printable

_MOST_NAMED = 10


class Wholeness:
    """The units of one root that a scan has found not to be whole.

    Args:
        root: A root of which every file is taken.
        foreign: Paths in it of the store and of other caches, and of what belongs to the file system.
    """

    def __init__(self, root: CacheRoot, foreign: Collection[str]) -> None:
        self._root = root
        self._foreign = foreign
        self._reserved = dict(root.reserved)
        self._errors: dict[str, LocalCacheError] = {}
        """Why units are left out, by the first component of their paths."""
        self._of_others: dict[str, str] = {}
        """A file of another cache with the same directory, for each unit that has such files."""

    @property
    def messages(self) -> list[str]:
        """Which units are left out, and why: a line for each if they are few, else of some, and a count."""
        lines = [str(error) for error in self._errors.values()]
        more = len(lines) - _MOST_NAMED
        if more > 0:
            lines[_MOST_NAMED:] = [f"{more} more of the files and folders in {self._root.path} are left out likewise"]
        return lines

    def is_partial(self, unit: Unit) -> bool:
        """Whether an entry of a unit cannot be saved. Ask when all of its folders were listed."""
        if unit.path not in self._errors and unit.path in self._of_others:
            self.leave_out(self._of_others[unit.path], "it belongs to another cache (name another directory)")
        return unit.path in self._errors

    def leave_out(self, path: str, reason: str) -> None:
        """Note why an entry cannot be saved, nor the unit that holds it."""
        unit = path.partition("/")[0]
        place = printable(f"{self._root.path}/{unit}")
        left = "it is left out" if path == unit else f"the whole folder {place} is left out"
        error = LocalCacheError("use", printable(f"{self._root.path}/{path}"), f"{reason}; {left}")
        self._errors.setdefault(unit, error)

    def check(self, path: str, entry: os.DirEntry[str]) -> None:
        """Note that an entry is neither saved nor entered. Locks and temporary files are no part of a unit."""
        unit, _, below = path.partition("/")
        if use := self._reserved.get(path) or closed_by_name(path):
            self.leave_out(path, f"it is {use} (move it out of the cache)")
            return
        if not below or is_transient(path):
            return
        if path in self._foreign:
            self.leave_out(path, "it is the store, the work directory or another cache (move it out of the folder)")
        elif entry.is_symlink():
            self.leave_out(path, "it is a link (replace it with a copy of its target)")
        elif entry.is_file(follow_symlinks=False):
            self._of_others.setdefault(unit, path)
        elif os.path.lexists(f"{self._root.path}/{path}"):
            self.leave_out(path, "it is neither a file nor a folder (remove it)")
