"""Read a pack: its index first, then only the frames that are wanted, each verified before it is unpacked."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

from ..deadline import Deadline
from ..errors import CorruptPackError, PackTooLargeError
from ..stores.base import ObjectReader
from ..workers import Pipeline, has_idle_processor
from .index import Frame, Index, Limits, Member
from .trailer import FOOTER_BYTES, Approval, decode_footer, decode_index
from .zstd import ZstdError, unpacked_parts

_TAIL_BYTES = 256 * 1024
"""Fetched at once from the end: the index of some 3,000 files fits, so most packs need one request for it."""


_Extent = tuple[int, Frame]
"""A frame, and where it begins in the pack."""


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

    def read_index(self) -> Index:
        """Fetch, verify and check the index."""
        size = self._source.size_bytes
        if size > self._limits.packed_bytes:
            raise PackTooLargeError(
                self.name,
                f"has {size} bytes, over the limit of {self._limits.packed_bytes} (MAX_CACHE_SIZE_MB)",
            )
        if size < FOOTER_BYTES:
            raise CorruptPackError(self.name, f"it has {size} bytes, too few for a pack (truncated)")
        tail_bytes = min(size, _TAIL_BYTES)
        tail = self._source.read_at(size - tail_bytes, tail_bytes)
        footer = decode_footer(self.name, tail[-FOOTER_BYTES:], size)
        missing = footer.trailer_bytes - len(tail)
        if missing > 0:
            # Past any copy, as the footer: what the index says is all that a copy is checked against.
            tail = self._source.reread_at(size - footer.trailer_bytes, missing) + tail
        raw = decode_index(self.name, footer, tail[-footer.trailer_bytes :], self._approve)
        index = Index.decode(self.name, raw, self._limits)
        frames_bytes = sum(frame.packed_bytes for frame in index.frames)
        if frames_bytes + footer.trailer_bytes != size:
            raise CorruptPackError(self.name, "its frames do not fill the space before its index")
        return index

    def read_members(self, index: Index, members: Iterable[Member], *, every_frame: bool = False) -> Iterator[Piece]:
        """The content of ``members`` in the order in which it lies in the pack.

        Every piece comes from a frame whose digest has been checked. An empty file is one empty piece. With
        ``every_frame`` the others are read and checked as well, and all of them past any copy.
        """
        wanted = sorted(members, key=lambda member: (member.offset, member.size))
        starts = list(accumulate((frame.raw_bytes for frame in index.frames), initial=0))
        needed = range(len(index.frames)) if every_frame else _frames_holding(wanted, starts)
        fetch = self._refetch_and_unpack if every_frame else self._fetch_and_unpack
        rest = iter(wanted)
        member = next(rest, None)
        for start, content in self._unpacked(index, needed, starts, fetch):
            size = len(content)
            view = memoryview(content)
            while member is not None:
                first = member.offset - start
                last = first + member.size
                if first >= 0 and last <= size:
                    yield Piece(member, view[first:last], True, True)
                elif not member.size:
                    # It may lie before or behind this part, where nothing was needed: it is whole anywhere.
                    yield _whole_empty(member)
                elif first >= size:
                    break
                else:
                    yield Piece(member, view[max(first, 0) : last], is_first=first >= 0, is_last=last <= size)
                    if last > size:
                        break
                member = next(rest, None)
        while member is not None:  # only empty files can be left, at the very end of the stream
            yield _whole_empty(member)
            member = next(rest, None)

    def _unpacked(
        self,
        index: Index,
        needed: Sequence[int],
        starts: Sequence[int],
        fetch: Callable[[_Extent], Iterator[bytes]],
    ) -> Iterator[tuple[int, bytes]]:
        """The content of some frames in small parts, each with its offset in the stream."""
        extents = list(_extents(index.frames))
        frames = self._frames(fetch, [extents[number] for number in needed])
        for number, parts in zip(needed, frames, strict=True):
            self._deadline.check()
            offset = starts[number]
            for part in parts:
                yield offset, part
                offset += len(part)

    def _frames(
        self, unpack: Callable[[_Extent], Iterator[bytes]], extents: Sequence[_Extent]
    ) -> Iterator[Iterable[bytes]]:
        """The content of each of some frames, in small parts."""
        if not self._source.waits and not has_idle_processor():
            # Each part when it is consumed, and is still in the processor's cache: the least work. A second thread
            # saves a fifth of the time if it runs beside this one, and costs a third if it has to wait for a processor.
            yield from map(unpack, extents)
            return

        def unpack_whole(extent: _Extent) -> list[bytes]:
            return list(unpack(extent))

        with Pipeline(unpack_whole, 1, self._deadline) as pipeline:
            # One frame is fetched and unpacked while another is being consumed. More threads contend for memory.
            yield from pipeline.map(extents, in_flight=2)

    def _fetch_and_unpack(self, extent: _Extent) -> Iterator[bytes]:
        offset, frame = extent
        with self._source.lend_at(offset, frame.packed_bytes) as data:
            if hashlib.sha256(data).hexdigest() == frame.sha256:
                yield from self._unpack(extent, data)
                return
        yield from self._refetch_and_unpack(extent)  # it may be a copy that is wrong, or what NFS has cached

    def _refetch_and_unpack(self, extent: _Extent) -> Iterator[bytes]:
        offset, frame = extent
        data = self._source.reread_at(offset, frame.packed_bytes)
        if hashlib.sha256(data).hexdigest() != frame.sha256:
            raise CorruptPackError(self.name, f"the frame at byte {offset} does not have the digest that was published")
        yield from self._unpack(extent, data)

    def _unpack(self, extent: _Extent, data: bytes | bytearray | memoryview) -> Iterator[bytes]:
        try:
            yield from unpacked_parts(data, extent[1].raw_bytes)
        except ZstdError as error:
            raise CorruptPackError(self.name, f"the frame at byte {extent[0]} cannot be unpacked ({error})") from error


def _whole_empty(member: Member) -> Piece:
    return Piece(member, memoryview(b""), is_first=True, is_last=True)


def _extents(frames: Sequence[Frame]) -> Iterator[_Extent]:
    """Each frame with its offset in the pack."""
    return zip(accumulate((frame.packed_bytes for frame in frames), initial=0), frames, strict=False)


def _frames_holding(members: Sequence[Member], starts: Sequence[int]) -> list[int]:
    """Numbers of the frames that hold any content of ``members`` (sorted by offset), in order."""
    needed: list[int] = []
    for member in members:
        if not member.size:
            continue
        number = bisect_right(starts, member.offset) - 1
        while number < len(starts) - 1 and starts[number] < member.offset + member.size:
            if not needed or needed[-1] < number:
                needed.append(number)
            number += 1
    return needed
