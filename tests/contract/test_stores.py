"""Every store of this package passes the contract of ``b10_transfer.testing``."""

from __future__ import annotations

import base64
import errno
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from b10_transfer.concurrency.deadline import Deadline
from b10_transfer.stores.base import Store
from b10_transfer.stores.directory import DirectoryStore
from b10_transfer.stores.tiered import TieredStore
from b10_transfer.stores.worker import client as worker
from b10_transfer.stores.worker.client import bucket_store, directory_store
from b10_transfer.testing import MemoryStore, StoreContract, StorePlace
from b10_transfer.testing.steps import create, opened

BUCKET = os.environ.get("B10_TEST_BUCKET")
"""URL of a real bucket, if there is one: ``make test-s3``, which tests nothing else."""


class DirectoryPlace(StorePlace):
    """A folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def open(self) -> Store:
        return DirectoryStore(self.path)

    def read(self, name: str) -> bytes | None:
        try:
            return (self.path / name).read_bytes()
        except FileNotFoundError:
            return None

    def write(self, name: str, data: bytes) -> None:
        (self.path / name).parent.mkdir(parents=True, exist_ok=True)
        (self.path / name).write_bytes(data)

    def delete(self, name: str) -> None:
        (self.path / name).unlink()


class TestDirectory(StoreContract):
    __test__ = not BUCKET

    @pytest.fixture
    def place(self, store_place: Path) -> StorePlace:
        return DirectoryPlace(store_place / "store")


class TestDirectoryWithoutHardLinks(StoreContract):
    __test__ = not BUCKET

    @pytest.fixture
    def place(self, store_place: Path, monkeypatch: pytest.MonkeyPatch) -> StorePlace:
        def refuse(*_: object, **__: object) -> None:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))

        monkeypatch.setattr(os, "link", refuse)
        return DirectoryPlace(store_place / "store")


class WorkerPlace(DirectoryPlace):
    """A folder that is used through worker processes."""

    def __init__(self, path: Path, deadline: Deadline, cleanup: ExitStack) -> None:
        super().__init__(path)
        self._deadline = deadline
        self._cleanup = cleanup

    def open(self) -> Store:
        opening = directory_store(self.path, make_parents=False, deadline=self._deadline)
        return self._cleanup.enter_context(opening)


class TestWorker(StoreContract):
    __test__ = not BUCKET

    @pytest.fixture
    def place(self, store_place: Path, monkeypatch: pytest.MonkeyPatch, deadline: Deadline) -> Iterator[StorePlace]:
        monkeypatch.setattr(worker, "is_local", lambda path: False)
        with ExitStack() as cleanup:
            yield WorkerPlace(store_place / "store", deadline, cleanup)


class TieredPlace(DirectoryPlace):
    """A folder behind a cache of the node."""

    def __init__(self, path: Path, node: Path, deadline: Deadline) -> None:
        super().__init__(path)
        self._node = node
        self._deadline = deadline

    def open(self) -> Store:
        return TieredStore(DirectoryStore(self.path), self._node, self._deadline)


class TestTiered(StoreContract):
    __test__ = not BUCKET

    @pytest.fixture
    def place(self, store_place: Path, deadline: Deadline) -> StorePlace:
        return TieredPlace(store_place / "store", store_place / "node", deadline)


class MemoryPlace(StorePlace):
    """The memory of one store."""

    def __init__(self) -> None:
        self._store = MemoryStore()

    def open(self) -> Store:
        return self._store

    def read(self, name: str) -> bytes | None:
        found = self._store._objects.get(name)
        return None if found is None else found[0]

    def write(self, name: str, data: bytes) -> None:
        self._store._objects[name] = (data, time.time())

    def delete(self, name: str) -> None:
        del self._store._objects[name]


class TestMemory(StoreContract):
    __test__ = not BUCKET

    @pytest.fixture
    def place(self) -> StorePlace:
        return MemoryPlace()


# In a process of its own: the threads of obstore do not survive forks of this one.
_BEHIND = """
import base64, sys
import obstore
from b10_transfer.stores.bucket.store import BucketStore

url, action, name, data = sys.argv[1:]
client = BucketStore(url, 30)._store
if action == "read":
    try:
        print(base64.b64encode(bytes(obstore.get(client, name).bytes())).decode())
    except FileNotFoundError:
        pass
elif action == "write":
    obstore.put(client, name, base64.b64decode(data))
else:
    obstore.delete(client, name)
"""


class BucketPlace(StorePlace):
    """A new prefix of a bucket."""

    def __init__(self, url: str, deadline: Deadline, cleanup: ExitStack) -> None:
        self._url = url
        self._deadline = deadline
        self._cleanup = cleanup

    def open(self) -> Store:
        return self._cleanup.enter_context(bucket_store(self._url, deadline=self._deadline))

    def read(self, name: str) -> bytes | None:
        found = self._behind("read", name)
        return base64.b64decode(found) if found else None

    def write(self, name: str, data: bytes) -> None:
        self._behind("write", name, data)

    def delete(self, name: str) -> None:
        self._behind("delete", name)

    def _behind(self, action: str, name: str, data: bytes = b"") -> str:
        command = [sys.executable, "-c", _BEHIND, self._url, action, name, base64.b64encode(data).decode()]
        return subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=60, check=True).stdout


class TestBucket(StoreContract):
    __test__ = bool(BUCKET)
    clock_step_s = 1.05 if (BUCKET or "").startswith("az:") else 0.05  # the clock of Azure shows whole seconds

    @pytest.fixture
    def place(self, deadline: Deadline) -> Iterator[StorePlace]:
        with ExitStack() as cleanup:
            yield BucketPlace(f"{BUCKET}/{secrets.token_hex(8)}", deadline, cleanup)


def test_worker_without_shared_memory_sends_what_it_reads(
    store_place: Path, monkeypatch: pytest.MonkeyPatch, deadline: Deadline
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(os, "memfd_create", refuse)
    monkeypatch.setattr(worker, "is_local", lambda path: False)
    with directory_store(store_place / "store", make_parents=False, deadline=deadline) as store:
        create(store, "a/object", b"content")
        with opened(store, "a/object") as reader, reader.borrow_at(0, 7) as lent:
            assert bytes(lent) == b"content"
