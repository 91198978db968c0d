"""A directory of the node's own in front of a store: one node fetches a pack once, however many pods it runs.

Only the store is trusted. The index of a pack always comes from the store (:data:`.base.TAIL_BYTES`). The rest of a
copy is checked against the digests in that index, and where it differs the store is read instead
(:meth:`ObjectReader.reread_at`). Others may be able to write to the node's directory: no link in it is followed
(:mod:`.tree`), and a lock that another user holds is ignored. So a damaged or hostile directory costs time and nothing
else.

The first fetch of an operation also removes copies of packs that the store no longer has, and leftovers of killed
fetches.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ..concurrency.deadline import Deadline
from ..errors import StoreError
from .base import TAIL_BYTES, ObjectInfo, ObjectReader, Store, StoreFacts
from .directory import DirectoryStore
from .folders import make_folders
from .tree import Folder, Tree

if TYPE_CHECKING:
    from .base import Source

logger = logging.getLogger(__name__)

_PART_BYTES = 4 * 1024 * 1024
_POLL_S = 0.02
_WAITING = 0.25
"""The part of the remaining deadline that an operation waits for other pods' fetches, all of them together."""
_COPIED = re.compile(r"[0-9a-f]{12}-[0-9a-f]{16}\.tar\.zst", re.ASCII)
"""Names of the objects that are copied: packs. Nothing of another form is copied or removed."""
_LOCK = re.compile(r"\.fetching-[0-9a-f]{16}", re.ASCII)


class TieredStore(Store):
    """Reads packs through a directory of the node; everything else is the store's own.

    Args:
        store: the store itself.
        folder: the node's directory, on a local file system.
        deadline: of the operation.
        abandoned_s: leftovers of a fetch are removed if they have not grown for so many seconds.
    """

    def __init__(self, store: Store, folder: Path, deadline: Deadline, abandoned_s: float = 60.0) -> None:
        self.location = store.location
        self._store = store
        self._node = DirectoryStore(folder, make_parents=True)
        self._tree = Tree(str(folder))
        # Pods of one node may have different stores.
        self._prefix = hashlib.sha256(store.location.encode()).hexdigest()[:16]
        self._deadline = deadline
        self._abandoned_s = abandoned_s
        self._wait_ends_s = deadline.remaining_s * (1 - _WAITING)
        """When so much of the deadline is left, this operation no longer waits for other pods."""
        self._listed: dict[str, set[str]] = {}
        """The names in each folder of the store when it was last listed."""
        self._has_swept = False

    def open(self, name: str) -> ObjectReader | None:
        reader = self._store.open(name)
        if reader is None or reader.size_bytes <= TAIL_BYTES or not _COPIED.fullmatch(name.rpartition("/")[2]):
            return reader
        return _TieredReader(self, name, reader)

    def open_copy(self, name: str, remote: ObjectReader) -> ObjectReader | None:
        """The node's copy of an object, which is fetched if it is missing; None if that fails."""
        try:
            copy = self._open_copy(name, remote)
            if copy is not None:
                return copy
            with self._fetching(name) as may_fetch:
                copy = self._open_copy(name, remote)  # another pod may have fetched it
                if copy is None and may_fetch:
                    self._node.create(f"{self._prefix}/{name}", _Remote(remote, self._deadline))
                    copy = self._open_copy(name, remote)
                    self._sweep()
        except (StoreError, OSError) as error:
            logger.warning("the node's cache %s is not used: %s", self._node.location, error)
            return None
        return copy

    def drop_copy(self, name: str) -> None:
        """Remove the node's copy of an object: it is not what the store has."""
        logger.warning("the node's copy of %s is damaged and is fetched again", name)
        with suppress(StoreError):
            self._node.delete(f"{self._prefix}/{name}")

    def expect(self, names: Sequence[str]) -> None:
        self._store.expect(names)

    def folders(self, folder: str) -> list[str]:
        return self._store.folders(folder)

    def list(self, folder: str) -> list[ObjectInfo]:
        listed = self._store.list(folder)
        self._listed[folder] = {info.name for info in listed}
        return listed

    def list_each(self, folders: Sequence[str]) -> Sequence[Sequence[ObjectInfo]]:
        listed = self._store.list_each(folders)
        for folder, infos in zip(folders, listed, strict=True):
            self._listed[folder] = {info.name for info in infos}
        return listed

    def facts(self) -> StoreFacts:
        return self._store.facts()

    def create(self, name: str, source: Source) -> bool:
        return self._store.create(name, source)

    def delete(self, name: str) -> bool:
        return self._store.delete(name)

    def now(self) -> float:
        return self._store.now()

    def remove_abandoned(self, older_than_s: float) -> int:
        return self._store.remove_abandoned(older_than_s)

    def _open_copy(self, name: str, remote: ObjectReader) -> ObjectReader | None:
        copy = self._node.open(f"{self._prefix}/{name}")
        if copy is not None and copy.size_bytes != remote.size_bytes:
            copy.close()
            self.drop_copy(name)
            return None
        return copy

    def _sweep(self) -> None:
        """Remove, once in an operation, copies of packs that the store no longer has, and leftovers of fetches."""
        if self._has_swept:
            return
        self._has_swept = True
        try:
            self._node.remove_abandoned(self._abandoned_s)
            self._remove_locks()
            self._remove_others(self._prefix)
        except (StoreError, OSError) as error:
            logger.debug("the node's cache %s is not cleaned up: %s", self._node.location, error)

    def _remove_others(self, folder: str) -> None:
        """Remove copies of packs that the store no longer has, in a folder and those below it."""
        copies = [info for info in self._node.list(folder) if _COPIED.fullmatch(info.name.rpartition("/")[2])]
        if copies:
            remote = folder.removeprefix(f"{self._prefix}/")
            if remote not in self._listed:
                self.list(remote)
            for info in copies:
                if info.name.removeprefix(f"{self._prefix}/") not in self._listed[remote]:
                    self._node.delete(info.name)
        for below in self._node.folders(folder):
            self._remove_others(below)

    def _remove_locks(self) -> None:
        """Remove the locks of fetches that were killed."""
        top = self._tree.folder("")
        if top is None:
            return
        with top:
            for name in [entry.name for entry in top.entries() if _LOCK.fullmatch(entry.name)]:
                descriptor = top.open_lock(name)
                try:
                    if _is_own(descriptor) and _try_lock(descriptor):
                        top.remove_file(name)
                finally:
                    os.close(descriptor)

    @contextmanager
    def _fetching(self, name: str) -> Iterator[bool]:
        """One pod of the node fetches an object, the others wait for it a while. The kernel ends a dead one's lock.

        Yields False if another pod still fetches it.
        """
        lock = f".fetching-{hashlib.sha256(f'{self._prefix}/{name}'.encode()).hexdigest()[:16]}"
        with self._tree.make_folder(self._make_top())[0] as top:
            while True:
                descriptor = top.open_lock(lock)
                try:
                    if not _is_own(descriptor):  # of another user, who may hold it for ever
                        yield True
                        return
                    if not self._wait_for(descriptor):
                        yield False
                        return
                    if _is_named(descriptor, top, lock):
                        try:
                            yield True
                        finally:
                            top.remove_file(lock)
                        return
                finally:
                    os.close(descriptor)

    def _make_top(self) -> str:
        """Make the node's directory if it is missing; the name of its top."""
        make_folders(self._tree.top, 0o777)
        return ""

    def _wait_for(self, descriptor: int) -> bool:
        """Lock a file, and wait for it as long as this operation waits for others; False if it is still locked then."""
        while not _try_lock(descriptor):
            if self._deadline.remaining_s <= self._wait_ends_s:
                return False
            self._deadline.check("waiting for another pod of this node to fetch a pack")
            self._deadline.sleep(_POLL_S)
        return True


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_own(descriptor: int) -> bool:
    """Whether an open file is one of this user, or of root, as this package makes it."""
    status = os.fstat(descriptor)
    return stat.S_ISREG(status.st_mode) and status.st_uid in (os.geteuid(), 0)


def _is_named(descriptor: int, folder: Folder, name: str) -> bool:
    """Whether a file that was opened under a name still has it: another pod may have removed it since."""
    there = folder.stat(name)
    return there is not None and os.path.samestat(os.fstat(descriptor), there)


class _TieredReader(ObjectReader):
    """The store's end of an object, and the node's copy of what comes before."""

    def __init__(self, store: TieredStore, name: str, remote: ObjectReader) -> None:
        self.size_bytes = remote.size_bytes
        self._store = store
        self._name = name
        self._remote = remote
        self._copy: ObjectReader | None = None
        self._has_tried = False

    def read_at(self, offset: int, length: int) -> bytes | bytearray:
        if offset >= self.size_bytes - TAIL_BYTES:
            return self._remote.read_at(offset, length)
        if not self._has_tried:
            self._has_tried = True
            self._copy = self._store.open_copy(self._name, self._remote)
        if self._copy is not None:
            try:
                return self._copy.read_at(offset, length)
            except StoreError as error:
                logger.warning("the node's copy of %s is not used: %s", self._name, error)
                self._forget()
        return self._remote.read_at(offset, length)

    def reread_at(self, offset: int, length: int) -> bytes | bytearray:
        if self._copy is not None:
            self._forget()
            self._store.drop_copy(self._name)
        return self._remote.read_at(offset, length)

    def close(self) -> None:
        self._forget()
        self._remote.close()

    def _forget(self) -> None:
        if self._copy is not None:
            self._copy.close()
            self._copy = None


class _Remote:
    """An object of the store as a source for its copy."""

    def __init__(self, reader: ObjectReader, deadline: Deadline) -> None:
        self._reader = reader
        self._deadline = deadline
        self._offset = 0

    def read(self, _size: int = -1, /) -> bytes | bytearray:
        self._deadline.check("fetching a pack for this node")
        length = min(_PART_BYTES, self._reader.size_bytes - self._offset)
        data = self._reader.read_at(self._offset, length) if length else b""
        self._offset += length
        return data
