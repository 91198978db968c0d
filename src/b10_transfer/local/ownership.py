"""Who else could have put something into a local cache: compilers run what lies there, and a save spreads it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from ..adapters import CacheRoot
from ..errors import LocalCacheError
from ..stores.locality import is_mount_point

_ADVICE = (
    "what lies there would be run. Remove it, choose another directory, or set B10_SHARED_ROOTS=1 if other users may "
    "run code here"
)


def check_private(root: CacheRoot) -> None:
    """Raise LocalCacheError if a user other than this one (or root) could have put files into a cache root.

    That is so if the root belongs to somebody else, if every user may write to it, or if every user may replace it or
    a folder above it (one writable by all without the sticky bit). A mount point writable by all counts as private: it
    is how Kubernetes gives a pod its volumes.
    """
    if root.may_be_shared:
        return
    path = folder = str(root.path)  # as text: ``Path.parents`` of twenty roots takes milliseconds
    above = ""
    while folder != above:
        if (status := _status(folder)) and (reason := _exposure(path, folder, status)):
            raise LocalCacheError("use", path, f"{reason}, and {_ADVICE}")
        folder, above = os.path.dirname(folder), folder


def _status(path: str) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise LocalCacheError("look at", path, error.strerror or str(error)) from error


def _exposure(root: str, folder: str, status: os.stat_result) -> str:
    if stat.S_ISLNK(status.st_mode):
        return f"{folder} has become a link"
    if folder == root and status.st_uid not in (os.geteuid(), 0):
        return f"it belongs to user {status.st_uid}, not to this one ({os.geteuid()})"
    everybody_writes = status.st_mode & stat.S_IWOTH
    is_sticky = status.st_mode & stat.S_ISVTX and folder != root
    if everybody_writes and not is_sticky and not is_mount_point(Path(folder)):
        return f"every user can write to {folder} (mode {stat.S_IMODE(status.st_mode):04o})"
    return ""
