"""Whether a library is complete, and whether a file is machine code for the host."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

_MAGIC = b"\x7fELF"
_ARCHIVE = b"!<arch>"
_GPU_MACHINES = (190, 224)
"""Machines of an ELF file: NVIDIA CUDA and AMD GPU."""
_NO_BITS = 8
"""Type of a section that takes no room in the file."""
_OPEN = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_KEEP_ACCESS_TIME = getattr(os, "O_NOATIME", 0)
_LOADED = 1
"""Type of a segment that is mapped into memory."""


def is_whole_library(path: Path) -> bool:
    """Whether a linker has finished a file. A file that is no ELF file counts as finished.

    An unfinished file is empty, begins with zeros (some linkers write the header last), or is an ELF file with a table,
    a section or a loaded segment that ends behind the end of the file.
    """
    try:
        descriptor = _opened(path)
    except FileNotFoundError:  # the next reader notices
        return True
    except OSError:
        return False
    try:
        return _is_whole(descriptor, os.fstat(descriptor).st_size)
    except (OSError, struct.error):
        return False
    finally:
        os.close(descriptor)


def _opened(path: Path) -> int:
    """Open a file and leave its access time as it is: that shows whether a compiler has read it."""
    try:
        return os.open(path, _OPEN | _KEEP_ACCESS_TIME)
    except PermissionError:  # only the owner of a file may ask for that
        return os.open(path, _OPEN)


def _is_whole(descriptor: int, size: int) -> bool:
    header = os.pread(descriptor, 64, 0)
    if not header.startswith(_MAGIC):
        return not _MAGIC.startswith(header[:4]) and header[:4] != bytes(4)
    if len(header) < 52 or header[4] not in (1, 2) or header[5] not in (1, 2):
        return False
    is_64, order = header[4] == 2, "<>"[header[5] - 1]
    # e_phoff, e_shoff, e_flags, e_ehsize, e_phentsize, e_phnum, e_shentsize, e_shnum
    fields = struct.unpack_from(f"{order}{'QQ' if is_64 else 'II'}I5H", header, 32 if is_64 else 28)
    segments_at, sections_at, _flags, _size, segment_size, segments, section_size, sections = fields
    if not sections and not segments:
        return False
    section = _Entry(f"{order}IIQQQQ", 1, 4, 5) if is_64 else _Entry(f"{order}6I", 1, 4, 5)
    segment = _Entry(f"{order}IIQQQQ", 0, 2, 5) if is_64 else _Entry(f"{order}5I", 0, 1, 4)
    return all(
        kind == _NO_BITS or end <= size
        for kind, end in section.read(descriptor, size, sections_at, section_size, sections)
    ) and all(
        kind != _LOADED or end <= size
        for kind, end in segment.read(descriptor, size, segments_at, segment_size, segments)
    )


def is_host_code(path: Path) -> bool:
    """Whether a file is, or may be, a library, an object or an archive of objects for a CPU.

    GPU code may be an ELF file, too.
    """
    try:
        with open(path, "rb") as file:
            header = file.read(20)
    except OSError:
        return True
    if not header.startswith(_MAGIC):
        return header.startswith(_ARCHIVE)
    order: Literal["little", "big"] = "big" if header[5:6] == b"\2" else "little"
    return int.from_bytes(header[18:20], order) not in _GPU_MACHINES


class _Entry(NamedTuple):
    """The fields of an entry of a table, and the positions of its type, offset and size."""

    fields: str
    type: int
    offset: int
    size: int

    def read(self, descriptor: int, file_size: int, start: int, each: int, count: int) -> Iterator[tuple[int, int]]:
        """The type of each entry, and where its content ends. Raises struct.error if the table is not complete."""
        if not count:  # then the file may claim that the table is anywhere
            return
        entry = struct.Struct(self.fields)
        if each < entry.size or start + each * count > file_size:
            raise struct.error("a table ends behind the file")
        table = os.pread(descriptor, each * count, start)
        for index in range(count):
            values = entry.unpack_from(table, index * each)
            yield values[self.type], values[self.offset] + values[self.size]
