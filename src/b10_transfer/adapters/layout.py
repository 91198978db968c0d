"""Allow-lists: the paths that a compiler writes below its cache root. Every other path is left alone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from ..concurrency.forks import cached_property
from .units import Unit, UnitKind, is_transient

_FOLDERS_REMEMBERED = 4096
ANY_DEPTH = "**"
"""Component of a shape: any number of folders, none included."""
NAME = r"[A-Za-z0-9_+-][A-Za-z0-9_.+-]*"
"""A name that a person or a program has chosen: an extension, an op, a source file."""
SHA256 = r"[0-9a-f]{64}"


class Shape:
    """Paths of one kind, as a pattern for each component.

    Args:
        kind: Whether the first components name a folder that is the unit, or the unit is a stem.
        unit: Patterns of the components that name the unit, separated by ``/``. No pattern holds a ``/`` itself.
        rest: FOLDER: patterns of the components below the unit. STEM: the pattern of what follows the unit's name.
    """

    # Patterns are compiled on first use: most pods use few of the caches, and compiling all takes milliseconds.

    def __init__(self, kind: UnitKind, unit: str, rest: str) -> None:
        self.kind = kind
        if kind is UnitKind.FOLDER:
            self._depth = unit.count("/") + 1
            *self._parents, self._file = f"{unit}/{rest}".split("/")
        else:
            self._depth = 0
            *self._parents, name = unit.split("/")
            self._file = f"({name}){rest}"
        self._fixed = self._parents.index(ANY_DEPTH) if ANY_DEPTH in self._parents else None
        """Number of folders before ``ANY_DEPTH``; None if the depth is fixed."""

    @cached_property
    def _name(self) -> re.Pattern[str]:
        return re.compile(self._file, re.ASCII)

    @cached_property
    def _folders(self) -> list[re.Pattern[str] | None]:
        return [None if part == ANY_DEPTH else re.compile(part, re.ASCII) for part in self._parents]

    def may_hold(self, folder: Sequence[str]) -> bool:
        """Whether files of this shape may lie in a folder or below it."""
        for part, pattern in zip(folder, self._folders, strict=False):
            if pattern is None:
                return True
            if not pattern.fullmatch(part):
                return False
        return len(folder) <= len(self._folders)

    def holds(self, folder: Sequence[str]) -> bool:
        """Whether files of this shape may lie in a folder itself."""
        if self._fixed is not None:
            return len(folder) >= self._fixed and self.may_hold(folder[: self._fixed])
        return len(folder) == len(self._parents) and self.may_hold(folder)

    def unit_in(self, folder: str) -> Unit | None:
        """The unit of all files of this shape in a folder; None if each file's name decides."""
        if self.kind is UnitKind.STEM:
            return None
        return Unit("/".join(folder.split("/")[: self._depth]), self.kind)

    def match(self, name: str) -> re.Match[str] | None:
        """Whether a file has the name of one of this shape."""
        return self._name.fullmatch(name)


def folder_shape(unit: str, files: str) -> Shape:
    """Files below a folder that is one unit."""
    return Shape(UnitKind.FOLDER, unit, files)


def stem_shape(unit: str, ends: str = "") -> Shape:
    """Files whose names begin alike. Without ``ends`` each file is a unit."""
    return Shape(UnitKind.STEM, unit, ends)


class Layout:
    """What a compiler writes.

    Args:
        shapes: Of the artifacts.
        left_here: Patterns of files and folders that the compiler writes and that are of no use elsewhere. A folder
            stands for all that it holds.
    """

    def __init__(self, *shapes: Shape, left_here: Sequence[str] = ()) -> None:
        self._shapes = shapes
        self._patterns_left_here = left_here
        self._shapes_in = lru_cache(maxsize=_FOLDERS_REMEMBERED)(self._find_shapes_in)

    @cached_property
    def _left_here(self) -> re.Pattern[str]:
        patterns = (f"(?:{pattern})(?:/.*)?" for pattern in self._patterns_left_here)
        return re.compile("|".join(patterns) or r"(?!)", re.ASCII)

    def unit_of(self, path: str) -> Unit | None:
        """The unit that a file belongs to; None if it is no artifact."""
        folder, _, name = path.rpartition("/")
        for shape, unit in self._shapes_in(folder):
            if found := shape.match(name):
                return unit or Unit(f"{folder}/{found.group(1)}" if folder else found.group(1), UnitKind.STEM)
        return None

    def may_hold(self, folder: str) -> bool:
        """Whether artifacts may lie in a folder or below it."""
        parts = folder.split("/")
        return not is_transient(folder) and any(shape.may_hold(parts) for shape in self._shapes)

    def is_left_here(self, path: str) -> bool:
        """Whether the compiler writes such a file or folder, which is not an artifact."""
        return is_transient(path) or self._left_here.fullmatch(path) is not None

    def _find_shapes_in(self, folder: str) -> tuple[tuple[Shape, Unit | None], ...]:
        if is_transient(folder):
            return ()
        parts = folder.split("/") if folder else []
        return tuple((shape, shape.unit_in(folder)) for shape in self._shapes if shape.holds(parts))
