"""Read the files of a unit for a pack, and check that the compiler did not change them meanwhile."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from ..adapters import UnitKind
from ..errors import LocalCacheError, SaveTooLargeError, explained
from ..pack import Content, SourceFile
from ..pack.units import storable_time
from .bulk import read_files
from .files import LocalFile, LocalUnit, RootScan
from .ownership import OpenRoot

_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class UnitChangedError(Exception):
    """A unit was written to while it was being read."""


class NotAsWrittenError(UnitChangedError):
    """A unit is not as its compiler writes it, or it is not known what it was made from."""


class Sources:
    """The files of a unit as a pack holds them, to be read one by one or all at once."""

    def __init__(self, unit: LocalUnit) -> None:
        self._unit = unit
        self._opened = unit.opened
        self.files: list[SourceFile] = []
        self._contents: list[LocalFile | bytes] = []
        """The place of each file on this machine, or its content without this machine's paths."""
        paths = {file.path for file in unit.files}
        prefix, is_rewritten = f"{unit.root.name}/", unit.root.adapter.is_rewritten
        for file in unit.files:
            path, size, mode, mtime_ns, _inode = file
            content: LocalFile | bytes = file
            if unit.results is not None:
                content = unit.results
                size = len(content)
            elif is_rewritten(path):
                content = self._portable(file, paths)
                size = len(content)
            time_ns = storable_time(mtime_ns)
            self.files.append(SourceFile(prefix + path, size, mode, time_ns, partial(self._open, content)))
            self._contents.append(content)

    def read(self, offsets: Sequence[int], memory: bytearray) -> None:
        """Read each file to its offset. Raises UnitChangedError if one is not as it was found, OSError as it comes."""
        places, found = [], []
        for content, offset in zip(self._contents, offsets, strict=True):
            if isinstance(content, bytes):
                memory[offset : offset + len(content)] = content
            else:
                places.append((content.path, content.size, offset))
                found.append(content.as_read)
        if read_files(self._opened.descriptor, places, memory) != found:
            raise UnitChangedError("a file was written to")

    def _open(self, content: LocalFile | bytes, _source: SourceFile) -> Content:
        return io.BytesIO(content) if isinstance(content, bytes) else _UnchangedFile(self._opened, content)

    def _portable(self, file: LocalFile, siblings: Collection[str]) -> bytes:
        """The content of a file without this machine's paths."""
        root = self._unit.root
        if file.size > root.adapter.most_rewritten_bytes:
            raise self._too_large(file, file.size)
        buffer = bytearray(file.size)
        try:
            [found] = read_files(self._opened.descriptor, [(file.path, file.size, 0)], buffer)
            if found != file.as_read:
                raise UnitChangedError(f"{file.path} was written to")
        except OSError:  # once more, to tell a file that is gone from one that cannot be read
            with _UnchangedFile(self._opened, file) as content, memoryview(buffer) as left:
                while left:
                    left = left[content.readinto(left) :]
        try:
            portable = root.adapter.to_portable(root.path, file.path, bytes(buffer), siblings)
        except ValueError as error:
            raise NotAsWrittenError(f"{root.path}/{os.path.dirname(file.path)}: {error}") from error
        if len(portable) > root.adapter.most_rewritten_bytes:
            raise self._too_large(file, len(portable))
        return portable

    def _too_large(self, file: LocalFile, size: int) -> SaveTooLargeError:
        root = self._unit.root
        limit = f"{root.adapter.most_rewritten_bytes} for a file that names local paths"
        return SaveTooLargeError(f"{root.path}/{file.path}", f"{size} bytes", limit)


def read_whole(unit: LocalUnit) -> bytes:
    """The content of a unit that is one file. Raises UnitChangedError if it is being written."""
    [file] = unit.files
    data = bytearray(file.size)
    with _UnchangedFile(unit.opened, file) as content, memoryview(data) as left:
        while left:
            left = left[content.readinto(left) :]
    return bytes(data)


class _UnchangedFile:
    """A file that must not change while it is read: leaving the context raises UnitChangedError otherwise."""

    __slots__ = ("_descriptor", "_found", "_path")

    def __init__(self, opened: OpenRoot, found: LocalFile) -> None:
        self._found = found
        self._path = f"{opened.root.path}/{found.path}"
        folder, _, name = found.path.rpartition("/")
        try:
            descriptor = opened.open_folder(folder)
            try:
                self._descriptor = os.open(name, _FILE, dir_fd=descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise UnitChangedError(f"{self._path} can no longer be opened ({error.strerror})") from error

    def __enter__(self) -> _UnchangedFile:
        return self

    def readinto(self, buffer: memoryview) -> int:
        try:
            count = os.readv(self._descriptor, [buffer])
        except OSError as error:
            raise LocalCacheError("read", self._path, error.strerror or str(error)) from error
        if not count and len(buffer):
            raise UnitChangedError(f"{self._path} became shorter")
        return count

    def __exit__(self, error_type: object, *_: object) -> None:
        now, found = os.fstat(self._descriptor), self._found
        os.close(self._descriptor)
        if error_type is None and (now.st_mtime_ns, now.st_size, now.st_ino) != (
            found.mtime_ns,
            found.size,
            found.inode,
        ):
            raise UnitChangedError(f"{self._path} was written to")


def check_folder(unit: LocalUnit) -> None:
    """Raise UnitChangedError if the files of a folder are no longer those that were found."""
    if unit.unit.kind is not UnitKind.FOLDER:
        return
    inside = len(unit.unit.path) + 1
    if {file.path[inside:] for file in unit.files} == _names_in(unit.opened, unit.unit.path):
        return  # nearly always: these files and nothing else
    expected = [file.path for file in unit.files]
    found = [[file.path for file in files] for _unit, files in RootScan(unit.opened).units(unit.unit.path)]
    if found != [expected]:
        raise UnitChangedError("files were added or removed")


def _names_in(opened: OpenRoot, folder: str) -> set[str]:
    with _open_folder(opened, folder) as descriptor:
        return set(os.listdir(descriptor))


@contextmanager
def _open_folder(opened: OpenRoot, folder: str) -> Iterator[int]:
    """A folder of a root. Raises UnitChangedError if it is gone, LocalCacheError if it cannot be read."""
    try:
        descriptor = opened.open_folder(folder)
        try:
            yield descriptor
        finally:
            os.close(descriptor)
    except OSError as error:
        path = f"{opened.root.path}/{folder}"
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise UnitChangedError(f"{path} is gone") from error
        raise LocalCacheError("list", path, explained(error)) from error
