"""The files of a cache root that may be artifacts, and the units that they make up."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from ..adapters import CacheRoot, Unit
from ..errors import LocalCacheError, explained
from .bulk import FileFound
from .ownership import FOLDER, OpenRoot

_DEEPEST = 100
"""Folders below each other that a walk looks through: compilers nest a dozen at most, and each takes a descriptor."""
_SYSTEM_FOLDER = "lost+found"
"""What ext4 keeps at the top of a volume, for root alone."""


class LocalFile(NamedTuple):
    """A file as it was found. If it is found equal again, nobody has written to it in between."""

    path: str
    """Relative to its root."""
    size: int
    mode: int
    mtime_ns: int
    inode: int

    @property
    def as_read(self) -> FileFound:
        """What reading it whole tells of it, if it still is as it was found."""
        return (self.size, self.size, self.mtime_ns, self.inode)


@dataclass(frozen=True)
class LocalUnit:
    """A unit in a local cache, with its files sorted by path."""

    opened: OpenRoot
    unit: Unit
    files: tuple[LocalFile, ...]

    @property
    def root(self) -> CacheRoot:
        """The cache it belongs to."""
        return self.opened.root

    @property
    def name(self) -> str:
        """What it is called in a pack."""
        return f"{self.root.name}/{self.unit.path}"

    @property
    def size(self) -> int:
        """Bytes of its files together."""
        return sum(file.size for file in self.files)


def walk(opened: OpenRoot) -> Iterator[LocalFile]:
    """Every regular file that may be an artifact, found without following a link.

    Left out, and noted in ``opened``, is what cannot be read and what another user could have written. An entry that is
    removed meanwhile is passed over. Raises LocalCacheError if the root itself cannot be read.
    """
    inside = len(str(opened.root.path)) + 1
    foreign = {str(path)[inside:] for path in opened.root.nested}
    pending = [_Folder(os.dup(opened.descriptor), "", ["."])]
    try:
        while pending:
            above = pending[-1]
            if not above.names:
                os.close(pending.pop().descriptor)
            elif len(pending) > _DEEPEST:
                above.names.clear()
            else:
                folder = _entered(opened, above, above.names.pop())
                if folder is not None:
                    pending.append(folder)
                    yield from _listed(opened, folder, foreign)
    finally:
        for folder in pending:
            os.close(folder.descriptor)


class _Folder(NamedTuple):
    """An open folder of a walk."""

    descriptor: int
    prefix: str
    """Its path below the root and a slash; empty for the root."""
    names: list[str]
    """The folders in it that are still to be looked through."""


def _entered(opened: OpenRoot, above: _Folder, name: str) -> _Folder | None:
    path = "" if name == "." else above.prefix + name
    try:
        descriptor = os.open(name, FOLDER, dir_fd=above.descriptor)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        opened.leave_out(path, explained(error))
        return None
    if opened.is_trusted(os.fstat(descriptor)):
        return _Folder(descriptor, f"{path}/" if path else "", [])
    os.close(descriptor)
    opened.leave_out(path, "another user could have written to it")
    return None


def _listed(opened: OpenRoot, folder: _Folder, foreign: Collection[str]) -> list[LocalFile]:
    """The files in a folder; the folders in it that are worth a look are added to ``folder.names``."""
    files = []
    skips_folder = opened.root.adapter.skips_folder
    try:
        with os.scandir(folder.descriptor) as entries:
            for entry in entries:
                path = folder.prefix + entry.name
                if entry.is_file(follow_symlinks=False):
                    try:
                        status = entry.stat(follow_symlinks=False)
                    except FileNotFoundError:
                        continue
                    if opened.is_trusted(status):
                        files.append(_as_found(path, status))
                    else:
                        opened.leave_out(path, "another user could have written it")
                elif entry.is_dir(follow_symlinks=False) and not (
                    path in foreign or path == _SYSTEM_FOLDER or skips_folder(path)
                ):
                    folder.names.append(entry.name)
    except OSError as error:
        if not folder.prefix:
            raise LocalCacheError("look through", str(opened.root.path), explained(error)) from error
        opened.leave_out(folder.prefix, explained(error))
    return files


def _as_found(path: str, status: os.stat_result) -> LocalFile:
    return LocalFile(path, status.st_size, status.st_mode & 0o777, status.st_mtime_ns, status.st_ino)
