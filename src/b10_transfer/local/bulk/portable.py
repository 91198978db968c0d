"""``_native.c`` in Python: for systems without a C compiler, and as the reference for its tests."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from typing import TypeAlias

FilePart: TypeAlias = "tuple[str, int, int, bytes | bytearray, int, int, int]"
"""Path, permissions, time in nanoseconds, some bytes, where in them its content begins and ends, and where that begins
in the file."""
FilePlace: TypeAlias = "tuple[str, int, int]"
"""Path, size in bytes, where its content goes in the memory."""
FileFound: TypeAlias = "tuple[int, int, int, int]"
"""Bytes read, and then of the open file: size in bytes, time in nanoseconds, inode."""

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATED = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_CONTINUED = os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def write_files(tree: int, parts: Sequence[FilePart], masked: int, folder_mode: int = 0o755) -> None:
    """Write parts of files, or whole ones, below the folder that is open as ``tree``.

    Folders that are missing are made with ``folder_mode``, less the umask. A part that begins at 0 creates its file
    with the permissions it names; any other continues one that its owner may write, and takes that permission away if
    it does not name it. Each gives the file its time. Nothing that is there is replaced, and no link is followed.
    ``masked`` are the permissions that creating a file does not give. Raises OSError, with the path, at the first that
    cannot be written; ValueError or TypeError, before anything is written, if a part does not lie in its bytes or is
    none.
    """
    for path, _mode, _mtime_ns, content, first, last, at in parts:
        if not (0 <= first <= last <= len(content) and at >= 0):
            raise ValueError("a file's content does not lie in its bytes")
        if not isinstance(content, (bytes, bytearray)):
            raise TypeError("a file's content must be bytes or a bytearray")
        if "\0" in path:
            raise ValueError("embedded null character")
    descriptor = -1
    opened: list[str] = []
    path = ""
    try:
        for path, mode, mtime_ns, content, first, last, at in parts:
            *folders, name = path.split("/")
            _check_plain(name)
            if descriptor < 0 or folders != opened:
                if descriptor >= 0:
                    closed, descriptor = descriptor, -1
                    os.close(closed)
                descriptor, opened = _open_folder(tree, folders, folder_mode, masked), folders
            _write(descriptor, name, mode, mtime_ns, memoryview(content)[first:last], at, masked)
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from error
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def read_files(folder: int, places: Sequence[FilePlace], memory: bytearray) -> list[FileFound]:
    """Read files below the folder that is open as ``folder`` to their places in ``memory``.

    Returns for each what it was afterwards. A file that has become shorter fills less of its place. No link is
    followed. Raises OSError, with the path, at the first that cannot be read; ValueError if a place is not in the
    memory, or a path holds a NUL character.
    """
    found: list[FileFound] = []
    for path, size, offset in places:
        if size < 0 or not 0 <= offset <= len(memory) - size:
            raise ValueError("a file does not fit into the memory")
        if "\0" in path:
            raise ValueError("embedded null character")
    descriptor = -1
    opened: list[str] = []
    path = ""
    try:
        with memoryview(memory) as view:
            for path, size, offset in places:
                *folders, name = path.split("/")
                _check_plain(name)
                if descriptor < 0 or folders != opened:
                    if descriptor >= 0:
                        closed, descriptor = descriptor, -1
                        os.close(closed)
                    descriptor, opened = _open_folder(folder, folders), folders
                with view[offset : offset + size] as room:
                    found.append(_read(descriptor, name, room))
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from error
    finally:
        if descriptor >= 0:
            os.close(descriptor)
    return found


def _read(folder: int, name: str, room: memoryview) -> FileFound:
    descriptor = os.open(name, _READ, dir_fd=folder)
    try:
        count = 0
        while count < len(room) and (got := os.readv(descriptor, [room[count:]])):
            count += got
        status = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    return count, status.st_size, status.st_mtime_ns, status.st_ino


def _check_plain(name: str) -> None:
    if name in ("", ".", ".."):
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))


def _open_folder(tree: int, names: Sequence[str], mode: int | None = None, masked: int = 0) -> int:
    """A descriptor of a folder of the tree, which is made if a mode is given. Name by name: no link leads elsewhere."""
    descriptor = os.dup(tree)
    for name in names:
        above = descriptor
        try:
            _check_plain(name)
            if mode is not None:
                with suppress(FileExistsError):
                    os.mkdir(name, mode, dir_fd=above)
                    if masked & stat.S_IRWXU:  # a folder that its owner can use, whatever the umask takes away
                        os.chmod(name, mode & ~masked | stat.S_IRWXU, dir_fd=above)
            descriptor = os.open(name, _FOLDER, dir_fd=above)
        finally:
            os.close(above)
    return descriptor


def _write(folder: int, name: str, mode: int, mtime_ns: int, data: memoryview, at: int, masked: int) -> None:
    descriptor = os.open(name, _CONTINUED if at else _CREATED, mode, dir_fd=folder)
    try:
        # A part that continues a file could only if its owner may write it: the last one takes that away again.
        if not mode & stat.S_IWUSR if at else mode & masked:
            os.fchmod(descriptor, mode)
        while data:
            count = os.pwrite(descriptor, data, at)
            if not count:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            data, at = data[count:], at + count
        os.utime(descriptor, ns=(mtime_ns, mtime_ns))
    finally:
        os.close(descriptor)
