"""A pack's index: which frames it has, which files lie where in them, and the rules both must keep.

Everything that comes out of :meth:`Index.decode` has been checked: paths are plain and relative, files neither
overlap nor leave the stream, sizes keep to the limits. Nothing else in this package checks a path again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from ..errors import CorruptPackError, PackTooLargeError, SaveTooLargeError, UnsupportedPackError

FORMAT = 1
MAX_FRAME_RAW_BYTES = 8 * 1024 * 1024
MAX_INDEX_RAW_BYTES = 64 * 1024 * 1024

_ROOT = re.compile(r"[a-z][a-z0-9_]{0,31}", re.ASCII)
_KINDS = ("folder", "stem")
_MOST = 1 << 62
_RANGES = (("size", 0, _MOST), ("mode", 0, 0o777), ("mtime_ns", -_MOST, _MOST), ("offset", 0, _MOST))


@dataclass(frozen=True)
class Limits:
    """What a reader accepts and a writer keeps to."""

    packed_bytes: int
    """Largest pack."""
    raw_bytes: int
    """Largest sum of the sizes of a pack's files."""
    members: int = 200_000

    @classmethod
    def for_packs_of(cls, packed_bytes: int) -> Limits:
        """The limits that go with a largest pack: real artifacts shrink about tenfold, 32-fold is a bomb."""
        return cls(packed_bytes=packed_bytes, raw_bytes=max(32 * packed_bytes, 1 << 30))


@dataclass(frozen=True)
class Frame:
    """One zstd frame. Frames follow each other from the first byte of the pack, and so do their contents."""

    packed_bytes: int
    raw_bytes: int
    sha256: str
    """Of the packed bytes, hexadecimal."""


class Member(NamedTuple):
    """One file. (A named tuple, because a load makes thousands: a frozen dataclass takes three times as long.)"""

    path: str
    """``<root>/<path below the cache root>``"""
    size: int
    mode: int
    mtime_ns: int
    offset: int
    """Where its content begins in the uncompressed tar stream."""
    sha256: str
    """Of its content, hexadecimal."""


@dataclass(frozen=True)
class PackUnit:
    """One unit and its files, sorted by path."""

    name: str
    """``<root>/<unit's path below the cache root>``"""
    kind: str
    members: tuple[Member, ...]

    @property
    def size(self) -> int:
        """Bytes of its files together."""
        return sum(member.size for member in self.members)


@dataclass(frozen=True)
class Index:
    """All there is to know of a pack before its frames are read."""

    namespace: str
    environment_id: str
    parts: Mapping[str, str]
    """The environment's compared parts, so that a pack explains itself."""
    recorded: Mapping[str, str]
    """Facts that are not compared: driver, host, version of this package."""
    frames: tuple[Frame, ...]
    units: tuple[PackUnit, ...]
    roots: tuple[str, ...]

    def encode(self) -> bytes:
        """The same bytes for the same index."""
        document = {
            "format": FORMAT,
            "namespace": self.namespace,
            "environment": {
                "id": self.environment_id,
                "parts": dict(self.parts),
                "recorded": dict(self.recorded),
            },
            "roots": list(self.roots),
            "frames": [[frame.packed_bytes, frame.raw_bytes, frame.sha256] for frame in self.frames],
            "units": [
                {
                    "name": unit.name,
                    "kind": unit.kind,
                    "members": [[m.path, m.size, m.mode, m.mtime_ns, m.offset, m.sha256] for m in unit.members],
                }
                for unit in self.units
            ],
        }
        return json.dumps(document, separators=(",", ":"), sort_keys=True).encode()

    @classmethod
    def decode(cls, pack: str, data: bytes, limits: Limits) -> Index:
        """Read and check an index.

        Raises :class:`CorruptPackError` if it breaks a rule, :class:`UnsupportedPackError` if it is of a newer format
        and :class:`PackTooLargeError` if the pack is over ``limits``.
        """
        try:
            _check_amount(pack, data, limits)
            document = json.loads(data)
            if document["format"] != FORMAT:
                raise UnsupportedPackError(
                    pack, f"has index format {document['format']!a:.80}, this version reads {FORMAT}"
                )
            environment = document["environment"]
            index = cls(
                namespace=_text(document["namespace"]),
                environment_id=_text(environment["id"]),
                parts=_texts(environment["parts"]),
                recorded=_texts(environment["recorded"]),
                frames=tuple(_frame(*fields) for fields in document["frames"]),
                units=tuple(_unit(fields) for fields in document["units"]),
                roots=tuple(_matching(_ROOT, root) for root in document["roots"]),
            )
            _check_paths(index)
            _check_extents(index, limits, pack)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise CorruptPackError(
                pack, f"its index breaks the format's rules: {error or type(error).__name__}"
            ) from error
        return index


def _check_amount(pack: str, data: bytes, limits: Limits) -> None:
    """Refuse JSON that would take far more memory than an index within the limits, before it is parsed."""
    if (
        data.count(b"[") + data.count(b"{") > 3 * limits.members + 100_000
        or data.count(b",") > 12 * limits.members + 500_000
    ):
        raise PackTooLargeError(pack, "its index holds more lists and values than that of any pack within the limits")


def storable(path: str) -> bool:
    """Whether the format has room for a file of this path (``/``-separated, relative).

    Components are printable ASCII without a backslash, at most 255 long, without a blank at either end, and none is
    empty, ``.`` or ``..``; the whole is at most 1024 long.
    """
    folder, _, name = path.rpartition("/")
    return len(path) <= 1024 and path[:1] != "/" and _is_component(name) and (not folder or _is_folder(folder))


def _is_component(name: str) -> bool:
    return (
        0 < len(name) <= 255
        and name.isascii()
        and name.isprintable()
        and "\\" not in name
        and name not in (".", "..")
        and " " not in (name[0], name[-1])
    )


@lru_cache(maxsize=4096)  # thousands of files lie in hundreds of folders
def _is_folder(path: str) -> bool:
    return all(_is_component(name) for name in path.split("/"))


def _digest(value: Any) -> str:
    if not isinstance(value, str) or len(value) != 64 or value.strip("0123456789abcdef"):
        raise ValueError(f"{value!a:.80} is not a SHA-256")
    return value


def check_writable(members: int, raw_bytes: int, packed_bytes: int, limits: Limits) -> None:
    """Raise :class:`SaveTooLargeError` if a pack that is being written is over a limit of its readers."""
    if packed_bytes > limits.packed_bytes:
        what, limit = f"an archive of at least {_mb(packed_bytes)}", _mb(limits.packed_bytes)
    elif raw_bytes > limits.raw_bytes:
        what, limit = f"{_mb(raw_bytes)} of files", _mb(limits.raw_bytes)
    elif members > limits.members:
        what, limit = f"{members} files", f"{limits.members} files"
    else:
        return
    raise SaveTooLargeError(what, limit, "MAX_CACHE_SIZE_MB")


def _mb(size: int) -> str:
    return f"{size / 1024**2:.1f} MiB"


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!a:.80} is not a text")
    return value


def _texts(value: Any) -> dict[str, str]:
    return {_text(key): _text(item) for key, item in value.items()}


def _matching(pattern: re.Pattern[str], value: Any) -> str:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise ValueError(f"{value!a:.80} is not allowed")
    return value


def _number(value: Any, smallest: int, largest: int) -> int:
    # bool is an int to Python, and JSON has true.
    if type(value) is not int or not smallest <= value <= largest:
        raise ValueError(f"{value!a:.80} is not a number from {smallest} to {largest}")
    return value


def _frame(packed_bytes: Any, raw_bytes: Any, sha256: Any) -> Frame:
    return Frame(_number(packed_bytes, 1, _MOST), _number(raw_bytes, 1, MAX_FRAME_RAW_BYTES), _digest(sha256))


def _unit(fields: Any) -> PackUnit:
    kind = fields["kind"]
    if kind not in _KINDS:
        raise ValueError(f"{kind!a:.80} is not a kind of unit")
    name = _path(fields["name"])
    members = _members(fields["members"])
    prefix = name + ("/" if kind == "folder" else ".")
    for member in members:
        inside = member.path.startswith(prefix) or (kind == "stem" and member.path == name)
        if not inside or (kind == "stem" and "/" in member.path[len(name) :]):
            raise ValueError(f"{member.path!r} is not in its unit {name!r}")
    return PackUnit(name, kind, members)


def _members(rows: Any) -> tuple[Member, ...]:
    """The members of a unit, checked a column at a time: a load checks thousands."""
    members = tuple(map(Member._make, rows))
    if not members:
        raise ValueError("a unit is empty")
    for name, smallest, largest in _RANGES:
        column = [getattr(member, name) for member in members]
        if not all(type(value) is int for value in column) or min(column) < smallest or max(column) > largest:
            raise ValueError(f"a {name} of unit members is not a number from {smallest} to {largest}")
    for member in members:
        _path(member.path)
        _digest(member.sha256)
    return members


def _path(value: Any) -> str:
    if not isinstance(value, str) or "/" not in value or not storable(value):
        raise ValueError(f"{value!a:.80} is not an allowed path")
    return value


class DistinctPaths:
    """Paths of files that do not get in each other's way, even where upper and lower case count as equal."""

    def __init__(self) -> None:
        self._files: set[str] = set()
        self._folders: dict[str, str] = {}

    def add(self, paths: Iterable[str]) -> None:
        """Take paths in. Raises ValueError if one is there already, or is a folder, or lies in a file, of another."""
        for path in paths:
            lowered = path.lower()
            if lowered in self._files or lowered in self._folders:
                raise ValueError(f"{path!a:.120} is there twice (upper and lower case count as equal)")
            self._files.add(lowered)
            self._enter(path.rpartition("/")[0])

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
            folder = folder.rpartition("/")[0]


def _check_paths(index: Index) -> None:
    """No file outside the roots, twice, in the way of another, or differing from another by case alone."""
    distinct = DistinctPaths()
    for unit in index.units:
        if unit.name.partition("/")[0] not in index.roots:
            raise ValueError(f"unit {unit.name!a:.120} is outside the roots {index.roots!a:.120}")
        distinct.add(member.path for member in unit.members)
    _check_nesting(index.units)


def _check_nesting(units: Iterable[PackUnit]) -> None:
    """No unit twice, and none inside another."""
    names: set[str] = set()
    for unit in units:
        if unit.name.lower() in names:
            raise ValueError(f"unit {unit.name!r} is there twice")
        names.add(unit.name.lower())
    for name in names:
        folder = name.rpartition("/")[0]
        while folder:
            if folder in names:
                raise ValueError(f"unit {name!r} is inside unit {folder!r}")
            folder = folder.rpartition("/")[0]


def _check_extents(index: Index, limits: Limits, pack: str) -> None:
    """Every file lies in the stream, none overlaps another, and all keep to the limits."""
    members = sorted((member for unit in index.units for member in unit.members), key=lambda m: m.offset)
    raw_bytes = sum(member.size for member in members)
    stream_bytes = sum(frame.raw_bytes for frame in index.frames)
    if len(members) > limits.members or raw_bytes > limits.raw_bytes:
        raise PackTooLargeError(
            pack,
            f"holds {len(members)} files of {_mb(raw_bytes)}, over this reader's limits of "
            f"{limits.members} and {_mb(limits.raw_bytes)} (MAX_CACHE_SIZE_MB)",
        )
    end = 0
    for member in members:
        if member.offset < end:
            raise ValueError(f"{member.path!r} overlaps another file")
        end = member.offset + member.size
    if end > stream_bytes:
        raise ValueError(f"{members[-1].path!r} ends behind the last frame")
