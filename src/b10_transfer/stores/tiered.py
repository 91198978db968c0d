"""A directory of the node's own in front of a store: one node fetches a pack once, however many pods it runs.

Only the store is believed. The end of an object, where a pack keeps its index, always comes from the store; what comes
from the node's directory is checked against the digests in that index, and where it does not agree the store is asked
again (:meth:`ObjectReader.reread_at`). So a directory that is damaged, or that somebody tampers with, costs time and
nothing else. What it holds that the store no longer has is removed when something is fetched.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ..concurrency.deadline import Deadline
from ..errors import StoreError
from .base import ObjectInfo, ObjectReader, Store, StoreFacts
from .directory import DirectoryStore

if TYPE_CHECKING:
    from .base import Source

logger = logging.getLogger(__name__)

_END_BYTES = 256 * 1024
"""So much of an object's end comes from the store: what a reader of packs asks for first."""
_PART_BYTES = 4 * 1024 * 1024
_POLL_S = 0.02


class TieredStore(Store):
    """Reads objects through a directory of the node; everything else is the store's own."""

    def __init__(self, store: Store, folder: Path, deadline: Deadline) -> None:
        self.location = store.location
        self._store = store
        # Pods of one node may have different stores.
        self._folder = folder / hashlib.sha256(store.location.encode()).hexdigest()[:16]
        self._node = DirectoryStore(self._folder, make_parents=True)
        self._deadline = deadline

    def open(self, name: str) -> ObjectReader | None:
        reader = self._store.open(name)
        if reader is None or reader.size_bytes <= _END_BYTES:
            return reader
        return _TieredReader(self, name, reader)

    def open_copy(self, name: str, remote: ObjectReader) -> ObjectReader | None:
        """The node's copy of an object, which is made if need be; None if it cannot be had."""
        try:
            copy = self._open_copy(name, remote)
            if copy is None:
                with self._fetching(name):
                    copy = self._open_copy(name, remote)  # another pod may have fetched it meanwhile
                    if copy is None:
                        self._node.create(name, _Remote(remote, self._deadline))
                        copy = self._open_copy(name, remote)
                        self._remove_others(name.partition("/")[0])
        except (StoreError, OSError) as error:
            logger.warning("the node's cache %s is not used: %s", self._folder, error)
            return None
        return copy

    def drop_copy(self, name: str) -> None:
        """Remove the node's copy of an object: it is not what the store has."""
        logger.warning("the node's copy of %s is damaged and is fetched again", name)
        with suppress(StoreError):
            self._node.delete(name)

    def expect(self, names: Sequence[str]) -> None:
        self._store.expect(names)

    def folders(self, folder: str) -> list[str]:
        return self._store.folders(folder)

    def list(self, folder: str) -> list[ObjectInfo]:
        return self._store.list(folder)

    def list_each(self, folders: Sequence[str]) -> Sequence[Sequence[ObjectInfo]]:
        return self._store.list_each(folders)

    def facts(self) -> StoreFacts:
        return self._store.facts()

    def create(self, name: str, source: Source) -> bool:
        return self._store.create(name, source)

    def delete(self, name: str) -> bool:
        return self._store.delete(name)

    def now(self) -> float:
        return self._store.now()

    def remove_abandoned(self, older_than_s: float) -> int:
        with suppress(StoreError):  # the node's own
            self._node.remove_abandoned(older_than_s)
        return self._store.remove_abandoned(older_than_s)

    def _open_copy(self, name: str, remote: ObjectReader) -> ObjectReader | None:
        copy = self._node.open(name)
        if copy is not None and copy.size_bytes != remote.size_bytes:
            copy.close()
            self.drop_copy(name)
            return None
        return copy

    def _remove_others(self, folder: str) -> None:
        """Remove copies of what the store no longer has, in a folder and those below it."""
        copies = self._node.list(folder)
        there = {info.name for info in self._store.list(folder)} if copies else set()
        for info in copies:
            if info.name not in there:
                self._node.delete(info.name)
        for below in self._node.folders(folder):
            self._remove_others(below)

    @contextmanager
    def _fetching(self, name: str) -> Iterator[None]:
        """One pod of the node fetches an object, the others wait for it. The kernel ends the claim of a dead one."""
        os.makedirs(self._folder, exist_ok=True)
        path = self._folder / f".fetching-{hashlib.sha256(name.encode()).hexdigest()[:16]}"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        try:
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    self._deadline.check("waiting for another pod of this node to fetch a pack")
                    self._deadline.sleep(_POLL_S)
            yield
        finally:
            os.close(descriptor)


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
        if offset >= self.size_bytes - _END_BYTES:
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
