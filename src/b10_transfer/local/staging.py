"""Local staging: where new units are written before they are put in place, and the lock of a cache root.

Both lie beside the root, on the same file system, so that putting in place is a rename. Where the root is a mount
point, or its parent cannot be written, they lie inside it, under names that are never artifacts.
"""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from ..concurrency.deadline import Deadline
from ..errors import LocalCacheError, explained
from ..stores.locality import is_mount_point
from .bulk import FilePart, write_files

logger = logging.getLogger(__name__)

_POLL_S = 0.02
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class StagedTree:
    """A folder, private to this process, that is filled with files by their relative paths.

    Files are created relative to descriptors of folders of the tree, name by name, so that no link can lead elsewhere.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        # Held as long as the tree is in use: whoever gets this lock may take the tree for a dead process's.
        try:
            with suppress(OSError):  # a file system without locks: there, what dead processes leave stays
                fcntl.flock(self._descriptor, fcntl.LOCK_EX)
            self._masked = self._find_masked()
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
            write_files(self._descriptor, parts, self._masked)
        finally:
            with self._guard:
                self._writers -= 1
            if self._is_over:  # whoever closed the tree did not wait for this
                self.close()
                shutil.rmtree(self.path, ignore_errors=True)

    def remove(self, path: str) -> None:
        """Remove a file of this tree, if it is there."""
        with suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
            os.unlink(self.path / path)

    def close(self) -> None:
        """Release the descriptors; the files stay."""
        self._is_over = True
        with self._guard:
            # A thread that hangs in a write goes on with it some day: its descriptor must not mean another folder then.
            if self._writers == 0 and self._descriptor >= 0:
                os.close(self._descriptor)
                self._descriptor = -1

    def _find_masked(self) -> int:
        """The permissions that creating a file here does not give: by the umask, which cannot be read, or by an ACL."""
        name = ".mode"
        descriptor = os.open(name, _CREATE, 0o777, dir_fd=self._descriptor)
        try:
            return 0o777 & ~os.fstat(descriptor).st_mode
        finally:
            os.close(descriptor)
            os.unlink(name, dir_fd=self._descriptor)


def lies_inside(root: Path) -> bool:
    """Whether a root's staging has to lie inside it: what lies beside could not be renamed into it."""
    return os.path.exists(root) and (is_mount_point(root) or not os.access(root.parent, os.W_OK | os.X_OK))


@contextmanager
def staged_tree(root: Path) -> Iterator[StagedTree]:
    """A new staged tree for a root; what is left of it at the end is removed. Raises LocalCacheError."""
    try:
        folder, prefix = _place(root)
        _remove_leftovers(folder, f"{prefix}.b10-staging-")
        tree = _new_tree(folder, f"{prefix}.b10-staging-")
    except OSError as error:
        raise LocalCacheError("stage files for", str(root), explained(error)) from error
    with ExitStack() as cleanup:
        cleanup.callback(shutil.rmtree, tree.path, ignore_errors=True)
        cleanup.callback(tree.close)
        yield tree


def _new_tree(folder: Path, prefix: str) -> StagedTree:
    while True:
        path = folder / f"{prefix}{secrets.token_hex(8)}"
        os.mkdir(path, 0o700)
        # Until it is locked, another process may take it for a dead one's and remove it.
        with suppress(FileNotFoundError):
            return StagedTree(path)


def remove_leftovers(root: Path) -> None:
    """Remove what dead processes left staged for a root that exists. (A :func:`staged_tree` does so by itself.)"""
    with suppress(OSError):
        if os.path.exists(root):
            folder, prefix = _place(root)
            _remove_leftovers(folder, f"{prefix}.b10-staging-")


@contextmanager
def locked(root: Path, deadline: Deadline) -> Iterator[None]:
    """Hold a root's lock, which makes other ranks of the pod wait for the restore in progress instead of repeating it.

    The kernel releases it when its holder dies. It only saves work: where it cannot be had, this goes on without.
    """
    try:
        folder, prefix = _place(root)
        descriptor = _open_lock(folder / f"{prefix}.b10-lock", os.O_CREAT)
    except OSError as error:
        logger.debug("there is no lock for %s: %s", root, error)
        yield
        return
    with _Lock(descriptor) as lock:
        lock.wait(root, deadline)
        yield


def wait_for_restore(root: Path, deadline: Deadline) -> None:
    """Wait while another rank restores to a root. Leaves no trace where nobody ever did."""
    for path in (root.parent / f".{root.name}.b10-lock", root / ".b10-lock"):
        with suppress(OSError), _Lock(_open_lock(path, 0)) as lock:
            lock.wait(root, deadline)


class _Lock:
    """An open lock file. Leaving it releases the lock, if it was ever had, and closes the file."""

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
        """Whether the lock is had now. Raises OSError on a file system without locks."""
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def wait(self, root: Path, deadline: Deadline) -> None:
        """Wait for the lock within the deadline; without locks there is nothing to wait for."""
        with suppress(OSError):
            while not self.try_it():
                deadline.check(f"waiting for another process to restore {root}")
                deadline.sleep(_POLL_S)


def _open_lock(path: Path, create: int) -> int:
    return os.open(path, os.O_RDWR | create | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def _place(root: Path) -> tuple[Path, str]:
    """The folder for a root's staging and lock, and how names there begin."""
    if lies_inside(root):
        return root, ""
    os.makedirs(root.parent, exist_ok=True)
    return root.parent, f".{root.name}"


def _remove_leftovers(folder: Path, prefix: str) -> None:
    """Remove the trees of processes that died: those whose lock nobody holds."""
    for name in os.listdir(folder):
        if not name.startswith(prefix):
            continue
        with suppress(OSError):
            descriptor = os.open(folder / name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            with _Lock(descriptor) as lock:
                if lock.try_it():
                    shutil.rmtree(folder / name, ignore_errors=True)
