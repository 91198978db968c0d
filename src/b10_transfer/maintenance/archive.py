"""Reads a file that ``export`` wrote as a store. It unpacks nothing to disk."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path
from typing import BinaryIO, cast

from ..concurrency.deadline import Deadline
from ..errors import ImportFileError, StoreError
from ..repository.layout import is_carried
from ..stores.base import ObjectInfo, ObjectReader, ReadStore, StoreFacts

_MOST_MEMBERS = 100_000
_MOST_HEADER_BYTES = 64 * 1024
"""Largest header: a long name, or PAX records. The headers of an export have 512 bytes."""
_REGULAR = (tarfile.REGTYPE, tarfile.AREGTYPE)


class ArchiveStore(ReadStore):
    """The objects in an open export.

    An export is a tar of regular files with the names of packs and descriptions. A sparse member is refused, because
    its size is not its size in the file.

    Args:
        file: The open file.
        path: Its path, for messages.
        deadline: Of the operation.

    Raises:
        ImportFileError: The file is not an export.
    """

    def __init__(self, file: BinaryIO, path: Path, deadline: Deadline) -> None:
        self.location = str(path)
        self._file = file
        self._modified_s = os.fstat(file.fileno()).st_mtime
        self._objects: dict[str, tuple[int, int]] = {}
        """Offset and size of each object in the file."""
        try:
            headers = _Headers(file)
            with tarfile.open(fileobj=cast("BinaryIO", headers), mode="r:") as archive:
                for number, member in enumerate(archive):
                    headers.begin()
                    deadline.check(f"reading {path}")
                    if number >= _MOST_MEMBERS or not _is_plain(member):
                        raise ImportFileError(str(path), f"it is not an export: it contains {member.name!a:.200}")
                    self._objects.setdefault(member.name, (member.offset_data, member.size))
            if not headers.at_end:  # the tar module takes a bad header for the end
                raise tarfile.ReadError("its end is missing")
        except (tarfile.TarError, ValueError, OverflowError, RecursionError) as error:
            raise ImportFileError(str(path), f"it is not an export ({error!s:.200})") from error

    def folders(self, folder: str) -> list[str]:
        depth = folder.count("/") + 2
        below = (name for name in self._objects if name.startswith(f"{folder}/") and name.count("/") >= depth)
        return sorted({"/".join(name.split("/")[:depth]) for name in below})

    def list(self, folder: str) -> list[ObjectInfo]:
        return [
            ObjectInfo(name, size_bytes, self._modified_s)
            for name, (_offset, size_bytes) in sorted(self._objects.items())
            if name.rpartition("/")[0] == folder
        ]

    def facts(self) -> StoreFacts:
        return StoreFacts(exists=True)

    def open(self, name: str) -> ObjectReader | None:
        found = self._objects.get(name)
        return None if found is None else _Part(self._file, f"{self.location}:{name}", *found)


class _Headers:
    """The file for the tar module, with limited reads: the module reads headers of any size into memory."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell
        self._block = b""
        self.begin()

    def begin(self) -> None:
        """Begin with the headers of the next member."""
        self._left = _MOST_HEADER_BYTES

    def read(self, size: int = -1, /) -> bytes:
        # Some Pythons read a large header in one piece, others in many.
        if not 0 <= size <= self._left:
            raise tarfile.ReadError(f"a header of more than {_MOST_HEADER_BYTES} bytes")
        self._left -= size
        self._block = self._file.read(size)
        return self._block

    @property
    def at_end(self) -> bool:
        """Whether the last block that was read is one that ends an archive: 512 zero bytes."""
        return self._block == bytes(tarfile.BLOCKSIZE)


def _is_plain(member: tarfile.TarInfo) -> bool:
    return member.type in _REGULAR and not member.issparse() and member.size >= 0 and is_carried(member.name)


class _Part(ObjectReader):
    waits = False

    def __init__(self, file: BinaryIO, name: str, offset: int, size_bytes: int) -> None:
        self._file = file
        self._name = name
        self._offset = offset
        self.size_bytes = size_bytes

    def read_at(self, offset: int, length: int) -> bytes:
        if not 0 <= offset <= offset + length <= self.size_bytes:
            raise StoreError("read", self._name, f"it ends at byte {self.size_bytes}")
        data = bytearray()
        while len(data) < length:
            part = os.pread(self._file.fileno(), length - len(data), self._offset + offset + len(data))
            if not part:
                raise StoreError("read", self._name, "the file is truncated")
            data += part
        return bytes(data)

    def close(self) -> None:
        """Nothing: the file belongs to the store."""
