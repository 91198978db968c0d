"""Move staged units to their cache root."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import stat
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from ..adapters import CacheRoot, UnitKind
from ..adapters.accumulation import Results
from ..concurrency.deadline import Deadline
from ..errors import CacheError, LocalCacheError, explained
from ..pack import PackUnit
from ..repository.ignored import few
from ..repository.union import Pack, Union
from ..stores.folders import make_folders
from .files import LocalFile
from .presence import Presence, below_root, known_unit
from .rights import rights_of
from .staging import StagedTree

logger = logging.getLogger(__name__)

_TAKEN = {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR, errno.EISDIR}
"""Errors of a rename if the target exists."""
_CANNOT_RENAME = {errno.EBUSY, errno.EXDEV, errno.EACCES, errno.EPERM}
"""Errors of a rename if a folder cannot become the root, although a new root could take units."""
_CREATED = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


@dataclass
class Restored:
    """The result of a restore."""

    union: Union
    """The union that it restored from, without packs that turned out to be damaged."""
    names: list[str] = field(default_factory=list)
    """Names of the units that are in place."""
    files: int = 0
    bytes: int = 0
    packed_bytes: int = 0
    packs: set[str] = field(default_factory=set)
    failures: list[CacheError] = field(default_factory=list)
    """Why roots or units could not be put in place. All others are in place."""
    unfit: dict[str, str] = field(default_factory=dict)
    """Why units are of no use on this machine, by name. They are not in place."""

    @property
    def units(self) -> int:
        """The number of units that are in place."""
        return len(self.names)

    def count(self, pack: Pack, unit: PackUnit) -> None:
        """Record that a unit is in place."""
        self.names.append(unit.name)
        self.files += len(unit.members)
        self.bytes += unit.size
        if pack.id not in self.packs:
            self.packs.add(pack.id)
            self.packed_bytes += pack.packed_bytes

    def fail(self, error: CacheError) -> None:
        """Record and log why units could not be put in place."""
        logger.warning("%s; the rest is restored without it", error)
        self.failures.append(error)


def place(
    cache: CacheRoot, tree: StagedTree, units: list[tuple[Pack, PackUnit]], result: Restored, deadline: Deadline
) -> None:
    """Move staged units to their root, and count those that were not already there."""
    with rights_of(tree.user):
        units = _fitting(cache, tree, units, result, deadline)
        if not units:
            return
        whole = not os.path.lexists(cache.path) and _become_root(tree, cache.path)
        for pack, unit in units:
            try:
                if whole or _place_unit(cache, tree, unit):
                    result.count(pack, unit)
            except OSError as error:  # a folder on another file system, say
                path = f"{cache.path}/{below_root(unit.name)}"
                result.fail(LocalCacheError("restore to", path, explained(error)))


def _fitting(
    cache: CacheRoot, tree: StagedTree, units: list[tuple[Pack, PackUnit]], result: Restored, deadline: Deadline
) -> list[tuple[Pack, PackUnit]]:
    """Adapt staged units to this machine. Those that are of no use here are removed, with one WARNING for the root."""

    def check() -> None:
        deadline.check(f"comparing the sources of units in {cache.path}")

    fit = cache.adapter.fitting(cache.path, tree.path, check) if units else None
    if fit is None:
        return units
    fitting, unfit = [], {}
    for pack, unit in units:
        check()
        known = known_unit(unit)
        if reason := fit(known):
            unfit[unit.name] = reason
            shutil.rmtree(tree.path / known.path)
        else:
            fitting.append((pack, unit))
    check()
    if unfit:
        logger.warning("%s: %s. Not restored: it has to be built here", cache.path, why_unfit(unfit))
        result.unfit |= unfit
    return fitting


def why_unfit(unfit: Mapping[str, str]) -> str:
    """Which units are of no use on this machine, with the reason of one; empty if there are none."""
    if not unfit:
        return ""
    name, reason = next(iter(unfit.items()))
    if len(unfit) == 1:
        return f"{name} does not fit this machine: {reason}"
    return f"{few(unfit)} do not fit this machine, {name} for example: {reason}"


def _become_root(tree: StagedTree, root: Path) -> bool:
    """Rename the staged tree to the root, so that a restore appears at once. False if the root exists now."""
    make_folders(root.parent, tree.folder_mode)
    # The staged tree is private. The root gets the permissions of any new folder.
    mode = stat.S_IMODE(os.stat(tree.path).st_mode) | tree.folder_mode & ~tree.masked
    os.chmod(tree.path, mode)
    try:
        return _rename_folder(tree.path, root)
    except OSError as error:
        if error.errno not in _CANNOT_RENAME:
            raise
        return False


def _place_unit(cache: CacheRoot, tree: StagedTree, unit: PackUnit) -> bool:
    """Move one unit to its root; False if it is there."""
    root, staged, known = cache.path, tree.path, known_unit(unit)
    make_folders((root / known.path).parent, tree.folder_mode)
    if known.kind is UnitKind.FOLDER and _rename_folder(staged / known.path, root / known.path):
        return True
    presence = Presence(cache)
    if presence.has(known):
        results = cache.adapter.results_of(known.path)
        return results is not None and _add_results(results, root / known.path, staged / known.path)
    if cache.adapter.is_held(root, known):
        return False
    _move_aside(presence.files(known), root, staged)
    # A stem, or a folder that a killed compiler has left. The file that names the others comes last.
    paths = sorted((below_root(member.path) for member in unit.members), key=cache.adapter.is_rewritten)
    is_placed = False
    for path in paths:
        make_folders((root / path).parent, tree.folder_mode)
        is_placed |= _link(staged / path, root / path)
    return is_placed


def _add_results(results: Results, target: Path, restored: Path) -> bool:
    """Add results to an existing file, unless its compiler writes to it meanwhile; False if it has all of them."""
    before = os.stat(target, follow_symlinks=False)
    local = target.read_bytes()
    try:
        merged = results.merge(restored.read_bytes(), local)
        if results.read(merged) == results.read(local):
            return False
    except ValueError as error:
        logger.warning("%s is left as it is: %s", target, error)
        return False
    restored.unlink()
    restored.write_bytes(merged)
    os.chmod(restored, before.st_mode & 0o777)
    now = os.stat(target, follow_symlinks=False)
    if (now.st_mtime_ns, now.st_size, now.st_ino) != (before.st_mtime_ns, before.st_size, before.st_ino):
        return False
    os.rename(restored, target)
    return True


def _move_aside(leftovers: Sequence[LocalFile], root: Path, staged: Path) -> None:
    """Move leftovers of a killed compiler to the staged tree, which is removed when the restore is over.

    The folder itself stays, because a compiler without a lock may be about to write to it.
    """
    for number, file in enumerate(leftovers):
        with suppress(FileNotFoundError):
            os.rename(root / file.path, staged / f".b10-leftover-{number}-{os.urandom(8).hex()}")


def _link(staged: Path, target: Path) -> bool:
    """Give a staged file its final name. If that is taken, what is there stays; False then."""
    try:
        os.link(staged, target, follow_symlinks=False)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        return _copy(staged, target)
    return True


def _copy(staged: Path, target: Path) -> bool:
    """Copy a file, on file systems without hard links. A rename could replace a file that was just compiled."""
    try:
        descriptor = os.open(target, _CREATED, 0o600)
    except FileExistsError:
        return False
    with open(descriptor, "wb") as file:
        try:
            with open(staged, "rb") as source:
                shutil.copyfileobj(source, file)
            file.flush()
            status = os.stat(staged)
            os.fchmod(descriptor, stat.S_IMODE(status.st_mode))
            os.utime(descriptor, ns=(status.st_atime_ns, status.st_mtime_ns))
        except OSError:
            with suppress(OSError):  # half a file is worse than none
                if os.path.samestat(os.fstat(descriptor), os.lstat(target)):
                    os.unlink(target)
            raise
    return True


def _rename_folder(staged: Path, target: Path) -> bool:
    try:
        os.rename(staged, target)  # fails unless the target is missing or an empty folder
    except OSError as error:
        if error.errno not in _TAKEN:
            raise
        return False
    return True
