"""The files of a cache root that may be artifacts, and the units that they make up."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import NamedTuple

from ..adapters import CacheRoot, Unit, UnitKind
from ..errors import LocalCacheError, explained
from .bulk import FileFound
from .ownership import FOLDER, OpenRoot
from .wholeness import Wholeness

_OF_THE_FILE_SYSTEM = "lost+found"
"""Made by mkfs at the top of an ext4 volume; root alone may read it."""
_WRITABLE = "another user could have written {} (chown it to this user, chmod o-w)"
_DEEPEST = 100
"""The most nested folders that a scan enters. Compilers nest a dozen at most, and each takes a descriptor."""


class LocalFile(NamedTuple):
    """A file as it was found. If it is found equal again, no process has written to it in between."""

    path: str
    """Relative to its root."""
    size: int
    mode: int
    mtime_ns: int
    inode: int

    @property
    def as_read(self) -> FileFound:
        """The result of reading the whole file, if it has not changed since."""
        return (self.size, self.size, self.mtime_ns, self.inode)


class LocalUnit(NamedTuple):
    """A unit in a local cache, with its files sorted by path."""

    opened: OpenRoot
    unit: Unit
    files: tuple[LocalFile, ...]
    results: bytes | None = None
    """Content that is published instead of its file: its results, and those that the store has already."""

    @property
    def root(self) -> CacheRoot:
        """The cache it belongs to."""
        return self.opened.root

    @property
    def name(self) -> str:
        """Its name in a pack."""
        return f"{self.root.name}/{self.unit.path}"

    @property
    def size(self) -> int:
        """Bytes of its files together."""
        return sum(file.size for file in self.files)


class RootScan:
    """One scan of a cache root: its units, and the number of entries that its compiler did not write.

    The scan enters only folders that the compiler writes to, and follows no link. It leaves out entries that cannot be
    read or that another user could have written, and notes them in the open root. Of an extra cache it leaves out the
    whole unit, and notes that in ``wholeness``.
    """

    def __init__(self, opened: OpenRoot) -> None:
        self.unrecognised = 0
        """Files and folders that no compiler writes there; a folder counts once, whatever it holds."""
        self._opened = opened
        self._root = opened.root
        self._foreign = self._root.other_places | {_OF_THE_FILE_SYSTEM}
        """Entries that are not entered: the store, for example."""
        self.wholeness: Wholeness | None = None
        """The units that are left out because an entry of them is. None unless every file of the root is taken."""
        if self._root.adapter.takes_everything:
            self.wholeness = Wholeness(self._root, self._foreign)
        self._mixed: set[str] = set()
        """Folders that hold unrecognised files."""

    def units(self, start: str = "", *, deep: bool = True) -> Iterator[tuple[Unit, list[LocalFile]]]:
        """Each unit in the folder ``start``, with the files that its compiler wrote, sorted by path.

        Files that vanish meanwhile are left out. With ``deep`` the scan also enters the folders in it.
        Raises LocalCacheError if the root itself cannot be read.
        """
        gathered: dict[Unit, list[LocalFile]] = {}
        for folder, files in self._folders(start, deep):
            for unit in list(gathered):
                if unit.kind is UnitKind.STEM or not folder.startswith(f"{unit.path}/"):
                    yield from self._written(unit, gathered.pop(unit))
            for unit, file in files:
                gathered.setdefault(unit, []).append(file)
        for unit, found in gathered.items():
            yield from self._written(unit, found)

    def _written(self, unit: Unit, files: list[LocalFile]) -> Iterator[tuple[Unit, list[LocalFile]]]:
        if self.wholeness is not None and self.wholeness.is_partial(unit):
            return
        files.sort()
        is_mixed = any(f"{folder}/".startswith(f"{unit.path}/") for folder in self._mixed)
        written = self._root.adapter.written(unit, [file.path for file in files], is_mixed=is_mixed)
        if len(written) != len(files):
            self.unrecognised += len(files) - len(written)
            kept = set(written)
            files = [file for file in files if file.path in kept]
        if files:
            yield unit, files

    def _folders(self, start: str, deep: bool) -> Iterator[tuple[str, list[tuple[Unit, LocalFile]]]]:
        """Each folder, the outer before the inner, and the files in it that may be artifacts."""
        pending: list[_Folder] = []
        try:
            if (folder := self._opened_start(start)) is not None:
                pending.append(folder)
                yield start, self._listed(folder)
            while pending and deep:
                above = pending[-1]
                if not above.names:
                    os.close(pending.pop().descriptor)
                elif len(pending) > _DEEPEST:
                    self._leave_deeper(above)
                elif (folder := self._entered(above, above.names.pop())) is not None:
                    pending.append(folder)
                    yield folder.prefix[:-1], self._listed(folder)
        finally:
            for folder in pending:
                os.close(folder.descriptor)

    def _opened_start(self, start: str) -> _Folder | None:
        try:
            # With a descriptor of its own: a shared one would continue where the last scan ended.
            return _Folder(self._opened.open_folder(start or "."), f"{start}/" if start else "", [])
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            self._leave_out(start, explained(error))
            return None

    def _leave_deeper(self, folder: _Folder) -> None:
        """Enter no folder in a folder."""
        if self.wholeness is not None:
            self.wholeness.leave_out(
                folder.prefix + folder.names[0], f"it is more than {_DEEPEST} folders deep (nest fewer)"
            )
        folder.names.clear()

    def _leave_out(self, path: str, reason: str) -> None:
        """Note why an entry is left out."""
        if self.wholeness is not None and path:
            self.wholeness.leave_out(path, reason)
        else:
            self._opened.leave_out(path, reason)

    def _entered(self, above: _Folder, name: str) -> _Folder | None:
        path = above.prefix + name
        try:
            descriptor = os.open(name, FOLDER, dir_fd=above.descriptor)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            self._leave_out(path, explained(error))
            return None
        if self._opened.is_trusted(os.fstat(descriptor)):
            return _Folder(descriptor, f"{path}/", [])
        os.close(descriptor)
        self._leave_out(path, _WRITABLE.format("to it"))
        return None

    def _listed(self, folder: _Folder) -> list[tuple[Unit, LocalFile]]:
        """The files in a folder; folders in it that may hold artifacts are added to ``folder.names``."""
        files: list[tuple[Unit, LocalFile]] = []
        claim = self._root.unit_of if self._root.neighbours else self._root.adapter.unit_of
        if self._root.reserved:
            claim = self._unreserved
        try:
            with os.scandir(folder.descriptor) as entries:
                for entry in entries:
                    path = folder.prefix + entry.name
                    is_file = entry.is_file(follow_symlinks=False)
                    if is_file and (unit := claim(path)) is not None:
                        self._add(files, unit, path, entry)
                    elif self._is_looked_into(entry, path):
                        folder.names.append(entry.name)
                    elif self._is_unrecognised(path, entry):
                        self.unrecognised += 1
                        if is_file:
                            self._mixed.add(folder.prefix[:-1])
        except OSError as error:
            if not folder.prefix:
                raise LocalCacheError("list", str(self._root.path), explained(error)) from error
            self._leave_out(folder.prefix[:-1], explained(error))
        return files

    def _unreserved(self, path: str) -> Unit | None:
        return None if path in self._foreign else self._root.unit_of(path)

    def _is_unrecognised(self, path: str, entry: os.DirEntry[str]) -> bool:
        """Whether no compiler writes an entry that is neither taken nor entered."""
        if self.wholeness is not None:
            self.wholeness.check(path, entry)
        return path not in self._foreign and not self._root.knows(path)

    def _add(self, files: list[tuple[Unit, LocalFile]], unit: Unit, path: str, entry: os.DirEntry[str]) -> None:
        try:
            status = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            return
        if self._opened.is_trusted(status):
            files.append((unit, _as_found(path, status)))
        else:
            self._leave_out(path, _WRITABLE.format("it"))

    def _is_looked_into(self, entry: os.DirEntry[str], path: str) -> bool:
        return (
            entry.is_dir(follow_symlinks=False)
            and path not in self._foreign
            and not self._root.adapter.skips_folder(path)
        )


class _Folder(NamedTuple):
    """An open folder of a scan."""

    descriptor: int
    prefix: str
    """Its path below the root and a slash; empty for the root."""
    names: list[str]
    """Its folders that are still to be scanned."""


def _as_found(path: str, status: os.stat_result) -> LocalFile:
    return LocalFile(path, status.st_size, status.st_mode & 0o777, status.st_mtime_ns, status.st_ino)
