"""The limits of a pack and of a whole load: a reader enforces them, a writer keeps to them.

A load takes packs newest first. Each pack that it takes is charged to a :class:`Budget`; a pack that does not fit is
left out, and older packs that fit are still taken. The defaults keep a load below 400 MB of memory, whatever a store
holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import add
from typing import TYPE_CHECKING, NamedTuple

from ..errors import PackTooLargeError
from .rules import folder_text

if TYPE_CHECKING:
    from ..config import Config

MB = 1024 * 1024
MAX_EXTENSION_BYTES = 64 * 1024
"""A signature takes some 200 bytes."""
MAX_FRAMES = 65_536
"""In one pack: twice as many as a pack of 32 GiB has."""
BLOCK_BYTES = 4096
"""A file system allots this much for a file or a folder at least."""
MAX_FOLDER_TEXT = 40 * MB
"""Of one pack's folders, by :func:`~.rules.folder_text`: a reader keeps them while it checks an index."""
_FILES = 200_000
_VALUE_BYTES, _LIST_BYTES, _TEXT_BYTES = 40, 64, 24
"""Memory that a value, a list or an object, and a text of JSON take in Python, beyond their own characters."""
_MOST_NUMBERS = 126
"""Characters of a file's fields in an index, without its path: digest, numbers, punctuation."""
_MOST_UNIT = 120
"""Characters of a unit in an index, without its name and its files: keys, kind, origin, punctuation."""
_MOST_FRAME = 100
"""Characters of a frame in an index."""
_HEADER_BYTES = 64 * 1024
"""Of an index, for everything but units and frames: the environment's parts, facts that are recorded."""
_FILES_VARIABLE = "B10_MAX_FILES"


@dataclass(frozen=True)
class Limits:
    """Limits that a reader enforces and a writer keeps to. Sizes are in bytes."""

    packed_bytes: int
    """Largest pack (MAX_CACHE_SIZE_MB)."""
    raw_bytes: int
    """Largest sum of the sizes of a pack's files."""
    members: int = _FILES
    """Most files in a pack (B10_MAX_FILES)."""
    index_bytes: int = 64 * MB
    """Largest index of a pack, packed or unpacked."""
    load_packs: int = 4096
    """A load opens this many packs, the newest."""
    load_index_bytes: int = 256 * MB
    """A load fetches this much of indexes, also of packs that it then refuses."""
    load_memory: int = 224 * MB
    """The indexes of a load take this much memory together, by :func:`memory_of`."""
    load_bytes: int = 8192 * MB
    """The files of a load take this much room together, and so do its packs (B10_MAX_RESTORE_MB)."""

    @classmethod
    def for_packs_of(cls, packed_bytes: int) -> Limits:
        """The limits that go with a largest pack: real artifacts shrink about tenfold, 32-fold is a bomb."""
        return cls(packed_bytes=packed_bytes, raw_bytes=max(32 * packed_bytes, 1 << 30))

    @classmethod
    def of(cls, config: Config) -> Limits:
        """The limits of an operation's settings."""
        packed_bytes, files = config.max_pack_bytes, config.max_files
        scale = max(files / _FILES, 1.0)
        return cls(
            packed_bytes=packed_bytes,
            raw_bytes=max(32 * packed_bytes, 1 << 30),
            members=files,
            index_bytes=int(scale * cls.index_bytes),
            load_index_bytes=int(scale * cls.load_index_bytes),
            load_memory=int(scale * cls.load_memory),
            load_bytes=config.max_restore_bytes,
        )


class Amount(NamedTuple):
    """The resources that some units take in a pack. A writer adds them up, and so knows when a pack is full."""

    files: int = 0
    raw_bytes: int = 0
    index_bytes: int = 0
    """At most, of an index that holds them."""
    memory: int = 0
    """At most, in a reader of that index."""
    disk_bytes: int = 0
    """At most, restored."""
    folder_text: int = 0

    def plus(self, other: Amount) -> Amount:
        """Both together, at most."""
        return Amount(*map(add, self, other))

    @classmethod
    def of_unit(cls, name: str, paths: Sequence[str], raw_bytes: int) -> Amount:
        """The resources of one unit with these files."""
        text = "\n".join((name, *paths))
        files, quotes = len(paths), text.count('"')
        index_bytes = len(text) + quotes + _MOST_UNIT + files * _MOST_NUMBERS
        values = 5 + 6 * files + text.count(",")
        lists = 2 + files + text.count("[") + text.count("{")
        memory = index_bytes + _memory(values, lists, 2 * (8 + 2 * files) + quotes)
        folders = folders_above(paths)
        disk_bytes = raw_bytes + BLOCK_BYTES * (files + len(folders))
        return cls(files, raw_bytes, index_bytes, memory, disk_bytes, folder_text(folders))

    def excess(self, limits: Limits, frames: int = 2) -> Excess | None:
        """The limit that they exceed in one pack of so many frames; None if they fit."""
        index_bytes = self.index_bytes + _HEADER_BYTES + frames * _MOST_FRAME
        memory = self.memory + 4 * _HEADER_BYTES + frames * (_MOST_FRAME + _memory(4, 1, 2))
        if self.files > limits.members:
            return Excess(f"{self.files} files", f"{limits.members} files", _FILES_VARIABLE)
        for size, limit, what, variable in (
            (index_bytes, limits.index_bytes, "an index of", _FILES_VARIABLE),
            (memory, limits.load_memory, "an index that takes memory of", _FILES_VARIABLE),
            (self.folder_text, MAX_FOLDER_TEXT, "folders whose paths have", _FILES_VARIABLE),
            (self.raw_bytes, limits.raw_bytes, "files of", "MAX_CACHE_SIZE_MB"),
            (self.disk_bytes, limits.load_bytes, "files that take", "B10_MAX_RESTORE_MB"),
        ):
            if size > limit:
                return Excess(f"{what} {in_mb(size)}", in_mb(limit), variable)
        if frames > MAX_FRAMES:
            return Excess(f"{frames} frames", f"{MAX_FRAMES} frames", "MAX_CACHE_SIZE_MB")
        return None


class Excess(NamedTuple):
    """An amount over a limit, that limit, and the variable that raises it."""

    what: str
    limit: str
    variable: str


def memory_of(index: str) -> int:
    """Bytes of memory that an index takes at most while it is read, and keeps. Known before it is parsed."""
    lists = index.count("[") + index.count("{")
    # A text with one character beyond Latin-1 takes up to four bytes for each.
    width = 4 if "\\u" in index else 1
    return width * len(index) + _memory(index.count(","), lists, index.count('"'))


def _memory(values: int, lists: int, quotes: int) -> int:
    return values * _VALUE_BYTES + lists * _LIST_BYTES + quotes // 2 * _TEXT_BYTES


def folders_above(paths: Iterable[str]) -> set[str]:
    """The folders above some files."""
    found: set[str] = set()
    level = {path.rpartition("/")[0] for path in paths} - {""}
    while level:
        found |= level
        level = {folder.rpartition("/")[0] for folder in level} - found - {""}
    return found


class Budget:
    """The resources that a load may still use. A writer charges the packs of one save to a budget of its own."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._index_bytes = limits.load_index_bytes
        self.memory = limits.load_memory
        """For the next index, in bytes."""
        self._bytes = limits.load_bytes

    def fetch(self, pack: str, index_bytes: int) -> None:
        """Charge an index before it is fetched. Raises PackTooLargeError if that is too much."""
        if index_bytes > self._index_bytes:
            what = f"indexes of {in_mb(self._limits.load_index_bytes)} together"
            raise _no_room(pack, what, _FILES_VARIABLE)
        self._index_bytes -= index_bytes

    def check_memory(self, pack: str, memory: int) -> None:
        """Raise PackTooLargeError if there is no room for an index."""
        if memory > self.memory:
            what = f"indexes that take {in_mb(self._limits.load_memory)} of memory together"
            raise _no_room(pack, what, _FILES_VARIABLE)

    def take(self, pack: str, memory: int, disk_bytes: int) -> None:
        """Charge a pack. Raises PackTooLargeError if there is no room for it, and then charges nothing."""
        self.check_memory(pack, memory)
        if disk_bytes > self._bytes:
            what = f"{in_mb(self._limits.load_bytes)} of local disk together"
            raise _no_room(pack, what, "B10_MAX_RESTORE_MB")
        self.memory -= memory
        self._bytes -= disk_bytes


def _no_room(pack: str, limit: str, variable: str) -> PackTooLargeError:
    detail = f"a load has no room for it beside newer packs: it takes at most {limit} ({variable})"
    return PackTooLargeError(pack, detail, limit, variable)


def in_mb(size: int) -> str:
    """A size for people."""
    return f"{size / MB:.1f} MiB" if size >= MB // 10 else f"{size} bytes"
