"""Reads an index's JSON some units at a time, and checks every value: an index may hold 200,000 files.

Only what was checked is kept, and equal values are kept once, so that the memory stays near that of the text.
"""

from __future__ import annotations

import json
import re
from itertools import repeat
from typing import Any

from ..errors import UnsupportedPackError
from . import rules
from .limits import BLOCK_BYTES, MAX_FOLDER_TEXT, MAX_FRAMES
from .units import MOST_MTIME_NS, PACK_ID, Frame, Member, PackUnit

FORMAT = 1
MAX_FRAME_RAW_BYTES = 8 * 1024 * 1024
_UNITS_AT_ONCE = 1000
"""Of so many at a time the rules are checked, and the JSON is dropped: an index may hold 200,000."""
_FOLLOWED_BY = {"folder": "/", "stem": "."}
"""Kinds of units, and what comes behind a unit's name in its files' paths (a stem may also be a file by itself)."""
_KINDS = {kind: kind for kind in _FOLLOWED_BY}
_MOST = 1 << 62
_decode_at = json.JSONDecoder().raw_decode
_BLANKS = (" ", "\t", "\n", "\r")
_NOT_BLANK = re.compile(r"[^ \t\n\r]|\Z")


class Document:
    """An index's JSON, of which the units are read and checked some at a time."""

    def __init__(self, pack: str, text: str) -> None:
        self._text = text
        self._distinct = rules.DistinctPaths(MAX_FOLDER_TEXT)
        self._modes: dict[int, int] = {}
        self._files = 0
        self._raw_bytes = 0
        self.fields: dict[str, Any] = {}
        at = self._space(0)
        if text[at : at + 1] != "{":
            raise ValueError("it is not an object")
        at = self._space(at + 1)
        value: Any
        while True:
            key, at = self._value(at)
            at = self._space(at)
            if text[at : at + 1] != ":" or text_of(key) in self.fields:
                raise ValueError(f"{key!a:.80} is not a key")
            at = self._space(at + 1)
            if key == "units" and text[at : at + 1] == "[":
                value, at = self._units(at)
            else:
                value, at = self._value(at)
            self.fields[key] = value
            if key == "format" and value != FORMAT:
                raise UnsupportedPackError(pack, f"has index format {value!a:.80}, this version reads {FORMAT}")
            at = self._space(at)
            if text[at : at + 1] == "}":
                break
            if text[at : at + 1] != ",":
                raise ValueError("it is no JSON")
            at = self._space(at + 1)
        if self._space(at + 1) != len(text) or "format" not in self.fields:
            raise ValueError("it is no JSON of an index")

    @property
    def disk_bytes(self) -> int:
        """Room that its files and their folders take on a file system, at most."""
        return self._raw_bytes + BLOCK_BYTES * (self._files + self._distinct.folders)

    def _units(self, at: int) -> tuple[list[PackUnit], int]:
        """The units from the bracket ``at`` on, and where they end."""
        found: list[PackUnit] = []
        documents: list[Any] = []
        at = self._space(at + 1)
        is_last = self._text[at : at + 1] == "]"
        while not is_last:
            document, at = self._value(at)
            documents.append(document)
            at = self._space(at)
            end = self._text[at : at + 1]
            if end not in (",", "]"):
                raise ValueError("it is no JSON")
            is_last = end == "]"
            if is_last or len(documents) == _UNITS_AT_ONCE:
                found += self._checked(documents)
                documents = []
            if not is_last:
                at = self._space(at + 1)
        return found, at + 1

    def _checked(self, documents: list[Any]) -> list[PackUnit]:
        units = _units(documents, self._modes)
        members = [member for unit in units for member in unit.members]
        self._distinct.add([member.path for member in members])
        self._files += len(members)
        self._raw_bytes += sum(unit.size for unit in units)
        return units

    def _value(self, at: int) -> tuple[Any, int]:
        value, end = _decode_at(self._text, at)
        return value, end

    def _space(self, at: int) -> int:
        """The position of the next value or sign. (This package's writer leaves no blanks.)"""
        if self._text[at : at + 1] not in _BLANKS:
            return at
        found = _NOT_BLANK.search(self._text, at)
        assert found is not None  # the end matches
        return found.start()


def text_of(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!a:.80} is not a text")
    return value


def texts_of(value: Any) -> dict[str, str]:
    found = {text_of(key): text_of(item) for key, item in value.items()}
    for text in (*found, *found.values()):
        text.encode()  # raises ValueError for half of a surrogate pair, which JSON can hold
    return found


def matching(pattern: re.Pattern[str], value: Any) -> str:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise ValueError(f"{value!a:.80} is not allowed")
    return value


def frames_of(rows: Any) -> tuple[Frame, ...]:
    if len(rows) > MAX_FRAMES:
        raise ValueError(f"it has {len(rows)} frames")
    return tuple(_frame(*fields) for fields in rows)


def _frame(packed_bytes: Any, raw_bytes: Any, sha256: Any) -> Frame:
    rules.check_numbers([raw_bytes], 1, MAX_FRAME_RAW_BYTES)
    rules.check_digests([sha256])
    # Packing never makes more of it than this (ZSTD_compressBound), and a reader holds a frame in memory.
    rules.check_numbers([packed_bytes], 1, raw_bytes + raw_bytes // 128 + 65536)
    return Frame(packed_bytes, raw_bytes, sha256)


def _units(documents: Any, modes: dict[int, int]) -> list[PackUnit]:
    """Some units; their members are checked together, a column at a time, because a load checks thousands.

    Equal ``modes`` become one object, and so do equal names and paths.
    """
    rows = [row for document in documents for row in document["members"]]
    if set(map(len, rows)) - {len(Member._fields)}:
        raise ValueError("a file does not have as many fields as it must")
    names = [document["name"] for document in documents]
    members: list[Member] = []
    if rows:
        columns = dict(zip(Member._fields, zip(*rows, strict=True), strict=True))
        rules.check_paths([*names, *columns["path"]])
        rules.check_digests(columns["sha256"])
        rules.check_numbers(columns["mode"], 0, 0o777)
        rules.check_numbers(columns["mtime_ns"], -MOST_MTIME_NS, MOST_MTIME_NS)
        for name in ("size", "offset"):
            rules.check_numbers(columns[name], 0, _MOST)
        columns["mode"] = tuple(modes.setdefault(mode, mode) for mode in columns["mode"])
        # As Member._make, which is a call of Python's each.
        members = list(map(tuple.__new__, repeat(Member), zip(*columns.values(), strict=True)))
    units = []
    start = 0
    for name, document in zip(names, documents, strict=True):
        end = start + len(document["members"])
        units.append(_unit(name, document["kind"], tuple(members[start:end]), document.get("origin", "")))
        start = end
    return units


def _unit(name: str, kind: Any, members: tuple[Member, ...], origin: Any) -> PackUnit:
    if text_of(kind) not in _KINDS:
        raise ValueError(f"{kind!a:.80} is not a kind of unit")
    kind = _KINDS[kind]
    if not members or "/" not in name:
        raise ValueError(f"unit {name!a:.80} is empty or outside all roots")
    inside = name + _FOLLOWED_BY[kind]
    outside = [member.path for member in members if not member.path.startswith(inside)]
    if outside and (kind == "folder" or outside != [name]):
        raise ValueError(f"{outside[0]!a:.120} is not in its unit {name!a:.120}")
    if kind == "stem" and any("/" in member.path[len(name) :] for member in members):
        raise ValueError(f"a file of unit {name!a:.120} is in a folder of its own")
    return PackUnit(name, kind, members, matching(PACK_ID, origin) if origin != "" else "")
