"""Write a pack: files are appended to frames of a few MiB, which are packed meanwhile and written in order."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any, BinaryIO, NamedTuple, Protocol

from ..concurrency.deadline import Deadline
from ..concurrency.pipeline import Pipeline
from ..environment import Environment
from ..errors import PackFullError, SaveTooLargeError
from . import tar, trailer
from .index import Index, encode_units
from .limits import Amount, Limits, in_mb
from .units import Frame, Member, PackUnit
from .zstd import pack_frame

FRAME_RAW_BYTES = 2 * 1024 * 1024
"""Of 55 MB of real Triton kernels 4 MiB frames make 2.4 MB, 2 MiB 3.0 MB, 1 MiB 4.1 MB; loads with 4 MiB are some 5 %
slower."""
_HEADER_BYTES = 8 * tar.BLOCK
"""At least what the headers and the padding of one file take."""
_THREADS = 1
"""Reading and hashing take longer than packing does: a second thread would only be in the way."""
_FRAMES_IN_FLIGHT = 2
_FRAME_SLACK_BYTES = 4096
"""Packing adds less than this, and less than a 128th, to the frames in flight."""
_FRAME_INDEX_BYTES = 100
"""Of a frame in an index, at most."""
_TRAILER_SLACK_BYTES = 8192
"""Of a trailer, at most, without units and frames."""


class Content(Protocol):
    """An open file that is being packed: a binary file in the sense of ``io``, as far as it is used here."""

    def __enter__(self) -> Content: ...
    def __exit__(self, *_: Any) -> None: ...
    def readinto(self, buffer: memoryview, /) -> int | None: ...


class SourceFile(NamedTuple):
    """A file to be packed. ``path`` begins with its root's name."""

    path: str
    size: int
    mode: int
    mtime_ns: int
    open: Callable[[SourceFile], Content]
    """Given this, its content: ``size`` bytes in all."""


class ReadAtOnce(Protocol):
    """Reads all files of a unit, each whole to its offset in ``memory``. Raises OSError if one cannot be read so."""

    def __call__(self, offsets: Sequence[int], memory: bytearray, /) -> None: ...


class _OpenFrame:
    """A frame that is being filled. Its memory is used again: fresh memory costs as much as packing."""

    def __init__(self) -> None:
        self.content = bytearray(FRAME_RAW_BYTES)
        self.memory = memoryview(self.content)
        self.filled = 0


class PackWriter:
    """Writes one pack to ``out``: the same bytes for the same files and metadata.

    Use it as a context manager: :meth:`add_unit` for each unit, in an order that puts like beside like, then
    :meth:`finish`. Memory is bounded by the frames in flight, however large a file is. The pack stays within every
    limit of its readers: a unit that would exceed one is refused, and the pack is as before.
    """

    def __init__(self, out: BinaryIO, limits: Limits, deadline: Deadline) -> None:
        self._out = out
        self._limits = limits
        self._deadline = deadline
        self._pipeline: Pipeline[_OpenFrame, tuple[_OpenFrame, bytes, Frame]] = Pipeline(
            _pack_frame, _THREADS, deadline
        )
        self._frame = _OpenFrame()
        self._spare: list[_OpenFrame] = []
        self._submitted = 0
        self._submitted_raw_bytes = 0
        """Frames that have been submitted for packing, and their raw bytes."""
        self._frames: list[Frame] = []
        """Frames that have been packed and written, and their bytes."""
        self._packed_bytes = self._written_raw_bytes = 0
        self._units: list[PackUnit] = []
        self._amount = Amount()
        self._adding = ""
        """The unit that is being added."""

    def __enter__(self) -> PackWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._pipeline.__exit__()

    @property
    def is_empty(self) -> bool:
        """Whether no unit has been added."""
        return not self._units

    def add_unit(
        self,
        name: str,
        kind: str,
        files: Sequence[SourceFile],
        check: Callable[[], None] = lambda: None,
        origin: str = "",
        read: ReadAtOnce | None = None,
    ) -> None:
        """Append a unit, possibly with another pack's ``origin``, and call ``check`` when its files have been read.

        With ``read`` that happens in one call if the unit fits into a frame, as nearly all do. If this raises, the pack
        is as if the unit had not been added.

        Raises:
            PackFullError: The unit belongs into another pack.
            SaveTooLargeError: No pack has room for it.
            Exception: Whatever ``check`` or reading a file raises.
        """
        self._deadline.check("packing artifacts")
        raw_bytes = sum(file.size for file in files)
        amount = Amount.of_unit(name, [file.path for file in files], raw_bytes)
        room = raw_bytes + len(files) * _HEADER_BYTES
        self._adding = name
        self._require_room(amount, room)
        together = self._amount.plus(amount)
        if not self._surely_fits(together, room):
            self._flush()
            self._drain()  # now it is known what has been packed so far
        is_sure = self._surely_fits(together, room)
        if self._frame.filled + room > FRAME_RAW_BYTES:
            self._flush()
        # From here the unit either fits into the open frame or begins a new one, so that it can be taken back.
        start = (self._submitted, self._submitted_raw_bytes, self._frame.filled)
        try:
            fits = self._frame.filled + room <= FRAME_RAW_BYTES
            at_once = self._add_at_once(files, read) if read is not None and fits else []
            members = at_once or [self._add_file(file) for file in files]
            check()
            unit = PackUnit(name, kind, tuple(sorted(members)), origin)
            if not is_sure:
                self._require_fit(unit, together)
        except BaseException:
            self._roll_back(*start)
            raise
        self._units.append(unit)
        self._amount = together

    def _require_room(self, amount: Amount, room: int) -> None:
        """Raise PackFullError or SaveTooLargeError if a unit exceeds a limit that packing does not help with."""
        frames = room // FRAME_RAW_BYTES + 2
        if self._amount.plus(amount).excess(self._limits, self._submitted + 1 + frames) is None:
            return
        if excess := amount.excess(self._limits, frames):
            raise SaveTooLargeError(f"unit {self._adding}", *excess)
        raise PackFullError(f"the pack has no room for unit {self._adding}")

    def _surely_fits(self, amount: Amount, more_raw_bytes: int) -> bool:
        """Whether a pack of so much stays within the limit even if nothing more of it can be packed."""
        left = self._submitted_raw_bytes + self._frame.filled - self._written_raw_bytes + more_raw_bytes + len(tar.END)
        most = self._packed_bytes + left + left // 128 + _FRAME_SLACK_BYTES
        return most + self._most_trailer_bytes(amount) <= self._limits.packed_bytes

    def _most_trailer_bytes(self, amount: Amount) -> int:
        raw = amount.index_bytes + len(self._frames) * _FRAME_INDEX_BYTES
        return raw + raw // 128 + _TRAILER_SLACK_BYTES

    def _require_fit(self, unit: PackUnit, amount: Amount) -> None:
        """Pack everything. Raise PackFullError or SaveTooLargeError if the pack is over the limit then."""
        self._flush()
        self._drain()
        if self._units:
            trailer_bytes = self._most_trailer_bytes(amount)
        else:  # no pack has more room: its index is packed to know it exactly
            trailer_bytes = len(pack_frame(encode_units([unit]).encode())) + len(self._frames) * _FRAME_INDEX_BYTES
        self._require_packed(self._packed_bytes + trailer_bytes)

    def _require_packed(self, packed_bytes: int) -> None:
        limit = self._limits.packed_bytes
        if packed_bytes <= limit:
            return
        if self._units:
            raise PackFullError(f"the pack has no room for unit {self._adding}")
        what = f"an archive of at least {in_mb(packed_bytes)}"
        raise SaveTooLargeError(f"unit {self._adding}", what, in_mb(limit), "MAX_CACHE_SIZE_MB")

    def end_frame(self) -> None:
        """Begin a new frame with the next unit, so that a reader of that unit fetches nothing of those before."""
        self._flush()

    def finish(self, namespace: str, environment: Environment) -> Index:
        """Write what is left, the index and the footer; returns the index."""
        self._append(tar.END)
        self._flush()
        units = tuple(sorted(self._units, key=attrgetter("name")))
        encoded_units = encode_units(units)  # while the last frames are being packed
        self._drain()
        index = Index(
            namespace=namespace,
            environment_id=environment.id,
            parts=environment.parts,
            recorded=environment.recorded,
            frames=tuple(self._frames),
            units=units,
            roots=tuple(sorted({unit.name.partition("/")[0] for unit in units})),
        )
        text = index.encode(encoded_units)
        end = trailer.encode(text, self._packed_bytes)
        self._out.write(end)
        return index.weighed(text)

    def _add_at_once(self, files: Sequence[SourceFile], read: ReadAtOnce) -> list[Member]:
        """Append files, for which there is room, that are read together; none if one cannot be read like that."""
        frame, position = self._frame, self._frame.filled
        offsets = []
        tail = b""
        for path, size, mode, mtime_ns, _open in files:
            between = tail + tar.header(path, size, mode, mtime_ns)
            offset = position + len(between)
            frame.memory[position:offset] = between
            position, tail = offset + size, tar.padding(size)
            offsets.append(offset)
        frame.memory[position : position + len(tail)] = tail
        position += len(tail)
        try:
            read(offsets, frame.content)
        except OSError:  # one by one it shows which, and why
            return []
        members = []
        for (path, size, mode, mtime_ns, _open), offset in zip(files, offsets, strict=True):
            # Hashed here: handing thousands of small files to another thread and back takes longer than hashing them.
            digest = hashlib.sha256(frame.memory[offset : offset + size]).hexdigest()
            members.append(Member(path, size, mode, mtime_ns, self._submitted_raw_bytes + offset, digest))
        self._advance(position - frame.filled)
        return members

    def _add_file(self, file: SourceFile) -> Member:
        self._append(tar.header(file.path, file.size, file.mode, file.mtime_ns))
        offset = self._submitted_raw_bytes + self._frame.filled
        digest = hashlib.sha256()
        left = file.size
        with file.open(file) as content:
            while left:
                part = self._frame.memory[self._frame.filled : self._frame.filled + left]  # or to the frame's end
                count = content.readinto(part)
                if not count:
                    raise ValueError(f"{file.path} ended {left} bytes before the {file.size} that were announced")
                digest.update(part if count == len(part) else part[:count])
                left -= count
                self._advance(count)
        self._append(tar.padding(file.size))
        return Member(file.path, file.size, file.mode, file.mtime_ns, offset, digest.hexdigest())

    def _append(self, data: bytes) -> None:
        while data:
            part = data[: FRAME_RAW_BYTES - self._frame.filled]
            self._frame.memory[self._frame.filled : self._frame.filled + len(part)] = part
            data = data[len(part) :]
            self._advance(len(part))

    def _advance(self, count: int) -> None:
        """So much more of the open frame is filled."""
        self._frame.filled += count
        if self._frame.filled == FRAME_RAW_BYTES:
            self._flush()

    def _flush(self) -> None:
        """Hand the open frame over for packing, and write out finished ones if too many are under way."""
        if not self._frame.filled:
            return
        while self._pipeline.in_flight >= _FRAMES_IN_FLIGHT:
            self._write_oldest()
        self._require_packed(self._packed_bytes)  # so that a unit that is too large is not read to its end
        self._submitted += 1
        self._submitted_raw_bytes += self._frame.filled
        self._pipeline.submit(self._frame)
        self._frame = self._spare.pop() if self._spare else _OpenFrame()

    def _drain(self) -> None:
        while self._pipeline.in_flight:
            self._write_oldest()

    def _write_oldest(self) -> None:
        used, packed, frame = self._pipeline.take()
        self._out.write(packed)
        self._frames.append(frame)
        self._packed_bytes += frame.packed_bytes
        self._written_raw_bytes += frame.raw_bytes
        used.filled = 0
        self._spare.append(used)

    def _roll_back(self, submitted: int, submitted_raw_bytes: int, filled: int) -> None:
        """Forget all that was appended since so much had been submitted and filled."""
        if self._submitted != submitted:
            self._drain()
            del self._frames[submitted:]
            self._packed_bytes = sum(frame.packed_bytes for frame in self._frames)
            self._written_raw_bytes = submitted_raw_bytes
            self._submitted, self._submitted_raw_bytes = submitted, submitted_raw_bytes
            self._out.seek(self._packed_bytes)
            self._out.truncate()
        self._frame.filled = filled


def _pack_frame(frame: _OpenFrame) -> tuple[_OpenFrame, bytes, Frame]:
    packed = pack_frame(frame.memory[: frame.filled])
    return frame, packed, Frame(len(packed), frame.filled, hashlib.sha256(packed).hexdigest())
