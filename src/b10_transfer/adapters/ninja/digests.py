"""Digests of the files that a build depends on: sources, headers and compilers.

The paths come from packs, too. So nothing but regular files is read, and no more of them than a compiler reads.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from functools import lru_cache
from typing import NamedTuple

_LARGEST_BYTES = 256 * 1024 * 1024
_LARGEST_SCRIPT_BYTES = 64 * 1024
_FILES_REMEMBERED = 1 << 15
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_PATH = re.compile(rb"/[\w.+/-]+")


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


def program_files(name: str, folder: str) -> list[str]:
    """The files that run if a shell in ``folder`` starts a program.

    All programs of this name on the PATH count, because ccache, for example, starts the next one. Of a script, the
    files that it names count, too.
    """
    if "/" in name:
        places = [os.path.join(folder, name)]
    else:
        places = [os.path.join(part, name) for part in os.environ.get("PATH", os.defpath).split(os.pathsep) if part]
    found = [os.path.realpath(place) for place in places if os.access(place, os.X_OK) and os.path.isfile(place)]
    named = [path for place in dict.fromkeys(found) for path in _named_in(place)]
    return list(dict.fromkeys([*found, *named]))


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


def _named_in(script: str) -> list[str]:
    """The files that a script names by absolute path."""
    try:
        if os.path.getsize(script) > _LARGEST_SCRIPT_BYTES:
            return []
        with open(script, "rb", opener=lambda name, _flags: os.open(name, _READ)) as file:
            text = file.read(_LARGEST_SCRIPT_BYTES)
    except OSError:
        return []
    if not text.startswith(b"#!"):
        return []
    paths = (os.path.realpath(os.fsdecode(path)) for path in _PATH.findall(text))
    return sorted({path for path in paths if os.path.isfile(path)})
