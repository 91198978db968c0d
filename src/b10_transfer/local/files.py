"""The files of a cache root that may be artifacts, and the units that they make up."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from ..adapters import CacheRoot, Unit
from ..errors import LocalCacheError
from .bulk import FileFound
from .ownership import check_private


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

    root: CacheRoot
    unit: Unit
    files: tuple[LocalFile, ...]

    @property
    def name(self) -> str:
        """What it is called in a pack."""
        return f"{self.root.name}/{self.unit.path}"

    @property
    def size(self) -> int:
        """Bytes of its files together."""
        return sum(file.size for file in self.files)


def walk(root: CacheRoot) -> Iterator[LocalFile]:
    """Every regular file that may be an artifact. What vanishes meanwhile is passed over. Raises LocalCacheError."""
    check_private(root)
    skipped = {str(path) for path in root.nested}
    folders = [""]
    while folders:
        folder = folders.pop()
        prefix = f"{folder}/" if folder else ""
        try:
            with os.scandir(f"{root.path}/{folder}") as entries:
                for entry in entries:
                    path = prefix + entry.name
                    if entry.is_file(follow_symlinks=False):
                        try:
                            status = entry.stat(follow_symlinks=False)
                        except FileNotFoundError:
                            continue
                        yield _as_found(path, status)
                    elif entry.is_dir(follow_symlinks=False) and not (
                        entry.path in skipped or root.adapter.skips_folder(path)
                    ):
                        folders.append(path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise LocalCacheError("look through", f"{root.path}/{folder}", error.strerror or str(error)) from error


def _as_found(path: str, status: os.stat_result) -> LocalFile:
    return LocalFile(path, status.st_size, status.st_mode & 0o777, status.st_mtime_ns, status.st_ino)
