"""Checks whether other users could change a local cache: compilers run its files, and a save publishes them.

The check goes from ``/`` down. Each folder must belong to this user or root, and nobody else may replace its entries.
Once a folder has passed, no other user can replace it. So the check of the next one looks at the right folder.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ..adapters import CacheRoot
from ..errors import LocalCacheError, explained
from ..stores.locality import is_mount_point

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
"""Flags to open a folder. A link in its place is an error."""
_ADVICE = (
    "what lies there would be run. Remove it, choose another directory, or set B10_SHARED_ROOTS=1 if other users may "
    "run code here"
)
_ROOT = 0
_MOST_NOTED = 10


class User(NamedTuple):
    """A user whose rights a process may take on."""

    uid: int
    gid: int


@dataclass
class _Way:
    """Facts about the folders from ``/`` to a cache root, as far as they exist."""

    owner: User | None = None
    """The user, neither this one nor root, to whom root has given a folder on the way."""
    owned: str = ""
    """The first folder of that user."""
    is_reachable: bool = True
    """Whether every user may enter all of the folders."""
    is_volume: bool = False
    """Whether one of the folders is a mount point that every user can write to."""


def check_private(root: CacheRoot) -> None:
    """Raise LocalCacheError if a user other than this one (or root) could have put files into a cache root.

    A cache is refused if it or a folder above it belongs to another user, if every user may write to it, or if every
    user may replace an entry of a folder above it (no sticky bit). A mount point that every user can write to counts as
    private: Kubernetes gives a pod its volumes that way. All of this also holds for root.
    """
    if not root.may_be_shared:
        _inspect_own(str(root.path))


def is_private(path: str | os.PathLike[str], *, may_be_shared: bool = False) -> bool:
    """Whether this process may read artifacts from a directory (see :func:`check_private`).

    Args:
        path: Absolute, without ``..``; links are refused. It need not exist.
        may_be_shared: The value of B10_SHARED_ROOTS: other users may run code here.
    """
    if may_be_shared:
        return True
    try:
        _inspect_own(os.fspath(path))
    except LocalCacheError:
        return False
    return True


def user_to_restore_as(root: CacheRoot) -> User | None:
    """The user with whose rights a load writes to a cache root; None for this process's own. Raises LocalCacheError.

    Root may load for another user, for example in an init container. Root then writes with the rights of that user, so
    that no link of his leads root elsewhere. This needs a folder that root has given to him: where every user can
    create folders, one of another user proves nothing, and the cache is refused.
    """
    return user_to_restore_at(root.path, may_be_shared=root.may_be_shared)


def user_to_restore_at(path: str | os.PathLike[str], *, may_be_shared: bool) -> User | None:
    """:func:`user_to_restore_as` for a path instead of a root."""
    if may_be_shared and os.geteuid() != _ROOT:
        return None
    return _inspect(os.fspath(path), may_be_shared=may_be_shared).owner


class OpenRoot:
    """A cache root, open for reading. It stays the directory that was checked, wherever its path leads later."""

    def __init__(self, root: CacheRoot, descriptor: int, way: _Way) -> None:
        self.root = root
        self.descriptor = descriptor
        self.left_out: list[LocalCacheError] = []
        """Why entries were left out: the first few."""
        status = os.fstat(descriptor)
        # If no other user can enter, or all who can are trusted, its entries need no check of their own.
        self._is_exposed = way.is_reachable and not way.is_volume and not root.may_be_shared
        self._owners = {os.geteuid(), _ROOT, status.st_uid} | ({way.owner.uid} if way.owner else set())
        self._trusts_group = bool(status.st_mode & stat.S_IWGRP)

    def __del__(self) -> None:
        os.close(self.descriptor)

    def is_trusted(self, status: os.stat_result) -> bool:
        """Whether no other user could have written an entry of this root. Members of a group with access may."""
        return not self._is_exposed or (
            (status.st_uid in self._owners or self._trusts_group) and not status.st_mode & stat.S_IWOTH
        )

    def leave_out(self, path: str, reason: str) -> None:
        """Note why an entry is left out."""
        if len(self.left_out) < _MOST_NOTED:
            self.left_out.append(LocalCacheError("use", f"{self.root.path}/{path}", reason))

    def open_folder(self, folder: str) -> int:
        """A descriptor of a folder below the root, opened name by name so that no link is followed. Raises OSError."""
        descriptor = os.dup(self.descriptor)
        for name in folder.split("/") if folder else ():
            above = descriptor
            try:
                descriptor = os.open(name, FOLDER, dir_fd=above)
            finally:
                os.close(above)
        return descriptor


def open_private(root: CacheRoot, *, to_restore: bool = False) -> OpenRoot | None:
    """Open a cache root and check what was opened. Raises LocalCacheError.

    Args:
        root: The cache to open.
        to_restore: Whether the check is :func:`user_to_restore_as` instead of :func:`check_private`.

    Returns:
        The open root, or None if there is no such directory.
    """
    path = str(root.path)
    check = _inspect if to_restore else _inspect_own
    try:
        descriptor = os.open(path, FOLDER)
    except FileNotFoundError:
        return None
    except OSError as error:
        check(path, may_be_shared=root.may_be_shared)  # it may be a link
        if isinstance(error, NotADirectoryError):
            return None
        raise LocalCacheError("list", path, explained(error)) from error
    try:
        way = check(path, may_be_shared=root.may_be_shared)
        if not os.path.samestat(os.fstat(descriptor), os.lstat(path)):
            raise _refusal(path, "it was replaced while it was checked")
        return OpenRoot(root, os.dup(descriptor), way)
    except OSError as error:
        raise LocalCacheError("examine", path, explained(error)) from error
    finally:
        os.close(descriptor)


def _inspect_own(path: str, *, may_be_shared: bool = False) -> _Way:
    way = _inspect(path, may_be_shared=may_be_shared)
    if way.owner is not None and not may_be_shared:
        raise _refusal(path, _ownership(way.owned, way.owner.uid))
    return way


def _inspect(path: str, *, may_be_shared: bool = False) -> _Way:
    """Look at every folder on the way that exists, from the top. Raises LocalCacheError if one lets other users in."""
    way = _Way()
    everybody_creates = False
    for folder in _on_the_way(path):
        status = _status(folder)
        if status is None:
            break
        mode = status.st_mode
        if stat.S_ISLNK(mode):
            raise _refusal(path, f"{folder} has become a link")
        if not stat.S_ISDIR(mode):
            raise LocalCacheError("use", path, f"{folder} is not a directory; remove it, or choose another place")
        is_own = _is_own(status, everybody_creates)
        if may_be_shared:
            way.owner = None if is_own else User(status.st_uid, status.st_gid)
        elif not is_own and not _belongs_to_owner(way, folder, status, everybody_creates):
            raise _refusal(path, _ownership(folder, status.st_uid))
        everybody_creates = False
        if mode & stat.S_IWOTH:
            everybody_creates = bool(mode & stat.S_ISVTX) and folder != path
            way.is_volume |= not everybody_creates
            if not everybody_creates and not may_be_shared and not is_mount_point(folder):
                raise _refusal(path, f"every user can write to {folder} (mode {stat.S_IMODE(mode):04o})")
        way.is_reachable &= bool(mode & stat.S_IXOTH)
    return way


def _on_the_way(path: str) -> list[str]:
    """The folders from ``/`` to a path. As text: with ``Path.parents`` twenty roots take milliseconds."""
    folders = [path]
    while (above := os.path.dirname(path)) != path:
        folders.append(above)
        path = above
    return folders[::-1]


def _is_own(status: os.stat_result, everybody_creates: bool) -> bool:
    """Whether an entry belongs to this user or root, as far as this process can see."""
    return status.st_uid in (os.geteuid(), _ROOT) or (not everybody_creates and _is_unmapped(status.st_uid))


def _belongs_to_owner(way: _Way, folder: str, status: os.stat_result, everybody_creates: bool) -> bool:
    """Whether root loads here for another user. If so, remember that user."""
    if os.geteuid() != _ROOT or (everybody_creates if way.owner is None else way.owner.uid != status.st_uid):
        return False
    way.owner, way.owned = User(status.st_uid, status.st_gid), way.owned or folder
    return True


def _is_unmapped(uid: int) -> bool:
    """Whether the kernel shows this id for users without one in this container, like the host's root."""
    try:
        if uid != int(Path("/proc/sys/kernel/overflowuid").read_text()):
            return False
        return sum(int(line.split()[2]) for line in Path("/proc/self/uid_map").read_text().splitlines()) < 2**32 - 1
    except (OSError, ValueError, IndexError):
        return False


def _status(path: str) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise LocalCacheError("examine", path, error.strerror or str(error)) from error


def _ownership(folder: str, uid: int) -> str:
    return f"{folder} belongs to user {uid}, not to this one ({os.geteuid()}) or root"


def _refusal(path: str, reason: str) -> LocalCacheError:
    return LocalCacheError("use", path, f"{reason}, and {_ADVICE}")
