"""The content of a pack's index: frames, files, and the units that the files form."""

from __future__ import annotations

import re
from operator import attrgetter
from typing import NamedTuple

PACK_ID = re.compile(r"[0-9a-f]{12}-[0-9a-f]{16}", re.ASCII)
"""Milliseconds since 1970, and a random part: ids sort by time."""
MOST_MTIME_NS = 1 << 62
"""Readers take times from 1823 to 2116. (Every released version does.)"""
_size = attrgetter("size")


class Frame(NamedTuple):
    """One zstd frame. Frames follow each other from the first byte of the pack, and so do their contents."""

    packed_bytes: int
    raw_bytes: int
    sha256: str
    """Of the packed bytes, hexadecimal."""


class Member(NamedTuple):
    """One file. (A named tuple because a load makes thousands: a frozen dataclass takes three times as long.)"""

    path: str
    """``<root>/<path below the cache root>``"""
    size: int
    mode: int
    mtime_ns: int
    offset: int
    """The offset of its content in the uncompressed tar stream."""
    sha256: str
    """Of its content, hexadecimal."""


class PackUnit(NamedTuple):
    """One unit and its files, sorted by path."""

    name: str
    """``<root>/<unit's path below the cache root>``"""
    kind: str
    members: tuple[Member, ...]
    origin: str = ""
    """In a merged pack, the id of the pack that published it; empty if that is the pack it lies in."""

    @property
    def size(self) -> int:
        """Bytes of its files together."""
        return sum(map(_size, self.members))


def storable_time(mtime_ns: int) -> int:
    """The nearest time that readers take."""
    return min(max(mtime_ns, -MOST_MTIME_NS), MOST_MTIME_NS)
