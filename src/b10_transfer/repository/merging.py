"""Several packs into one: which, and how. What they hold together is the same before and after."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from io import BytesIO
from itertools import pairwise
from typing import BinaryIO

from ..concurrency.deadline import Deadline
from ..errors import CorruptPackError
from ..pack import (
    FRAME_RAW_BYTES,
    Amount,
    Index,
    Limits,
    Member,
    PackUnit,
    PackWriter,
    Piece,
    SourceFile,
    packed_bytes_of,
)
from ..pack.limits import BLOCK_BYTES
from .repository import ReadRepository
from .results import CollectedResults, are_spread
from .union import Pack, Union

_FEW_BYTES = 1024 * 1024
"""A pack with less is fetched whole."""
_MOST_UNNEEDED = 0.25
"""Of a pack, the share that a load may fetch in vain before the pack is written anew."""
_MOST_BYTES = 128 * 1024 * 1024
"""Packed, of what is merged at once: some seconds of work, and few enough bytes that a lost race wastes little."""


def mergeable(union: Union, limits: Limits) -> list[Pack]:
    """The packs that a merge may take, oldest first.

    Large ones stay alone: merging them would cost much and spare few. So does what holds anything recalled, which says
    what must not come back; and what is superseded goes by itself.
    """
    return [
        pack
        for pack in union.packs
        if not _is_large(pack, limits)
        and pack.id not in union.superseded
        and not union.holds_recalled(pack)
        and not pack.is_partial
        and _lies_in_order(pack)
    ]


def _lies_in_order(pack: Pack) -> bool:
    """Whether a pack's units lie one after another, as this package writes them: so they can be read in one pass."""
    spans = sorted((min(map(_position, unit.members)), max(map(_position, unit.members))) for unit in pack.index.units)
    return all(one[1] < other[0] for one, other in pairwise(spans))


def chosen(packs: Sequence[Pack], limits: Limits) -> list[Pack]:
    """As many of these packs, from the first on, as make one pack within the limits."""
    found: list[Pack] = []
    packed_bytes, amount = 0, Amount()
    for pack in packs:
        packed_bytes += pack.packed_bytes
        amount = amount.plus(_amount(pack))
        if not _fits(packed_bytes, amount, limits):
            break
        found.append(pack)
    return found


def _amount(pack: Pack) -> Amount:
    amount = Amount()
    for unit in pack.index.units:
        amount = amount.plus(Amount.of_unit(unit.name, [member.path for member in unit.members], unit.size))
    return amount


def _is_large(pack: Pack, limits: Limits) -> bool:
    """Whether a merged pack has no room for twice as much."""
    amount = _amount(pack)
    return not _fits(2 * pack.packed_bytes, amount.plus(amount), limits)


def _fits(packed_bytes: int, amount: Amount, limits: Limits) -> bool:
    """Whether so much makes one merged pack. Packed anew it may come out somewhat larger."""
    frames = 2 * (amount.raw_bytes + amount.files * BLOCK_BYTES) // FRAME_RAW_BYTES + 2
    return packed_bytes <= min(_MOST_BYTES, limits.packed_bytes // 2) and amount.excess(limits, frames) is None


def scattered(union: Union, packs: Iterable[Pack], first: Collection[str]) -> list[Pack]:
    """Those packs of which a load fetches many bytes that it does not need for the units of ``first``."""
    return [pack for pack in packs if _is_scattered(pack, [u for u in pack.index.units if u.name in first], union)]


def _is_scattered(pack: Pack, first: Sequence[PackUnit], union: Union) -> bool:
    wanted = [unit for unit in first if union.units.get(unit.name, (None,))[0] is pack]
    frames = pack.index.frames
    packed, raw = sum(frame.packed_bytes for frame in frames), sum(frame.raw_bytes for frame in frames)
    if packed < _FEW_BYTES or not wanted:
        return False
    fetched = packed_bytes_of(pack.index, [member for unit in wanted for member in unit.members])
    return fetched - packed * sum(unit.size for unit in wanted) / raw > _MOST_UNNEEDED * packed


def merge(
    repository: ReadRepository, packs: Sequence[Pack], out: BinaryIO, deadline: Deadline, first: Collection[str] = ()
) -> Index:
    """Write one pack that holds what these hold together, every unit with its origin.

    The units of ``first`` get frames of their own, so that a load may fetch these alone. Every byte is checked on the
    way. Raises PackError if one of them cannot be used, StoreError, OSError of ``out``.
    """
    union = Union(tuple(packs), ())
    latest = union.units
    collected = CollectedResults(repository, union)
    spread = (name for name in latest if are_spread(union, name))
    results = {name: data for name in spread if (data := collected.of(name)) is not None}
    with PackWriter(out, repository.limits, deadline) as writer:
        # Those of ``first`` last, right before the index: a reader of a bucket reads ahead of what it needs.
        for is_first in (False, True):
            for pack in packs:
                units = [unit for held, unit in latest.values() if held is pack and (unit.name in first) is is_first]
                _add(repository, pack, units, results, writer)
            writer.end_frame()
        index = writer.finish(repository.namespace, repository.environment)
    written = {unit.name: _content(unit) for unit in index.units}
    for pack, unit in latest.values():
        if unit.name not in results and written[unit.name] != _content(unit):
            raise CorruptPackError(pack.id, f"{unit.name!a:.120} does not have the content that was published")
    return index


def _add(
    repository: ReadRepository, pack: Pack, units: list[PackUnit], results: Mapping[str, bytes], writer: PackWriter
) -> None:
    """Append some units of a pack, in the order in which they lie in it: each frame is unpacked once."""
    if not units:
        return
    members = [sorted(unit.members, key=_position) for unit in units]
    with repository.opened(pack) as reader:
        read = [m for of_unit, unit in zip(members, units, strict=True) if unit.name not in results for m in of_unit]
        content = _Content(reader.read_members(pack.index, read))
        for of_unit, unit in sorted(zip(members, units, strict=True), key=lambda pair: _position(pair[0][0])):
            if unit.name in results:
                [file], data = of_unit, results[unit.name]
                files = [SourceFile(file.path, len(data), file.mode, file.mtime_ns, partial(_of_results, data))]
            else:
                files = [SourceFile(m.path, m.size, m.mode, m.mtime_ns, content.of) for m in of_unit]
            writer.add_unit(unit.name, unit.kind, files, origin=pack.origin(unit))


def _of_results(data: bytes, _file: SourceFile) -> BytesIO:
    return BytesIO(data)


def _position(member: Member) -> tuple[int, int]:
    return member.offset, member.size


def _content(unit: PackUnit) -> set[tuple[str, int, int, int, str]]:
    return {(m.path, m.size, m.mode, m.mtime_ns, m.sha256) for m in unit.members}


class _Content:
    """The files of one pack, read one after another in the order in which they lie there."""

    def __init__(self, pieces: Iterator[Piece]) -> None:
        self._pieces = pieces
        self._path = ""
        self._left = memoryview(b"")

    def of(self, file: SourceFile) -> _Content:
        """The next file, which must be this one."""
        self._path = file.path
        if not file.size:
            self._next()
        return self

    def __enter__(self) -> _Content:
        return self

    def __exit__(self, *_: object) -> None:
        self._path = ""

    def readinto(self, buffer: memoryview, /) -> int:
        while not self._left:
            self._next()
        count = min(len(self._left), len(buffer))
        buffer[:count] = self._left[:count]
        self._left = self._left[count:]
        return count

    def _next(self) -> None:
        piece = next(self._pieces)
        assert piece.member.path == self._path, "files are asked for in their order"
        self._left = piece.data
