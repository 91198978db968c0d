"""A store in a directory, most often on a volume that many pods mount.

Needs only what every POSIX file system has: exclusive creation, rename, and (better, but not needed) hard links.

* An object is written under a unique name in ``.staging/``, synced, and then linked to its final name. A link never
  replaces, so two creators of one name cannot both win, and a reader sees all of an object or none. Where links are
  refused (many FUSE mounts, AFS between folders) an exclusive ``mkdir`` decides who may rename.
* Modes and group of what is created are those of the top folder (:mod:`.tree`).
* No symbolic link below the top folder is followed, for whatever purpose (:mod:`.tree`). A link, device, FIFO or socket
  is not an object: it is neither listed nor read nor removed. Nor is what a client of NFS keeps of a file that was
  deleted while open.
"""

from __future__ import annotations

import errno
import os
import stat

from ..errors import ReadOnlyStoreError, StoreError, explained
from .base import ObjectInfo, ObjectReader, Store, StoreFacts, check_count, is_name
from .folders import make_folders
from .permissions import explained_refusal, reason_read_only
from .tree import Folder, Tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .base import Source

STAGING = ".staging"
_COPY_BYTES = 4 * 1024 * 1024
_TOKEN_BYTES = 16
_STAGED, _PROBE, _CLAIM = ".tmp", ".now", ".claim"
"""How the names in :data:`STAGING` end: an object that is being written, a probe of the clock, a claim of a name."""
_HEXADECIMAL = frozenset("0123456789abcdef")
_MOST_ABANDONED = 10_000
"""One clean-up looks at so many entries of :data:`STAGING`: an attacker may have put a million files there."""

_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}
"""Errors of a link on a file system without hard links, or (EXDEV) with none between two folders."""
_NO_RENAME = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV}
"""Errors of a rename on a file system without it, such as a mounted bucket."""
_NO_FSYNC = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EACCES, errno.EBADF}
"""Errors of fsync on file systems that cannot sync a folder."""

_WRITES = ("write", "delete", "clean up")


class _translated:  # noqa: N801 - used like a function
    """Turns an OSError into a StoreError that names the operation and its target."""

    def __init__(self, operation: str, target: str, top: str) -> None:
        self._operation = operation
        self._target = target
        self._top = top

    def __enter__(self) -> None:
        pass

    def __exit__(self, _type: object, error: object, _traceback: object) -> None:
        if not isinstance(error, OSError):
            return
        if isinstance(error, NotADirectoryError | FileExistsError):
            _require_no_file(self._top)
        if self._operation in _WRITES and (reason := reason_read_only(self._top, f"{self._top}/{STAGING}", error)):
            raise ReadOnlyStoreError("write", self._top, reason) from error
        detail = explained_refusal(error, self._top) if isinstance(error, PermissionError) else explained(error)
        raise StoreError(self._operation, self._target, detail) from error


def _require_no_file(top: str) -> None:
    """Raise StoreError if there is something else than a directory at the place of a store."""
    if os.path.lexists(top) and not os.path.isdir(top):  # in this order: it may be made just now
        raise StoreError("reach", f"the store {top}", "it is not a directory")


class DirectoryStore(Store):
    """The store in the directory ``path``, which is created by the first write.

    ``make_parents`` allows missing parents to be created as well. It is off by default: a missing parent mostly is a
    volume that is not mounted. Objects below its mount point would fill the node's own disk, unseen by other pods.
    """

    def __init__(self, path: str | os.PathLike[str], *, make_parents: bool = False) -> None:
        self.location = os.fspath(path)
        self._tree = Tree(self.location)
        self._make_parents = make_parents
        self._hard_links: bool | None = None

    def folders(self, folder: str) -> list[str]:
        with self._translated("list", folder):
            opened = self._folder(folder)
            if opened is None:
                return []
            with opened:
                names = [entry.name for entry in opened.entries() if entry.is_dir(follow_symlinks=False)]
                check_count(len(names), opened.path)
        return sorted(f"{folder}/{name}" for name in names if is_name(name))

    def list(self, folder: str) -> list[ObjectInfo]:
        found = []
        with self._translated("list", folder):
            opened = self._folder(folder)
            if opened is None:
                return []
            with opened:
                for entry in opened.entries():
                    try:
                        status = entry.stat(follow_symlinks=False)
                    except FileNotFoundError:  # deleted since it was listed
                        continue
                    if stat.S_ISREG(status.st_mode) and is_name(entry.name) and not _is_kept_by_nfs(entry.name):
                        found.append(ObjectInfo(f"{folder}/{entry.name}", status.st_size, status.st_mtime))
                        check_count(len(found), opened.path)
        return sorted(found, key=lambda info: info.name)

    def facts(self) -> StoreFacts:
        with _translated("examine", self.location, self.location):
            self._require_reachable()
            exists, place = os.path.isdir(self.location), self.location
            while not os.path.isdir(place):
                place = os.path.dirname(place)
            volume = os.statvfs(place)
        return StoreFacts(
            exists=exists,
            free_bytes=volume.f_bavail * volume.f_frsize,
            hard_links=self._hard_links,
            read_only=reason_read_only(self.location, f"{self.location}/{STAGING}"),
        )

    def open(self, name: str) -> ObjectReader | None:
        with self._translated("open", name):
            opened = self._folder(name.rpartition("/")[0])
            if opened is None:
                return None
            with opened:
                descriptor = opened.open_object(name.rpartition("/")[2])
            if descriptor is None:
                return None
            size_bytes = os.fstat(descriptor).st_size
        return _FileReader(descriptor, f"{self.location}/{name}", size_bytes)

    def create(self, name: str, source: Source) -> bool:
        with self._translated("write", name):
            folder, _, last = name.rpartition("/")
            self._make_top()
            target, sharing = self._tree.make_folder(folder)
            with target, self._tree.make_folder(STAGING)[0] as staging:
                staged = os.urandom(_TOKEN_BYTES).hex() + _STAGED
                try:
                    _write_durably(staging.create_file(staged, sharing), source)
                    claim = name.replace("/", ",") + _CLAIM
                    created, self._hard_links = _publish(staging, staged, target, last, claim)
                finally:
                    staging.remove_file(staged)
                _sync(target)
        return created

    def delete(self, name: str) -> bool:
        with self._translated("delete", name):
            folder, _, last = name.rpartition("/")
            opened = self._folder(folder)
            if opened is None:
                return False
            with opened:
                return opened.remove_file(last)

    def now(self) -> float:
        with _translated("write", self.location, self.location):
            self._make_top()
            with self._tree.make_folder(STAGING)[0] as staging:
                probe = os.urandom(_TOKEN_BYTES).hex() + _PROBE
                descriptor = staging.create_file(probe)
                try:
                    return os.fstat(descriptor).st_mtime
                finally:
                    os.close(descriptor)
                    staging.remove_file(probe)

    def remove_abandoned(self, older_than_s: float) -> int:
        with self._translated("clean up", STAGING):
            staging = self._folder(STAGING)
            if staging is None:
                return 0
            with staging:
                names = []
                for number, entry in enumerate(staging.entries()):
                    if number >= _MOST_ABANDONED:
                        break
                    if _is_staged(entry.name) or _is_claim(entry.name):
                        names.append(entry.name)
                now = self.now() if names else 0.0
                removed, failures = 0, []
                for name in names:
                    try:
                        removed += _remove_if_old(staging, name, now - older_than_s)
                    except OSError as error:  # the others can still go
                        failures.append(error)
                if failures:
                    raise failures[0]
        return removed

    def _translated(self, operation: str, name: str) -> _translated:
        if not is_name(name):
            raise StoreError("use", f"the object name {name!r}", "it is not a relative name of plain characters")
        return _translated(operation, f"{self.location}/{name}", self.location)

    def _folder(self, folder: str) -> Folder | None:
        """Open a folder; None if it is missing, though the store can be reached."""
        opened = self._tree.folder(folder)
        if opened is None:
            self._require_reachable()
        return opened

    def _require_reachable(self) -> None:
        """Tell a store that is still empty from one that is not there, which a missing file alone does not."""
        if os.path.isdir(self.location):
            return
        _require_no_file(self.location)
        if self._make_parents:
            return
        parent = os.path.dirname(self.location)
        if not os.path.isdir(parent):
            raise StoreError("reach", f"the store {self.location}", f"{parent} does not exist; is the volume mounted?")

    def _make_top(self) -> None:
        """Make the store's own folder if it is missing."""
        if not os.path.isdir(self.location):
            self._require_reachable()
            make_folders(self.location, 0o777)


def _is_kept_by_nfs(name: str) -> bool:
    """Whether this is the name under which a client of NFS keeps a file that was deleted while open on it."""
    return len(name) == 28 and name.startswith(".nfs")


def _is_staged(name: str) -> bool:
    """Whether a store has given an object that is being written, or a probe of the clock, this name."""
    token, extension = os.path.splitext(name)
    return extension in (_STAGED, _PROBE) and len(token) == 2 * _TOKEN_BYTES and _HEXADECIMAL.issuperset(token)


def _is_claim(name: str) -> bool:
    """Whether a store has given a claim this name."""
    return name.endswith(_CLAIM) and is_name(name[: -len(_CLAIM)].replace(",", "/"))


def _remove_if_old(staging: Folder, name: str, modified_before: float) -> bool:
    """Remove a staging file or claim. A write sets the modification time: what still grows is young."""
    status = staging.stat(name)
    if status is None or status.st_mtime >= modified_before:
        return False
    try:
        if _is_claim(name):
            if stat.S_ISDIR(status.st_mode):
                staging.remove_folder(name)
                return True
        elif stat.S_ISREG(status.st_mode):
            return staging.remove_file(name)
    except FileNotFoundError:
        return False
    except PermissionError:
        if status.st_uid == os.geteuid():
            raise
        # In a sticky folder only its owner can remove it, and the owner's next save does.
    return False


def _publish(staging: Folder, staged: str, target: Folder, name: str, claim: str) -> tuple[bool, bool]:
    """Give a complete staged file its final name without replacing anything.

    Returns whether the file has that name now, which is False if the name is taken, and whether the file system has
    hard links.
    """
    try:
        staging.link(staged, target, name)
    except FileExistsError:
        # NFS repeats a request whose answer was lost: the link that "exists" may be the one just made.
        ours, theirs = staging.stat(staged), target.stat(name)
        return ours is not None and theirs is not None and os.path.samestat(ours, theirs), True
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        return _rename_exclusively(staging, staged, target, name, claim), False
    return True, True


def _rename_exclusively(staging: Folder, staged: str, target: Folder, name: str, claim: str) -> bool:
    """``rename`` replaces, so the process that makes the claim's folder first is the one that may rename."""
    if not staging.make_folder(claim):
        return False
    try:
        if target.stat(name) is not None:
            return False
        staging.rename(staged, target, name)
        return True
    except OSError as error:
        if error.errno not in _NO_RENAME:
            raise
        raise OSError(error.errno, f"{error.strerror}: {_USE_A_BUCKET}", error.filename) from error
    finally:
        staging.remove_folder(claim)


_USE_A_BUCKET = (
    "this file system has neither hard links nor rename between folders, like a mounted bucket; "
    "set B10_STORE to the bucket itself (s3://, gs:// or az://)"
)


def _write_durably(descriptor: int, source: Source) -> None:
    """Write all that a source holds to an open file, and close it."""
    try:
        while chunk := source.read(_COPY_BYTES):
            view = memoryview(chunk)
            while view:
                view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    finally:
        # Closing reports what a network file system or a quota refused late; nothing is published before it.
        os.close(descriptor)


def _sync(folder: Folder) -> None:
    """Make a new name durable, if the file system can sync a folder."""
    try:
        folder.sync()
    except OSError as error:
        if error.errno not in _NO_FSYNC:
            raise


class _FileReader(ObjectReader):
    waits = False

    def __init__(self, descriptor: int, path: str, size_bytes: int) -> None:
        self._descriptor = descriptor
        self._path = path
        self.size_bytes = size_bytes

    def read_at(self, offset: int, length: int) -> bytes:
        with _translated("read", self._path, self._path):
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
