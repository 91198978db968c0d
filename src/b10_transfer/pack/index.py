"""A pack's index: which frames it has, which files lie where in them, and the rules both must keep.

Everything that comes out of :meth:`Index.decode` has been checked: paths are plain and relative, files neither
overlap nor leave the stream, sizes keep to the limits. Nothing else in this package checks a path again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from operator import attrgetter
from typing import Any

from ..errors import CorruptPackError, PackTooLargeError
from .document import FORMAT, Document, frames_of, matching, text_of, texts_of
from .limits import BLOCK_BYTES, Budget, Limits, folders_above, in_mb, memory_of
from .units import Frame, PackUnit

_ROOT = re.compile(r"[a-z][a-z0-9_]{0,31}", re.ASCII)
_MOST_HEADER_BYTES = 8 * 512
"""In the tar stream: two headers and the padding of one file, whose path takes three blocks at most."""
_MOST_END_BYTES = 20 * 512
"""The end of an archive: two blocks. Other writers of tar fill up a record."""
_SIZE, _OFFSET = attrgetter("size"), attrgetter("offset")


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
    memory: int = field(default=0, compare=False)
    """Its charge to a load's :class:`~.limits.Budget`, in bytes; so is the next one."""
    disk_bytes: int = field(default=0, compare=False)

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
    def decode(cls, pack: str, data: bytes | bytearray | str, limits: Limits, budget: Budget | None = None) -> Index:
        """Read and check an index, if a load's ``budget`` (default: one of its own) has room for it in memory.

        Raises :class:`CorruptPackError` if it breaks a rule, :class:`UnsupportedPackError` if it is of a newer format
        and :class:`PackTooLargeError` if the pack is over ``limits`` or has no room in ``budget``.
        """
        budget = budget or Budget(limits)
        try:
            # ASCII, as all writers make it: another character would make the text four times as large.
            text = data if isinstance(data, str) else data.decode("ascii")
            memory = memory_of(text)
            budget.check_memory(pack, memory)
            read = Document(pack, text)
            document = read.fields
            environment = document["environment"]
            index = cls(
                namespace=text_of(document["namespace"]),
                environment_id=text_of(environment["id"]),
                parts=texts_of(environment["parts"]),
                recorded=texts_of(environment["recorded"]),
                frames=frames_of(document["frames"]),
                units=tuple(document["units"]),
                roots=tuple(matching(_ROOT, root) for root in document["roots"]),
                memory=memory,
                disk_bytes=read.disk_bytes,
            )
            _check_units(index)
            _check_extents(index, limits, pack)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise CorruptPackError(
                pack, f"its index breaks the format's rules: {error or type(error).__name__}"
            ) from error
        return index

    def weighed(self, text: bytes) -> Index:
        """The same with :attr:`memory` and :attr:`disk_bytes`; ``text`` is its encoded form."""
        paths = [member.path for unit in self.units for member in unit.members]
        blocks = len(paths) + len(folders_above(paths))
        disk_bytes = sum(unit.size for unit in self.units) + BLOCK_BYTES * blocks
        return replace(self, memory=memory_of(text.decode("ascii")), disk_bytes=disk_bytes)

    @property
    def room_bytes(self) -> int:
        """Its charge to a load's budget: its files on a file system, or its frames if those are larger."""
        return max(sum(frame.packed_bytes for frame in self.frames), self.disk_bytes)


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


def _check_units(index: Index) -> None:
    """None is outside the roots, or in the way of another."""
    for unit in index.units:
        if unit.name.partition("/")[0] not in index.roots:
            raise ValueError(f"unit {unit.name!a:.120} is outside the roots {index.roots!a:.120}")
    _check_nesting(index.units)


def _check_nesting(units: Iterable[PackUnit]) -> None:
    """No unit twice, and none inside another."""
    names: set[str] = set()
    for unit in units:
        if unit.name.lower() in names:
            raise ValueError(f"unit {unit.name!r} is there twice")
        names.add(unit.name.lower())
    above = {name.rpartition("/")[0] for name in names} - {""}
    seen: set[str] = set()
    while above:  # level by level, so that each folder is looked at once
        if inside := above & names:
            raise ValueError(f"units are inside unit {min(inside)!r}")
        seen |= above
        above = {folder.rpartition("/")[0] for folder in above} - seen - {""}


def _check_extents(index: Index, limits: Limits, pack: str) -> None:
    """Every file lies in the stream, none overlaps another, and all keep to the limits."""
    members = sorted(chain.from_iterable(unit.members for unit in index.units), key=_OFFSET)
    raw_bytes = sum(map(_SIZE, members))
    stream_bytes = sum(frame.raw_bytes for frame in index.frames)
    if len(members) > limits.members or raw_bytes > limits.raw_bytes:
        raise PackTooLargeError(
            pack,
            f"holds {len(members)} files of {in_mb(raw_bytes)}, over this reader's limits of "
            f"{limits.members} and {in_mb(limits.raw_bytes)} (MAX_CACHE_SIZE_MB)",
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
