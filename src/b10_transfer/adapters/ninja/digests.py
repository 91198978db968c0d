"""Read the files that a build depends on: sources, headers, compilers, and ninja's own.

The paths come from packs, too. So nothing but regular files is read, and no more of them than a compiler reads.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from functools import lru_cache
from typing import NamedTuple

_LARGEST_BYTES = 256 * 1024 * 1024
_FILES_REMEMBERED = 1 << 15
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class FileFacts(NamedTuple):
    """A regular file."""

    size: int
    mtime_ns: int
    ctime_ns: int
    sha256: str


def facts(path: str, size: int | None = None) -> FileFacts:
    """Read a file, unless it was read before and has not changed.

    Args:
        path: Its path.
        size: Its size in bytes. A file of another size is not read, and its digest is empty. Default: any.

    Raises:
        OSError: It cannot be read, is no regular file, or is larger than any source or compiler.
    """
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode) or found.st_size > _LARGEST_BYTES:
        raise OSError(0, "it is no file of a compiler", path)
    digest = ""
    if size is None or size == found.st_size:
        digest = _sha256(path, found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    return FileFacts(found.st_size, found.st_mtime_ns, found.st_ctime_ns, digest)


def links_changed_ns(path: str) -> int:
    """When a symbolic link on the way to a file was last changed, in nanoseconds since the epoch; 0 without links."""
    latest = 0
    at = path
    while at not in ("", "/"):
        latest = max(latest, _link_changed_ns(at))
        at = at.rpartition("/")[0]
    return latest


def _link_changed_ns(path: str) -> int:
    try:
        found = os.lstat(path)
    except OSError:
        return 0
    return found.st_ctime_ns if stat.S_ISLNK(found.st_mode) else 0


def read_regular(path: str, most: int, *, follow: bool = True) -> bytes:
    """Read a small file.

    Args:
        path: Its path.
        most: The largest size, in bytes.
        follow: Whether the path may be a symbolic link.

    Raises:
        OSError: It cannot be read, is no regular file, or is larger.
    """
    flags = _READ if follow else _READ | os.O_NOFOLLOW
    with open(path, "rb", opener=lambda name, _flags: os.open(name, flags)) as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", path)
        if found.st_size > most:
            raise OSError(errno.EFBIG, f"it has more than {most} bytes", path)
        return file.read(most)


@lru_cache(maxsize=_FILES_REMEMBERED)
def _sha256(path: str, _device: int, _inode: int, size: int, _mtime_ns: int, _ctime_ns: int) -> str:
    digest = hashlib.sha256()
    with open(path, "rb", opener=lambda name, _flags: os.open(name, _READ)) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(0, "it is no file of a compiler", path)
        left = size
        while left > 0 and (block := file.read(min(left, 1 << 20))):
            digest.update(block)
            left -= len(block)
    return digest.hexdigest()
