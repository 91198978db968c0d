"""Move staged units to their cache root."""

from __future__ import annotations

import errno
import logging
import os
from dataclasses import dataclass, field
from pathlib import Path

from ..adapters import CacheRoot, UnitKind
from ..errors import LocalCacheError
from ..pack import PackUnit
from ..repository.union import Pack, Union
from .presence import below_root, is_present, known_unit
from .staging import lies_inside

logger = logging.getLogger(__name__)

_TAKEN = {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR, errno.EISDIR}
"""What a rename answers when there is something in its way."""
_CANNOT_RENAME = {errno.EBUSY, errno.EXDEV, errno.EACCES, errno.EPERM}
"""What it answers where a root cannot be replaced as a whole, though units can be put into it."""
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


@dataclass
class Restored:
    """What a restore did."""

    union: Union
    """What it restored from: without the packs whose content turned out to be damaged."""
    names: list[str] = field(default_factory=list)
    """Names of the units that are in place."""
    files: int = 0
    bytes: int = 0
    packed_bytes: int = 0
    packs: set[str] = field(default_factory=set)
    failures: list[LocalCacheError] = field(default_factory=list)
    """What could not be put in place, of roots or units; the others were."""

    @property
    def units(self) -> int:
        """How many units are in place."""
        return len(self.names)

    def count(self, pack: Pack, unit: PackUnit) -> None:
        """Note that a unit is in place."""
        self.names.append(unit.name)
        self.files += len(unit.members)
        self.bytes += unit.size
        if pack.id not in self.packs:
            self.packs.add(pack.id)
            self.packed_bytes += pack.packed_bytes

    def fail(self, error: LocalCacheError) -> None:
        """Note, and say, what could not be put in place."""
        logger.warning("%s; the rest is restored without it", error)
        self.failures.append(error)


def place(cache: CacheRoot, staged: Path, units: list[tuple[Pack, PackUnit]], result: Restored) -> None:
    """Move staged units to their root, and count those that were not already there."""
    if not units:
        return
    root = cache.path
    root.parent.mkdir(parents=True, exist_ok=True)
    whole = not lies_inside(cache.outermost) and _fill_empty_root(staged, root)
    for pack, unit in units:
        try:
            if whole or _place_unit(cache, staged, unit):
                result.count(pack, unit)
        except OSError as error:  # a folder on another file system, say
            result.fail(LocalCacheError("restore to", f"{root}/{below_root(unit.name)}", str(error)))


def _place_unit(cache: CacheRoot, staged: Path, unit: PackUnit) -> bool:
    """Move one unit to its root; False if it is there."""
    root, known = cache.path, known_unit(unit)
    (root / known.path).parent.mkdir(parents=True, exist_ok=True)
    if known.kind is UnitKind.FOLDER and _rename_folder(staged / known.path, root / known.path):
        return True
    if is_present(cache, known, {}):
        return False
    # A stem, or a folder with nothing but leftovers in it. What names the other files comes last.
    paths = sorted((below_root(member.path) for member in unit.members), key=cache.adapter.is_rewritten)
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        _link(staged / path, root / path)
    return True


def _link(staged: Path, target: Path) -> None:
    try:
        os.link(staged, target, follow_symlinks=False)
    except FileExistsError:  # a compiler was faster with this one; its content is the same
        return
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        os.rename(staged, target)


def _fill_empty_root(staged: Path, root: Path) -> bool:
    """Make the staged tree the root, if that is missing or empty: all of a restore appears at once."""
    try:
        # A root that others may read stays so; a new one is private, because torch runs what lies there.
        os.chmod(staged, root.stat().st_mode & 0o7777 if root.exists() else 0o700)
        os.rename(staged, root)
    except OSError as error:
        if error.errno not in _TAKEN | _CANNOT_RENAME:
            raise
        return False
    return True


def _rename_folder(staged: Path, target: Path) -> bool:
    try:
        os.rename(staged, target)  # fails unless the target is missing or an empty folder
    except OSError as error:
        if error.errno not in _TAKEN:
            raise
        return False
    return True
