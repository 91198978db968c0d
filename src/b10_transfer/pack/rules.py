"""The rules that paths, digests and numbers in an index keep, checked for many at once.

Each check works on a whole column with operations that run in C, and looks for the culprit only if that fails.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

_CHARACTERS = bytes(set(range(0x20, 0x7F)) - {ord("\\")})
"""Of which a path consists: printable ASCII without a backslash."""
_HEXADECIMAL = b"0123456789abcdef"
_NOT_PLAIN = ("//", "/./", "/../", "/ ", " /")
"""Forbidden between two slashes: an empty component, ``.``, ``..``, a blank at an end of a component."""


def storable(path: str) -> bool:
    """Whether the format has room for a file of this path (``/``-separated, relative).

    Components are printable ASCII without a backslash, at most 255 long, without a blank at either end, and none is
    empty, ``.`` or ``..``; the whole is at most 1024 long.
    """
    return _all_plain([path])


def check_paths(paths: Sequence[Any]) -> None:
    """Raise ValueError unless every value is a :func:`storable` path."""
    if set(map(type, paths)) != {str} or not _all_plain(paths):
        culprit = next(path for path in paths if not isinstance(path, str) or not storable(path))
        raise ValueError(f"{culprit!a:.80} is not an allowed path")


def check_digests(values: Sequence[Any]) -> None:
    """Raise ValueError unless every value is a SHA-256 in lower-case hexadecimal."""
    if not _all_digests(values):
        culprit = next(value for value in values if not _all_digests([value]))
        raise ValueError(f"{culprit!a:.80} is not a SHA-256")


def check_numbers(values: Sequence[Any], smallest: int, largest: int) -> None:
    """Raise ValueError unless every value is an integer of the range (to Python, but not here, True is one)."""
    if set(map(type, values)) != {int} or min(values) < smallest or max(values) > largest:
        culprit = next(value for value in values if type(value) is not int or not smallest <= value <= largest)
        raise ValueError(f"{culprit!a:.80} is not a number from {smallest} to {largest}")


def _all_digests(values: Sequence[Any]) -> bool:
    if not set(map(type, values)) <= {str} or not set(map(len, values)) <= {64}:
        return False
    text = "".join(values)
    return text.isascii() and not text.encode().translate(None, _HEXADECIMAL)


def _all_plain(paths: Sequence[str]) -> bool:
    lines = "\n".join(paths)
    if not lines.isascii() or len(lines.encode().translate(None, _CHARACTERS)) != len(paths) - 1:
        return False
    framed = "/" + lines.replace("\n", "/\n/") + "/"
    longest = max(map(len, paths))
    return (
        lines.count("\n") == len(paths) - 1
        and not any(fragment in framed for fragment in _NOT_PLAIN)
        and longest <= 1024
        and (longest <= 255 or max(map(len, framed.split("/"))) <= 255)
    )


def folder_text(folders: Collection[str]) -> int:
    """Characters of some folders' paths, each counted with 100 more: one path may name 500 folders."""
    return sum(map(len, folders)) + 100 * len(folders)


class DistinctPaths:
    """Paths of files that do not get in each other's way, even where upper and lower case count as equal."""

    def __init__(self, most_folder_text: int | None = None) -> None:
        """``most_folder_text``: the most that folders may count by :func:`folder_text`; no limit by default."""
        self._files: set[str] = set()
        self._folders: dict[str, str] = {}
        self._most_folder_text = most_folder_text
        self._folder_text = 0

    @property
    def folders(self) -> int:
        """How many folders lie above the files."""
        return len(self._folders)

    def add(self, paths: Sequence[str]) -> None:
        """Take paths in. Raises ValueError if one is there already, or is a folder, or lies in a file, of another."""
        files = set("\n".join(paths).lower().split("\n")) if paths else set()
        if len(files) < len(paths) or not self._files.isdisjoint(files) or not self._folders.keys().isdisjoint(files):
            raise ValueError(f"{self._culprit(paths)!a:.120} is there twice (upper and lower case count as equal)")
        self._files |= files
        for folder in dict.fromkeys(path.rpartition("/")[0] for path in paths):
            self._enter(folder)

    def _culprit(self, paths: Iterable[str]) -> str:
        """The first of some paths that is there already."""
        seen: set[str] = set()
        for path in paths:
            lowered = path.lower()
            if lowered in seen or lowered in self._files or lowered in self._folders:
                return path
            seen.add(lowered)
        raise AssertionError("none of these paths is there twice")

    def _enter(self, folder: str) -> None:
        """Note a folder and those above it, by their lower-case spelling."""
        while folder:
            lowered = folder.lower()
            known = self._folders.setdefault(lowered, folder)
            if known is not folder:
                if known != folder:
                    raise ValueError(f"folders {folder!a:.120} and {known!a:.120} differ by case alone")
                return
            if lowered in self._files:
                raise ValueError(f"{folder!a:.120} is both a file and a folder")
            self._folder_text += folder_text((folder,))
            if self._most_folder_text is not None and self._folder_text > self._most_folder_text:
                raise ValueError("its files lie in more folders than any compiler makes")
            folder = folder.rpartition("/")[0]
