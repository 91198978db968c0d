"""Take artifacts out of the local caches: find the units, choose those a store lacks, pack them.

A compiler may be writing meanwhile. A unit that its adapter calls incomplete, or whose files are not the same after
they were read as when they were found, is left for the next save: it is never published half.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from ..adapters import CacheRoot, Unit, UnitKind
from ..concurrency.deadline import Deadline
from ..errors import LocalCacheError
from ..pack import Content, PackUnit, PackWriter, SourceFile
from ..pack.rules import DistinctPaths, check_paths
from .bulk import FileFound, read_files
from .ownership import check_private

logger = logging.getLogger(__name__)

_BUFFER_BYTES = 256 * 1024


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


@dataclass(frozen=True)
class Snapshot:
    """The units found in the local caches."""

    units: tuple[LocalUnit, ...]
    incomplete: int
    """Units that a compiler has not finished."""


class UnitChangedError(Exception):
    """A unit was written to while it was being read."""


def has_artifacts(root: CacheRoot) -> bool:
    """Whether a root holds at least one artifact; locks, half-written files and empty folders are none."""
    return not root.adapter.accompanies and any(root.adapter.unit_of(file.path) is not None for file in _walk(root))


def take(roots: Iterable[CacheRoot], deadline: Deadline) -> Snapshot:
    """Find every unit in the given roots. Raises LocalCacheError if none of them can be read."""
    found: list[LocalUnit] = []
    incomplete = 0
    failures: list[LocalCacheError] = []
    for root in roots:
        deadline.check(f"looking through {root.path}")
        try:
            units = _group(root)
        except LocalCacheError as error:
            failures.append(error)
            continue
        complete = []
        for unit, files in units.items():
            files.sort()
            if root.adapter.is_complete(root.path, unit, [file.path for file in files]):
                complete.append(LocalUnit(root, unit, tuple(files)))
            else:
                incomplete += 1
        found += _fitting(complete)
    say_left_out(failures)
    if failures and not found:
        raise failures[0]
    return Snapshot(tuple(found), incomplete)


def say_left_out(failures: Sequence[LocalCacheError]) -> None:
    """Warn, in one line, of the roots that cannot be read: a home directory of somebody else's holds most of them."""
    if failures:
        others = f" (and {len(failures) - 1} more cache directories likewise)" if len(failures) > 1 else ""
        logger.warning("%s%s; what is there is left out", failures[0], others)


def _group(root: CacheRoot) -> dict[Unit, list[LocalFile]]:
    units: dict[Unit, list[LocalFile]] = {}
    unit_of = root.adapter.unit_of
    for file in _walk(root):
        unit = unit_of(file.path)
        if unit in units:
            units[unit].append(file)
        elif unit is not None:
            units[unit] = [file]
    return units


def _fitting(units: list[LocalUnit]) -> list[LocalUnit]:
    """Those of one root whose paths the format has room for, beside those before them."""
    with suppress(ValueError):  # nearly always all of them, and at once they take a fraction of the time
        _check_fit(units, DistinctPaths())
        return units
    distinct = DistinctPaths()
    found = []
    for unit in units:
        try:
            _check_fit([unit], distinct)
            found.append(unit)
        except ValueError as error:
            logger.warning("%s/%s is not saved: %s", unit.root.path, unit.files[0].path, error)
    return found


def _check_fit(units: Iterable[LocalUnit], distinct: DistinctPaths) -> None:
    """Raise ValueError unless the format has room for some units' paths, beside ``distinct``."""
    paths = [f"{unit.root.name}/{file.path}" for unit in units for file in unit.files]
    if paths:
        check_paths(paths)
        distinct.add(paths)


def lacking(
    units: Iterable[LocalUnit], stored: Mapping[str, PackUnit], settled: Collection[str] = ()
) -> list[LocalUnit]:
    """The units that a store holding ``stored`` would gain by.

    Compilers name their artifacts by what went into them, so a unit of a known name is the same work done twice, even
    where its bytes differ (they hold timings). It counts as new only if it has all the files that the stored one has,
    and more: a graph for one more set of guards, a library that was not there yet.

    Where a name covers less than the compiler checks, it may have found the stored unit out of date and replaced it.
    Such a unit counts as new if its content differs and its name is among the ``settled`` ones: what was published a
    moment ago was probably compiled at the same time.

    What only goes along with artifacts is new if one of those is.
    """
    new = [
        unit
        for unit in units
        if not (known := stored.get(unit.name))
        or _extends(unit, known)
        or (unit.name in settled and unit.root.adapter.may_be_replaced(unit.unit) and _differs(unit, known))
    ]
    return new if hold_artifacts(new) else []


def hold_artifacts(units: Iterable[LocalUnit]) -> bool:
    """Whether there is an artifact among units, not only what goes along with artifacts."""
    return any(not unit.root.adapter.accompanies for unit in units)


def _differs(local: LocalUnit, stored: PackUnit) -> bool:
    times = {member.path: (member.size, member.mtime_ns) for member in stored.members}
    if all(times.get(f"{local.root.name}/{file.path}") == (file.size, file.mtime_ns) for file in local.files):
        return False  # as it was restored
    found = content(local)
    return bool(found) and found != {(member.path, member.sha256) for member in stored.members}


def content(unit: LocalUnit) -> frozenset[tuple[str, str]]:
    """Path in a pack and SHA-256 of each of a unit's files, as they would travel; empty if they are being written."""
    found = set()
    buffer = memoryview(bytearray(_BUFFER_BYTES))
    try:
        for source in _Sources(unit).files:
            digest = hashlib.sha256()
            with source.open(source) as file:
                left = source.size
                while left and (count := file.readinto(buffer[:left])):
                    digest.update(buffer[:count])
                    left -= count
            found.add((source.path, digest.hexdigest()))
    except UnitChangedError:
        return frozenset()
    return frozenset(found)


def pack(units: Iterable[LocalUnit], writer: PackWriter) -> int:
    """Add units to a pack, like beside like; returns how many were left out because they changed meanwhile."""
    changed = 0
    for unit in sorted(units, key=_likeness):
        try:
            sources = _Sources(unit)
            check = partial(_check_folder, unit)
            writer.add_unit(unit.name, unit.unit.kind.value, sources.files, check, read=sources.read)
        except UnitChangedError as change:
            logger.debug("%s is left for the next save: %s", unit.name, change)
            changed += 1
    return changed


def _extends(local: LocalUnit, stored: PackUnit) -> bool:
    return {f"{local.root.name}/{file.path}" for file in local.files} > {member.path for member in stored.members}


def _likeness(unit: LocalUnit) -> tuple[str, int, str]:
    """Variants of one kernel have files of the same names and about the same size; side by side they pack best."""
    return (unit.files[0].path.rpartition("/")[2], unit.size, unit.name)


def _walk(root: CacheRoot) -> Iterator[LocalFile]:
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


class _Sources:
    """The files of a unit as they travel, to be read one by one or all at once."""

    def __init__(self, unit: LocalUnit) -> None:
        self._unit = unit
        self._folder = str(unit.root.path)
        self.files: list[SourceFile] = []
        self._contents: list[LocalFile | bytes] = []
        """Of each its place on this machine, or its content without this machine's paths."""
        paths = {file.path for file in unit.files}
        prefix, is_rewritten = f"{unit.root.name}/", unit.root.adapter.is_rewritten
        for file in unit.files:
            path, size, mode, mtime_ns, _inode = file
            content: LocalFile | bytes = file
            if is_rewritten(path):
                content = self._portable(file, paths)
                size = len(content)
            self.files.append(SourceFile(prefix + path, size, mode, mtime_ns, partial(self._open, content)))
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
        if read_files(self._folder, places, memory) != found:
            raise UnitChangedError("a file was written to")

    def _open(self, content: LocalFile | bytes, _source: SourceFile) -> Content:
        return io.BytesIO(content) if isinstance(content, bytes) else _UnchangedFile(self._folder, content)

    def _portable(self, file: LocalFile, siblings: Collection[str]) -> bytes:
        """The content of a file without this machine's paths."""
        buffer = bytearray(file.size)
        try:
            [found] = read_files(self._folder, [(file.path, file.size, 0)], buffer)
            if found != file.as_read:
                raise UnitChangedError(f"{file.path} was written to")
        except OSError:  # once more, to tell a file that is gone from one that cannot be read
            with _UnchangedFile(self._folder, file) as content, memoryview(buffer) as left:
                while left:
                    left = left[content.readinto(left) :]
        try:
            return self._unit.root.adapter.to_portable(file.path, bytes(buffer), siblings)
        except ValueError as error:
            raise UnitChangedError(f"{file.path} is not as its compiler writes it ({error})") from error


class _UnchangedFile:
    """A file that is read on condition that it stays as it was found: leaving it raises UnitChangedError otherwise."""

    __slots__ = ("_descriptor", "_found", "_path")

    def __init__(self, folder: str, found: LocalFile) -> None:
        self._found = found
        self._path = f"{folder}/{found.path}"
        try:
            self._descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
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


def _check_folder(unit: LocalUnit) -> None:
    """Raise UnitChangedError if the files of a folder are no longer those that were found."""
    if unit.unit.kind is not UnitKind.FOLDER:
        return
    inside = len(unit.unit.path) + 1
    if {file.path[inside:] for file in unit.files} == _names_in(f"{unit.root.path}/{unit.unit.path}"):
        return  # nearly always: these files and nothing else
    expected: dict[str, set[str]] = {}
    for file in unit.files:
        path = file.path
        while path != unit.unit.path:
            folder, _, name = path.rpartition("/")
            if folder in expected:
                expected[folder].add(name)
                break  # and so are the folders above it
            expected[folder] = {name}
            path = folder
    for folder, names in expected.items():
        found = _names_in(f"{unit.root.path}/{folder}")
        if names - found or any(_holds_artifacts(unit.root, f"{folder}/{name}") for name in found - names):
            raise UnitChangedError("files were added or removed")


def _holds_artifacts(root: CacheRoot, path: str) -> bool:
    """Whether there is an artifact at or below a path; links, locks and empty folders are none."""
    if not os.path.islink(root.path / path) and os.path.isdir(root.path / path):
        children = () if root.adapter.skips_folder(path) else _names_in(f"{root.path}/{path}")
        return any(_holds_artifacts(root, f"{path}/{name}") for name in children)
    return not os.path.islink(root.path / path) and root.adapter.unit_of(path) is not None


def _names_in(folder: str) -> set[str]:
    try:
        return set(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UnitChangedError(f"{folder} is gone") from error
    except OSError as error:
        raise LocalCacheError("look through", folder, error.strerror or str(error)) from error
