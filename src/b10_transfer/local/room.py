"""Whether file systems have room for what a restore writes."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from ..adapters import CacheRoot
from ..errors import NoSpaceError
from ..pack import PackUnit

_BLOCK_BYTES = 4096
"""The least space that a file takes on a file system."""


def shortages(places: Iterable[tuple[CacheRoot, Path]], units: Iterable[PackUnit]) -> dict[str, NoSpaceError | OSError]:
    """Find the caches for which there is no room.

    Args:
        places: Caches to restore to, each with a folder that exists on its file system.
        units: What is to be restored.

    Returns:
        The lack, or the error that hides it, by the name of the cache. Of caches on one file system the first ones get
        the room.
    """
    needed_bytes: Counter[str] = Counter()
    needed_files: Counter[str] = Counter()
    for unit in units:
        cache = unit.name.partition("/")[0]
        needed_bytes[cache] += unit.size + len(unit.members) * _BLOCK_BYTES
        needed_files[cache] += len(unit.members)
    found: dict[str, NoSpaceError | OSError] = {}
    taken_bytes: Counter[int] = Counter()
    taken_files: Counter[int] = Counter()
    for root, folder in places:
        try:
            device, free = os.stat(folder).st_dev, os.statvfs(folder)
        except OSError as error:
            found[root.name] = error
            continue
        free_bytes = free.f_bavail * free.f_frsize - taken_bytes[device]
        free_files = free.f_favail - taken_files[device] if free.f_files else None  # some have no fixed number
        size, files = needed_bytes[root.name], needed_files[root.name]
        if free_bytes < size or (free_files is not None and free_files < files):
            variable, free_bytes = _variable(root), max(0, free_bytes)
            found[root.name] = NoSpaceError(str(root.path), size, free_bytes, variable, files, free_files)
        else:
            taken_bytes[device] += size
            taken_files[device] += files
    return found


def _variable(root: CacheRoot) -> str:
    """The variable that decides where a cache is: its own rather than a shared one."""
    return root.adapter.variables[-1].name if root.adapter.variables else "TMPDIR"
