"""Write a pack: files are appended to frames of a few MiB, which are packed in parallel and written in order."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from ..deadline import Deadline
from ..environment import Environment
from ..workers import Pipeline
from . import tar, trailer
from .index import Frame, Index, Limits, Member, PackUnit, check_writable
from .zstd import pack_frame

FRAME_RAW_BYTES = 4 * 1024 * 1024
"""Small enough to verify in memory and to spread over threads."""
_HEADER_BYTES = 8 * tar.BLOCK
"""At least what the headers and the padding of one file take."""
_THREADS = 2
_FRAMES_IN_FLIGHT = 4


@dataclass(frozen=True)
class SourceFile:
    """A file to be packed. ``read`` yields its content, ``size`` bytes in all; ``path`` begins with its root's name."""

    path: str
    size: int
    mode: int
    mtime_ns: int
    read: Callable[[], Iterable[bytes]]


class PackWriter:
    """Writes one pack to ``out``: the same bytes for the same files and metadata.

    Use it as a context manager: :meth:`add_unit` for each unit, in an order that puts like beside like, then
    :meth:`finish`. Memory is bounded by the frames in flight, however large a file is. Raises
    :class:`~b10_transfer.errors.SaveTooLargeError` as soon as the pack is over a limit of its readers.
    """

    def __init__(self, out: BinaryIO, limits: Limits, deadline: Deadline) -> None:
        self._out = out
        self._limits = limits
        self._deadline = deadline
        self._pipeline: Pipeline[bytearray, tuple[bytes, Frame]] = Pipeline(_pack_frame, _THREADS, deadline)
        self._buffer = bytearray()
        self._submitted = 0
        self._submitted_raw_bytes = 0
        """Frames that have been submitted for packing, and their raw bytes."""
        self._frames: list[Frame] = []
        """Frames that have been packed and written."""
        self._units: list[PackUnit] = []
        self._members = 0
        self._raw_bytes = 0

    def __enter__(self) -> PackWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._pipeline.__exit__()

    @property
    def units(self) -> Sequence[PackUnit]:
        """What has been added, in that order."""
        return self._units

    def add_unit(
        self, name: str, kind: str, files: Sequence[SourceFile], check: Callable[[], None] = lambda: None
    ) -> None:
        """Append a unit, and call ``check`` when its files have been read.

        If ``check`` or reading a file raises, that is raised and the pack is as if the unit had not been added.
        """
        self._deadline.check("packing artifacts")
        raw_bytes = sum(file.size for file in files)
        check_writable(self._members + len(files), self._raw_bytes + raw_bytes, self._packed_bytes, self._limits)
        if self._buffer and len(self._buffer) + raw_bytes + len(files) * _HEADER_BYTES > FRAME_RAW_BYTES:
            self._flush()
        # From here the unit either fits into the open frame or begins a new one, so that it can be taken back.
        start = (self._submitted, self._submitted_raw_bytes, len(self._buffer))
        try:
            members = tuple(self._add_file(file) for file in files)
            check()
        except BaseException:
            self._roll_back(*start)
            raise
        self._units.append(PackUnit(name, kind, tuple(sorted(members))))
        self._members += len(members)
        self._raw_bytes += raw_bytes

    def finish(self, namespace: str, environment: Environment) -> int:
        """Write what is left, the index and the footer; the size of the whole pack in bytes."""
        self._append(tar.END)
        self._flush()
        self._drain()
        index = Index(
            namespace=namespace,
            environment_id=environment.id,
            parts=environment.parts,
            recorded=environment.recorded,
            frames=tuple(self._frames),
            units=tuple(sorted(self._units, key=lambda unit: unit.name)),
            roots=tuple(sorted({unit.name.partition("/")[0] for unit in self._units})),
        )
        end = trailer.encode(index.encode(), self._packed_bytes)
        check_writable(self._members, self._raw_bytes, self._packed_bytes + len(end), self._limits)
        self._out.write(end)
        return self._packed_bytes + len(end)

    @property
    def _packed_bytes(self) -> int:
        return sum(frame.packed_bytes for frame in self._frames)

    def _add_file(self, file: SourceFile) -> Member:
        self._append(tar.header(file.path, file.size, file.mode, file.mtime_ns))
        offset = self._submitted_raw_bytes + len(self._buffer)
        digest = hashlib.sha256()
        size = 0
        for data in file.read():
            digest.update(data)
            size += len(data)
            self._append(data)
        if size != file.size:
            raise ValueError(f"{file.path} gave {size} bytes where {file.size} were announced")
        self._append(tar.padding(size))
        return Member(file.path, size, file.mode, file.mtime_ns, offset, digest.hexdigest())

    def _append(self, data: bytes) -> None:
        room = FRAME_RAW_BYTES - len(self._buffer)
        if len(data) < room:
            self._buffer += data
            return
        view = memoryview(data)
        while view:
            self._buffer += view[:room]
            view = view[room:]
            if len(self._buffer) == FRAME_RAW_BYTES:
                self._flush()
            room = FRAME_RAW_BYTES - len(self._buffer)

    def _flush(self) -> None:
        """Hand the open frame over for packing, and write out finished ones if too many are under way."""
        if not self._buffer:
            return
        while self._pipeline.in_flight >= _FRAMES_IN_FLIGHT:
            self._write_oldest()
        self._submitted += 1
        self._submitted_raw_bytes += len(self._buffer)
        self._pipeline.submit(self._buffer)
        self._buffer = bytearray()

    def _drain(self) -> None:
        while self._pipeline.in_flight:
            self._write_oldest()

    def _write_oldest(self) -> None:
        packed, frame = self._pipeline.take()
        self._out.write(packed)
        self._frames.append(frame)
        check_writable(self._members, self._raw_bytes, self._packed_bytes, self._limits)

    def _roll_back(self, submitted: int, submitted_raw_bytes: int, buffered: int) -> None:
        """Forget all that was appended since so much had been submitted and buffered."""
        if self._submitted == submitted:
            del self._buffer[buffered:]
            return
        self._drain()
        self._buffer.clear()
        del self._frames[submitted:]
        self._submitted, self._submitted_raw_bytes = submitted, submitted_raw_bytes
        self._out.seek(self._packed_bytes)
        self._out.truncate()


def _pack_frame(raw: bytearray) -> tuple[bytes, Frame]:
    packed = pack_frame(raw)
    return packed, Frame(len(packed), len(raw), hashlib.sha256(packed).hexdigest())
