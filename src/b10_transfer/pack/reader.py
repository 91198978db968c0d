"""Read a pack: its index first, then only the frames that are wanted, each verified before it is unpacked."""

from __future__ import annotations

import hashlib
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from operator import attrgetter
from typing import NamedTuple, TypeAlias

from ..concurrency.deadline import Deadline
from ..concurrency.pipeline import Pipeline
from ..errors import CorruptPackError, PackTooLargeError
from ..stores.base import TAIL_BYTES, ObjectReader
from .index import Index
from .limits import Budget, Limits
from .trailer import FOOTER_BYTES, Approval, Footer, decode_footer, decode_index
from .units import Frame, Member
from .zstd import ZstdError, unpack_into

_Extent = tuple[int, Frame]
"""A frame, and where it begins in the pack."""
_Fetch = Callable[[_Extent, memoryview], None]
"""Gets a frame from the source and unpacks it to some memory of its size."""


Slice: TypeAlias = tuple[Member, int, int, int]
"""A file, where in a frame's content what the frame holds of it begins and ends, and where that begins in the file.
(A plain tuple, because a load makes thousands.)"""


class Piece(NamedTuple):
    """A part of one file's content: what one frame holds of it."""

    member: Member
    data: memoryview
    is_first: bool
    is_last: bool


class PackReader:
    """A pack in an open object. ``name`` is what errors call it; ``approve`` decides on its signature.

    Raises from every method: :class:`~b10_transfer.errors.PackError` if the pack cannot be used,
    :class:`~b10_transfer.errors.StoreError` if the store cannot be read.
    """

    def __init__(
        self,
        name: str,
        source: ObjectReader,
        limits: Limits,
        deadline: Deadline,
        approve: Approval | None = None,
    ) -> None:
        self.name = name
        self._approve = approve
        self._source = source
        self._limits = limits
        self._deadline = deadline

    def read_index(self, budget: Budget | None = None) -> Index:
        """Fetch, verify and check the index, as far as a load's budget (default: one of its own) has room for it.

        Every size is checked before so much is read or unpacked.
        """
        budget = budget or Budget(self._limits)
        size = self._source.size_bytes
        if size > self._limits.packed_bytes:
            raise PackTooLargeError(
                self.name,
                f"has {size} bytes, over the limit of {self._limits.packed_bytes} (MAX_CACHE_SIZE_MB)",
            )
        if size < FOOTER_BYTES:
            raise CorruptPackError(self.name, f"it has {size} bytes, too few for a pack (truncated)")
        footer, text = self._read_trailer(size, budget)
        index = Index.decode(self.name, text, self._limits, budget)
        frames_bytes = sum(frame.packed_bytes for frame in index.frames)
        if frames_bytes + footer.trailer_bytes != size:
            raise CorruptPackError(self.name, "its frames do not fill the space before its index")
        return index

    def _read_trailer(self, size: int, budget: Budget) -> tuple[Footer, str]:
        """The footer, and the index as text."""
        tail_bytes = min(size, TAIL_BYTES)
        tail = self._source.read_at(size - tail_bytes, tail_bytes)
        footer = decode_footer(self.name, tail[-FOOTER_BYTES:], size)
        largest, limit = max(footer.index_raw_bytes, footer.index_packed_bytes), self._limits.index_bytes
        if largest > limit:
            raise PackTooLargeError(
                self.name, f"its index claims {largest} bytes, the most allowed is {limit} (B10_MAX_FILES)"
            )
        budget.check_memory(self.name, footer.index_raw_bytes)
        budget.fetch(self.name, footer.trailer_bytes)
        missing = footer.trailer_bytes - len(tail)
        if missing > 0:
            # Past any copy, as the footer: what the index says is all that a copy is checked against.
            tail = self._source.reread_at(size - footer.trailer_bytes, missing) + tail
        else:
            tail = tail[-footer.trailer_bytes :]
        raw = decode_index(self.name, footer, tail, self._approve)
        del tail
        try:
            return footer, raw.decode("ascii")
        except ValueError as error:
            raise CorruptPackError(self.name, f"its index breaks the format's rules: {error}") from error

    def read_members(self, index: Index, members: Iterable[Member], *, every_frame: bool = False) -> Iterator[Piece]:
        """The content of ``members``, piece by piece, in the order in which it lies in the pack.

        An empty file is one empty piece. Everything else is as :meth:`read_slices` says.
        """
        for content, slices in self.read_slices(index, members, every_frame=every_frame):
            view = memoryview(content)
            for member, first, last, at in slices:
                yield Piece(member, view[first:last], is_first=not at, is_last=at + last - first == member.size)

    def read_slices(
        self, index: Index, members: Iterable[Member], *, every_frame: bool = False
    ) -> Iterator[tuple[bytearray, list[Slice]]]:
        """The content of ``members``, frame by frame in the order of the pack, and where in it which of them lie.

        Every frame's digest has been checked. Its content is valid until the frame after the next is requested: then
        its memory is reused. With ``every_frame`` the others are read and checked, too, and all of them past any copy.
        """
        wanted = sorted(members, key=attrgetter("offset", "size"))
        offsets = [member.offset for member in wanted]
        starts = list(accumulate((frame.raw_bytes for frame in index.frames), initial=0))
        needed = range(len(index.frames)) if every_frame else _frames_holding(wanted, starts)
        fetch = self._refetch_and_unpack if every_frame else self._fetch_and_unpack
        first = 0
        """Of the members that are not done with."""
        for number, content in zip(needed, self._unpacked(index, needed, fetch), strict=True):
            start, end = starts[number], starts[number] + index.frames[number].raw_bytes
            within, behind = bisect_left(offsets, start, first), bisect_left(offsets, end, first)
            slices = [_slice(member, start, end) for member in wanted[first:within]]
            for member in wanted[within:behind]:  # which begin here
                at = member.offset - start
                slices.append((member, at, at + member.size, 0))
            first = behind
            if slices and wanted[behind - 1].offset + wanted[behind - 1].size > end:
                first = behind - 1
                slices[-1] = _slice(wanted[first], start, end)
            yield content, slices
        if left := wanted[first:]:  # only empty files, at the very end of the stream
            yield bytearray(), [(member, 0, 0, 0) for member in left]

    def _unpacked(self, index: Index, needed: Sequence[int], fetch: _Fetch) -> Iterator[bytearray]:
        """The content of some frames, each valid until the frame after the next is requested."""
        extents = list(_extents(index.frames))
        wanted = [extents[number] for number in needed]
        largest = max((frame.raw_bytes for _offset, frame in wanted), default=0)
        spare: list[bytearray] = []

        def unpack(extent: _Extent) -> bytearray:
            memory = spare.pop() if spare else bytearray(largest)
            with memoryview(memory)[: extent[1].raw_bytes] as room:
                fetch(extent, room)
            return memory

        before: bytearray | None = None
        for content in self._mapped(unpack, wanted):
            self._deadline.check()
            yield content
            if before is not None:
                spare.append(before)
            before = content

    def _mapped(self, unpack: Callable[[_Extent], bytearray], extents: Sequence[_Extent]) -> Iterator[bytearray]:
        if not self._source.waits:
            yield from map(unpack, extents)
            return
        with Pipeline(unpack, 1, self._deadline) as pipeline:
            # One frame is fetched and unpacked while another is being consumed. More threads contend for memory.
            yield from pipeline.map(extents, in_flight=2)

    def _fetch_and_unpack(self, extent: _Extent, room: memoryview) -> None:
        offset, frame = extent
        with self._source.borrow_at(offset, frame.packed_bytes) as data:
            if hashlib.sha256(data).hexdigest() == frame.sha256:
                self._unpack(extent, data, room)
                return
        self._refetch_and_unpack(extent, room)  # it may be a copy that is wrong, or what NFS has cached

    def _refetch_and_unpack(self, extent: _Extent, room: memoryview) -> None:
        offset, frame = extent
        data = self._source.reread_at(offset, frame.packed_bytes)
        if hashlib.sha256(data).hexdigest() != frame.sha256:
            raise CorruptPackError(self.name, f"the frame at byte {offset} does not have the digest that was published")
        self._unpack(extent, data, room)

    def _unpack(self, extent: _Extent, data: bytes | bytearray | memoryview, room: memoryview) -> None:
        try:
            unpack_into(room, data)
        except ZstdError as error:
            raise CorruptPackError(self.name, f"the frame at byte {extent[0]} cannot be unpacked ({error})") from error


def packed_bytes_of(index: Index, members: Iterable[Member]) -> int:
    """The bytes that a reader of some members fetches: all frames that hold any of their content."""
    starts = list(accumulate((frame.raw_bytes for frame in index.frames), initial=0))
    wanted = sorted(members, key=attrgetter("offset", "size"))
    return sum(index.frames[number].packed_bytes for number in _frames_holding(wanted, starts))


def _slice(member: Member, start: int, end: int) -> Slice:
    """The part of a file in a frame from ``start`` to ``end``. An empty file may lie anywhere."""
    if not member.size:
        return member, 0, 0, 0
    first, last = max(member.offset, start), min(member.offset + member.size, end)
    return member, first - start, last - start, first - member.offset


def _extents(frames: Sequence[Frame]) -> Iterator[_Extent]:
    """Each frame with its offset in the pack."""
    return zip(accumulate((frame.packed_bytes for frame in frames), initial=0), frames, strict=False)


def _frames_holding(members: Sequence[Member], starts: Sequence[int]) -> list[int]:
    """Numbers of the frames that hold any content of ``members`` (sorted by offset), in order."""
    needed: list[int] = []
    covered = 0
    """The end of the last of them."""
    for _path, size, _mode, _mtime_ns, offset, _sha256 in members:
        end = offset + size
        if end <= covered or not size:
            continue
        number = bisect_right(starts, max(offset, covered)) - 1
        while number < len(starts) - 1 and starts[number] < end:
            needed.append(number)
            number += 1
            covered = starts[number]
    return needed
