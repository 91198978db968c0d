"""Local staging: where new units are written before they are put in place, and the lock of a cache root.

Staged files are inside the root, under names that are never artifacts. So they have the root's group, access control
lists and file system. If the root does not exist, they are beside it, and the root appears by one rename. The lock is
beside the root, or inside it if the root is a mount point or the folder above it is not writable.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import secrets
import shutil
import stat
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from ..concurrency.deadline import Deadline
from ..errors import DeadlineExceededError, LocalCacheError, explained
from ..stores.folders import make_folders
from ..stores.locality import is_mount_point
from .bulk import FilePart, write_files
from .ownership import FOLDER, User, user_to_restore_at
from .rights import rights_of

logger = logging.getLogger(__name__)

LOCKS_SHARE = 0.5
"""The largest part of an operation's time that it waits for locks. Then it continues without: locks only save work."""
_STAGING = ".b10-staging-"
_LOCK = ".b10-lock"
REST_LOCK = ".b10-rest-lock"
"""Held by the process that restores to a root what starts did not use. No load waits for it."""
_POLL_S = 0.02
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class StagedTree:
    """A folder, private to this process, that is filled with files by their relative paths.

    Files are created relative to descriptors of folders of the tree, name by name, so that no link can lead elsewhere.

    Args:
        path: The folder, which exists and is empty.
        user: Whose rights to write with; None for this process's own.
        folder_mode: Permissions of new folders, less the umask.
    """

    def __init__(self, path: Path, user: User | None = None, folder_mode: int = 0o755) -> None:
        self.path = path
        self.user = user
        self.folder_mode = folder_mode
        self._descriptor = os.open(path, FOLDER)
        # Held as long as the tree is in use: another process that gets this lock may assume that its owner died.
        try:
            with suppress(OSError):  # a file system without locks: there, what dead processes leave stays
                fcntl.flock(self._descriptor, fcntl.LOCK_EX)
            self.masked = self._find_masked()
        except OSError:
            os.close(self._descriptor)
            raise
        self._guard = threading.Lock()
        self._writers = 0
        self._is_over = False

    def write(self, parts: Sequence[FilePart]) -> None:
        """Write files, or parts of them, and make the folders above them (see :func:`bulk.write_files`)."""
        with self._guard:
            self._writers += 1
        try:
            with rights_of(self.user):
                write_files(self._descriptor, parts, self.masked, self.folder_mode)
        finally:
            with self._guard:
                self._writers -= 1
            if self._is_over:  # the tree was closed without waiting for this
                self.close()
                self.clear()

    def remove(self, path: str) -> None:
        """Remove a file of this tree, if it is there."""
        with rights_of(self.user), suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
            os.unlink(self.path / path)

    def clear(self) -> None:
        """Remove the tree from the file system."""
        with rights_of(self.user):
            shutil.rmtree(self.path, ignore_errors=True)

    def close(self) -> None:
        """Release the descriptors; the files stay."""
        self._is_over = True
        with self._guard:
            # A thread that hangs in a write may continue later. Its descriptor must not mean another folder by then.
            if self._writers == 0 and self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1

    def _find_masked(self) -> int:
        """The permissions that new files here do not get, because of the umask, which cannot be read, or an ACL."""
        name = ".mode"
        descriptor = os.open(name, _CREATE, 0o777, dir_fd=self._descriptor)
        try:
            return 0o777 & ~os.fstat(descriptor).st_mode
        finally:
            os.close(descriptor)
            os.unlink(name, dir_fd=self._descriptor)


@contextmanager
def staged_tree(root: Path, user: User | None = None) -> Iterator[StagedTree]:
    """A new staged tree for a root, removed at the end; written with the rights of ``user``. Raises LocalCacheError."""
    try:
        with rights_of(user):
            folder, prefix = _place(root)
            _remove_leftovers(folder, prefix + _STAGING, user)
            tree = _new_tree(folder, prefix + _STAGING, user)
    except OSError as error:
        raise LocalCacheError("stage files for", str(root), explained(error)) from error
    with ExitStack() as cleanup:
        cleanup.callback(tree.clear)
        cleanup.callback(tree.close)
        yield tree


def _new_tree(folder: Path, prefix: str, user: User | None) -> StagedTree:
    """A tree in a folder. Members of a group that may write to the folder may write to the folders of the tree."""
    is_groups = prefix.startswith(_STAGING) and os.stat(folder).st_mode & stat.S_IWGRP
    while True:
        path = folder / f"{prefix}{secrets.token_hex(8)}"
        os.mkdir(path, 0o700)
        # Until it is locked, another process may remove it as a dead process's tree.
        with suppress(FileNotFoundError):
            os.chmod(path, 0o700)  # whatever the umask has taken away
            return StagedTree(path, user, 0o775 if is_groups else 0o755)


def remove_leftovers(root: Path, *, may_be_shared: bool = False) -> None:
    """Remove staged files of dead processes for an existing root. (:func:`staged_tree` does this, too.)"""
    with suppress(OSError, LocalCacheError):
        if os.path.exists(root):
            user = user_to_restore_at(root, may_be_shared=may_be_shared)
            with rights_of(user):
                for folder, prefix in _places(root):
                    _remove_leftovers(folder, prefix + _STAGING, user)


@contextmanager
def locked(root: Path, patience: Deadline, *, may_be_shared: bool = False, name: str = _LOCK) -> Iterator[None]:
    """Hold a root's lock, which makes other ranks of the pod wait for the restore in progress instead of repeating it.

    The kernel releases it when its holder dies. It only saves work: if it is not acquired within
    ``patience``, this continues without it.
    """
    try:
        user = user_to_restore_at(root, may_be_shared=may_be_shared)
        with rights_of(user):
            inside, beside = _places(root)
            folder, prefix = inside if _cannot_be_beside(root) else beside
            make_folders(folder)
            descriptor = _open_lock(folder / (prefix + name), os.O_CREAT, user)
    except (OSError, LocalCacheError) as error:
        logger.debug("there is no lock for %s: %s", root, error)
        yield
        return
    with _Lock(descriptor) as lock:
        lock.wait(root, patience)
        yield


def wait_for_restore(root: Path, patience: Deadline, *, may_be_shared: bool = False) -> None:
    """Wait while another rank restores to a root, at most for ``patience``. Creates nothing."""
    for folder, prefix in _places(root):
        with suppress(OSError, LocalCacheError):
            path = folder / (prefix + _LOCK)
            if not os.path.lexists(path):
                continue
            user = user_to_restore_at(root, may_be_shared=may_be_shared)
            with _Lock(_open_lock(path, 0, user)) as lock:
                lock.wait(root, patience)


class _Lock:
    """An open lock file. Leaving the context releases the lock and closes the file."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __enter__(self) -> _Lock:
        return self

    def __exit__(self, *_: object) -> None:
        # Explicitly, because a process forked meanwhile has the same open file and would keep the lock.
        with suppress(OSError):
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        os.close(self._descriptor)

    def try_it(self) -> bool:
        """Try to acquire the lock; whether it is held now. Raises OSError on a file system without locks."""
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def wait(self, root: Path, patience: Deadline) -> None:
        """Wait for the lock. On a file system without locks, do not wait."""
        with suppress(OSError):
            while not self.try_it():
                if patience.remaining_s <= _POLL_S:
                    logger.warning(
                        "the lock of %s is held by another process; this one continues without it. It may do the same "
                        "work again",
                        root,
                    )
                    return
                with suppress(DeadlineExceededError):  # on a busy machine a sleep ends late: the next turn warns
                    patience.sleep(_POLL_S)


def _open_lock(path: Path, create: int, user: User | None) -> int:
    """Open a lock. Another user could hold a lock of his own for ever, so that raises OSError."""
    descriptor = os.open(path, os.O_RDWR | create | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    status = os.fstat(descriptor)
    if not _is_ours(status, user) or not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise PermissionError(errno.EPERM, f"it belongs to user {status.st_uid}", str(path))
    return descriptor


def _is_ours(status: os.stat_result, user: User | None) -> bool:
    return status.st_uid in (os.geteuid(), 0 if user is None else user.uid)


def _place(root: Path) -> tuple[Path, str]:
    """Make the folder for a root's staging and lock; that folder, and the prefix of names there."""
    inside, beside = _places(root)
    if os.path.isdir(root):
        return inside
    make_folders(root.parent)
    return beside


def _cannot_be_beside(root: Path) -> bool:
    return os.path.isdir(root) and (is_mount_point(root) or not os.access(root.parent, os.W_OK | os.X_OK))


def _places(root: Path) -> tuple[tuple[Path, str], tuple[Path, str]]:
    """Folders for a root's staging and lock, with the prefix of names: in the root, and beside it."""
    return (root, ""), (root.parent, f".{root.name}")


def _remove_leftovers(folder: Path, prefix: str, user: User | None) -> None:
    """Remove the trees of processes that died: those whose lock nobody holds. Other users' trees are left alone."""
    for name in os.listdir(folder):
        if not name.startswith(prefix):
            continue
        with suppress(OSError):
            descriptor = os.open(folder / name, FOLDER)
            with _Lock(descriptor) as lock:
                if _is_ours(os.fstat(descriptor), user) and lock.try_it():
                    shutil.rmtree(folder / name, ignore_errors=True)
