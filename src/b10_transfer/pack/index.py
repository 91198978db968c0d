"""A pack's index: which frames it has, which files lie where in them, and the rules both must keep.

Everything that comes out of :meth:`Index.decode` has been checked: paths are plain and relative, files neither
overlap nor leave the stream, sizes keep to the limits. Nothing else in this package checks a path again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain, repeat
from operator import attrgetter
from typing import Any, NamedTuple

from ..errors import CorruptPackError, PackTooLargeError, SaveTooLargeError, UnsupportedPackError
from . import rules

FORMAT = 1
MAX_FRAME_RAW_BYTES = 8 * 1024 * 1024
MAX_INDEX_RAW_BYTES = 64 * 1024 * 1024

PACK_ID = re.compile(r"[0-9a-f]{12}-[0-9a-f]{16}", re.ASCII)
"""Milliseconds since 1970, and a random part: ids sort by time."""
_ROOT = re.compile(r"[a-z][a-z0-9_]{0,31}", re.ASCII)
_FOLLOWED_BY = {"folder": "/", "stem": "."}
"""Kinds of units, and what comes behind a unit's name in its files' paths (a stem may also be a file by itself)."""
_MOST = 1 << 62
_MOST_HEADER_BYTES = 8 * 512
"""In the tar stream: two headers and the padding of one file, whose path takes three blocks at most."""
_MOST_END_BYTES = 20 * 512
"""What ends an archive: two blocks, which other writers of tar fill up to a record."""


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
    """One file. (A named tuple because a load makes thousands: a frozen dataclass takes three times as long.)"""

    path: str
    """``<root>/<path below the cache root>``"""
    size: int
    mode: int
    mtime_ns: int
    offset: int
    """Where its content begins in the uncompressed tar stream."""
    sha256: str
    """Of its content, hexadecimal."""


_SIZE, _OFFSET = attrgetter("size"), attrgetter("offset")


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
        return sum(map(_SIZE, self.members))


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

    def encode(self, units: str | None = None) -> bytes:
        """The same bytes for the same index. ``units`` are its units, if they have been encoded before."""
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
        }
        # The keys are sorted, so the units come last.
        return f'{_json(document)[:-1]},"units":{units or encode_units(self.units)}}}'.encode()

    @classmethod
    def decode(cls, pack: str, data: bytes | bytearray, limits: Limits) -> Index:
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
                units=_units(document["units"]),
                roots=tuple(_matching(_ROOT, root) for root in document["roots"]),
            )
            _check_paths(index)
            _check_extents(index, limits, pack)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise CorruptPackError(
                pack, f"its index breaks the format's rules: {error or type(error).__name__}"
            ) from error
        return index


def encode_units(units: Iterable[PackUnit]) -> str:
    """The part of an index that grows with the number of files."""
    return _json(
        [
            {
                "name": unit.name,
                "kind": unit.kind,
                "members": unit.members,  # each a list of its fields, in JSON
                **({"origin": unit.origin} if unit.origin else {}),
            }
            for unit in units
        ]
    )


def _json(document: Any) -> str:
    return json.dumps(document, separators=(",", ":"), sort_keys=True)


def _check_amount(pack: str, data: bytes | bytearray, limits: Limits) -> None:
    """Refuse JSON that would take far more memory than an index within the limits, before it is parsed."""
    if len(data) > 3 * limits.members and (
        data.count(b"[") + data.count(b"{") > 3 * limits.members + 100_000
        or data.count(b",") > 12 * limits.members + 500_000
    ):
        raise PackTooLargeError(pack, "its index holds more lists and values than that of any pack within the limits")


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


def _frame(packed_bytes: Any, raw_bytes: Any, sha256: Any) -> Frame:
    rules.check_numbers([raw_bytes], 1, MAX_FRAME_RAW_BYTES)
    rules.check_digests([sha256])
    # Packing never makes more of it than this (ZSTD_compressBound), and a reader holds a frame in memory.
    rules.check_numbers([packed_bytes], 1, raw_bytes + raw_bytes // 128 + 65536)
    return Frame(packed_bytes, raw_bytes, sha256)


def _units(documents: Any) -> tuple[PackUnit, ...]:
    """All units; their members are checked together, a column at a time, because a load checks thousands."""
    rows = [row for document in documents for row in document["members"]]
    members = list(map(tuple.__new__, repeat(Member), rows))  # as Member._make, which is a call of Python's each
    if set(map(len, members)) - {len(Member._fields)}:
        raise ValueError("a file does not have as many fields as it must")
    names = [document["name"] for document in documents]
    if members:
        columns = dict(zip(Member._fields, zip(*members, strict=True), strict=True))
        rules.check_paths([*names, *columns["path"]])
        rules.check_digests(columns["sha256"])
        rules.check_numbers(columns["mode"], 0, 0o777)
        rules.check_numbers(columns["mtime_ns"], -_MOST, _MOST)
        for name in ("size", "offset"):
            rules.check_numbers(columns[name], 0, _MOST)
    units = []
    start = 0
    for name, document in zip(names, documents, strict=True):
        end = start + len(document["members"])
        units.append(_unit(name, document["kind"], tuple(members[start:end]), document.get("origin", "")))
        start = end
    return tuple(units)


def _unit(name: str, kind: Any, members: tuple[Member, ...], origin: Any) -> PackUnit:
    if _text(kind) not in _FOLLOWED_BY:
        raise ValueError(f"{kind!a:.80} is not a kind of unit")
    if not members or "/" not in name:
        raise ValueError(f"unit {name!a:.80} is empty or outside all roots")
    inside = name + _FOLLOWED_BY[kind]
    outside = [member.path for member in members if not member.path.startswith(inside)]
    if outside and (kind == "folder" or outside != [name]):
        raise ValueError(f"{outside[0]!a:.120} is not in its unit {name!a:.120}")
    if kind == "stem" and any("/" in member.path[len(name) :] for member in members):
        raise ValueError(f"a file of unit {name!a:.120} is in a folder of its own")
    return PackUnit(name, kind, members, _matching(PACK_ID, origin) if origin != "" else "")


def _check_paths(index: Index) -> None:
    """No file outside the roots, twice, in the way of another, or differing from another by case alone."""
    for unit in index.units:
        if unit.name.partition("/")[0] not in index.roots:
            raise ValueError(f"unit {unit.name!a:.120} is outside the roots {index.roots!a:.120}")
    rules.DistinctPaths().add([member.path for unit in index.units for member in unit.members])
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
    members = sorted(chain.from_iterable(unit.members for unit in index.units), key=_OFFSET)
    raw_bytes = sum(map(_SIZE, members))
    stream_bytes = sum(frame.raw_bytes for frame in index.frames)
    if len(members) > limits.members or raw_bytes > limits.raw_bytes:
        raise PackTooLargeError(
            pack,
            f"holds {len(members)} files of {_mb(raw_bytes)}, over this reader's limits of "
            f"{limits.members} and {_mb(limits.raw_bytes)} (MAX_CACHE_SIZE_MB)",
        )
    end = 0
    for path, size, _mode, _mtime_ns, offset, _sha256 in members:
        if offset < end:
            raise ValueError(f"{path!r} overlaps another file")
        end = offset + size
    if end > stream_bytes:
        raise ValueError(f"{members[-1].path!r} ends behind the last frame")
    # Zeros pack ten-thousandfold: otherwise a small pack with few files could keep its readers unpacking for hours.
    if stream_bytes > raw_bytes + len(members) * _MOST_HEADER_BYTES + _MOST_END_BYTES:
        raise ValueError(f"its frames hold {stream_bytes} bytes, more than its files and their headers")
