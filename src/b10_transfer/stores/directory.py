"""A store in a directory, most often on a volume that many pods mount.

Needs only what every POSIX file system has: exclusive creation, rename, and (better, but not needed) hard links.

* An object is written under a unique name in ``.staging/``, synced, and then linked to its final name. A link never
  replaces, so two creators of one name cannot both win, and a reader sees all of an object or none. Where links are
  refused (many FUSE mounts) an exclusive ``mkdir`` decides who may rename.
* Files are created with mode 0666 and folders with 0777, less the umask: what the pods' group may read is the
  umask's to say, as for any other file.
* A link, device or pipe that someone planted is not followed: it is not an object. Nor is what a client of NFS keeps
  of a file that was deleted while open.
"""

from __future__ import annotations

import errno
import os
import stat

from ..errors import StoreError, explained
from .base import ObjectInfo, ObjectReader, Store, StoreFacts, is_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .base import Source

STAGING = ".staging"
_COPY_BYTES = 4 * 1024 * 1024

_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}
"""What file systems without hard links answer."""
_NO_FSYNC = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EACCES, errno.EBADF}
"""What file systems answer that cannot sync a folder."""


class _translated:  # noqa: N801 - used like a function
    """Turns an OSError into a StoreError that says what was done to what."""

    def __init__(self, operation: str, target: str) -> None:
        self._operation = operation
        self._target = target

    def __enter__(self) -> None:
        pass

    def __exit__(self, _type: object, error: object, _traceback: object) -> None:
        if isinstance(error, OSError):
            raise StoreError(self._operation, self._target, explained(error)) from error


class DirectoryStore(Store):
    """The store in the directory ``path``, which is created by the first write.

    ``make_parents`` allows missing parents to be created as well. It is off by default: a missing parent mostly is a
    volume that is not mounted, and writing below its mount point would fill the node's own disk, shared with nobody.
    """

    def __init__(self, path: str | os.PathLike[str], *, make_parents: bool = False) -> None:
        self.location = os.fspath(path)
        self._make_parents = make_parents
        self._hard_links: bool | None = None

    def folders(self, folder: str) -> list[str]:
        path = self._path(folder)
        with _translated("list", path):
            if (entries := self._scan(path)) is None:
                return []
            with entries:
                names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        return sorted(f"{folder}/{name}" for name in names if is_name(name))

    def list(self, folder: str) -> list[ObjectInfo]:
        path = self._path(folder)
        found = []
        with _translated("list", path):
            if (entries := self._scan(path)) is None:
                return []
            with entries:
                for entry in entries:
                    try:
                        status = entry.stat(follow_symlinks=False)
                    except FileNotFoundError:  # deleted since it was listed
                        continue
                    if stat.S_ISREG(status.st_mode) and is_name(entry.name) and not _is_kept_by_nfs(entry.name):
                        found.append(ObjectInfo(f"{folder}/{entry.name}", status.st_size, status.st_mtime))
        return sorted(found, key=lambda info: info.name)

    def facts(self) -> StoreFacts:
        with _translated("look at", self.location):
            self._require_reachable()
            exists, place = os.path.isdir(self.location), self.location
            while not os.path.isdir(place):
                place = os.path.dirname(place)
            volume = os.statvfs(place)
        return StoreFacts(exists=exists, free_bytes=volume.f_bavail * volume.f_frsize, hard_links=self._hard_links)

    def open(self, name: str) -> ObjectReader | None:
        path = self._path(name)
        with _translated("open", path):
            try:
                # NONBLOCK: opening a pipe that someone planted must not wait for a writer.
                descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
            except FileNotFoundError:
                self._require_reachable()
                return None
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                os.close(descriptor)
                raise StoreError("open", path, "it is not a regular file")
        return _FileReader(descriptor, path, status.st_size)

    def create(self, name: str, source: Source) -> bool:
        final = self._path(name)
        with _translated("write", final):
            self._make_folder(os.path.dirname(final))
            staged = self._staged(".tmp")
            try:
                _write_durably(staged, source)
                claim = f"{os.path.dirname(staged)}/{name.replace('/', ',')}.claim"
                created, self._hard_links = _publish(staged, final, claim)
            finally:
                _remove(staged)
            _sync_folder(os.path.dirname(final))
        return created

    def delete(self, name: str) -> bool:
        path = self._path(name)
        with _translated("delete", path):
            return _remove(path)

    def now(self) -> float:
        with _translated("write", self.location):
            probe = self._staged(".now")
            descriptor = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
            try:
                return os.fstat(descriptor).st_mtime
            finally:
                os.close(descriptor)
                os.unlink(probe)

    def remove_abandoned(self, older_than_s: float) -> int:
        staging = f"{self.location}/{STAGING}"
        with _translated("clean up", staging):
            try:
                entries = list(os.scandir(staging))
            except FileNotFoundError:
                return 0
            now = self.now() if entries else 0.0
            removed, failures = 0, []
            for entry in entries:
                try:
                    removed += _remove_if_old(entry, now - older_than_s)
                except OSError as error:  # the others can still go
                    failures.append(error)
            if failures:
                raise failures[0]
        return removed

    def _path(self, name: str) -> str:
        if not is_name(name):
            raise StoreError("use", f"the object name {name!r}", "it is not a relative name of plain characters")
        return f"{self.location}/{name}"

    def _staged(self, suffix: str) -> str:
        """A path in staging that nobody else uses."""
        return f"{self._make_folder(f'{self.location}/{STAGING}')}/{os.urandom(16).hex()}{suffix}"

    def _scan(self, folder: str) -> os._ScandirIterator[str] | None:
        """The entries of a folder, to be closed; None if there is no such folder."""
        try:
            return os.scandir(folder)
        except FileNotFoundError:
            if self._appears(folder):
                return os.scandir(folder)
            self._require_reachable()
            return None

    def _appears(self, folder: str) -> bool:
        """Whether a folder that was missing is there once the file system has been made to look.

        A client of NFS may remember for a minute that a folder was missing. To open the one above makes it ask.
        """
        parent = os.path.dirname(folder)
        try:
            if not os.path.isdir(parent) and (folder == self.location or not self._appears(parent)):
                return False
            os.close(os.open(parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        except (FileNotFoundError, PermissionError):  # a folder may be entered and not read
            return False
        return os.path.isdir(folder)

    def _require_reachable(self) -> None:
        """Tell a store that is still empty from one that is not there, which a missing file alone does not."""
        if self._make_parents or os.path.isdir(self.location):
            return
        if os.path.lexists(self.location) and not os.path.isdir(self.location):  # it may have been made just now
            raise StoreError("reach", f"the store {self.location}", "it is not a directory")
        parent = os.path.dirname(self.location)
        if not os.path.isdir(parent):
            raise StoreError("reach", f"the store {self.location}", f"{parent} does not exist; is the volume mounted?")

    def _make_folder(self, folder: str) -> str:
        """Make a folder of the store, and the store itself, if they are missing."""
        if not os.path.isdir(folder):
            self._require_reachable()
            os.makedirs(folder, exist_ok=True)
        return folder


def _remove(path: str) -> bool:
    """Unlink a file; False if there was none."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        return False
    return True


def _is_kept_by_nfs(name: str) -> bool:
    """Whether this is the name under which a client of NFS keeps a file that was deleted while open on it."""
    return len(name) == 28 and name.startswith(".nfs")


def _remove_if_old(entry: os.DirEntry[str], modified_before: float) -> bool:
    """Remove a staging file or claim. A write sets the modification time: what still grows is young."""
    try:
        if entry.stat(follow_symlinks=False).st_mtime >= modified_before:
            return False
        (os.rmdir if entry.is_dir(follow_symlinks=False) else os.unlink)(entry.path)
    except FileNotFoundError:
        return False
    except OSError as error:
        if error.errno == errno.EBUSY and _is_kept_by_nfs(entry.name):  # it goes when its last user closes it
            return False
        raise
    return True


def _publish(staged: str, final: str, claim: str) -> tuple[bool, bool]:
    """Give a complete staged file its final name without replacing anything.

    Returns whether it has it now, which it has not if the name is taken, and whether the file system has hard links.
    """
    try:
        os.link(staged, final, follow_symlinks=False)
    except FileExistsError:
        # NFS repeats a request whose answer was lost: the link that "exists" may be the one just made.
        try:
            return os.path.samestat(os.lstat(staged), os.lstat(final)), True
        except FileNotFoundError:
            return False, True
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        return _rename_exclusively(staged, final, claim), False
    return True, True


def _rename_exclusively(staged: str, final: str, claim: str) -> bool:
    """``rename`` replaces, so who may rename to a name is decided by who makes its claim folder first."""
    try:
        os.mkdir(claim)
    except FileExistsError:
        return False
    try:
        if os.path.lexists(final):
            return False
        os.rename(staged, final)
        return True
    finally:
        os.rmdir(claim)


def _write_durably(path: str, source: Source) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        while chunk := source.read(_COPY_BYTES):
            view = memoryview(chunk)
            while view:
                view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    finally:
        # Closing reports what a network file system or a quota refused late; nothing is published before it.
        os.close(descriptor)


def _sync_folder(folder: str) -> None:
    """Make a new name durable. Where that cannot be asked for, the name is as durable as the file system makes it."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FSYNC:
            raise
    finally:
        os.close(descriptor)


class _FileReader(ObjectReader):
    waits = False

    def __init__(self, descriptor: int, path: str, size_bytes: int) -> None:
        self._descriptor = descriptor
        self._path = path
        self.size_bytes = size_bytes

    def read_at(self, offset: int, length: int) -> bytes:
        with _translated("read", self._path):
            data = os.pread(self._descriptor, length, offset)
            while 0 < len(data) < length:  # a short read is legal, above all on FUSE
                more = os.pread(self._descriptor, length - len(data), offset + len(data))
                if not more:
                    break
                data += more
        if len(data) != length:
            raise StoreError("read", self._path, f"it ends at byte {offset + len(data)}, before {offset + length}")
        return data

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
