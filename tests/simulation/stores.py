"""Stores with real content and simulated costs.

A mount behaves like NFS: requests of one megabyte, retried without a limit. A bucket uses the project's ranged reads
(:mod:`b10_transfer.stores.bucket.ranges`) and its retries.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from b10_transfer.errors import StoreError
from b10_transfer.stores.base import ObjectInfo, ObjectReader, Store, StoreFacts
from b10_transfer.stores.bucket.ranges import MB, PARTS_AHEAD, TAIL_BYTES, End, RangedStore, RangeReader
from b10_transfer.stores.bucket.retry import Attempts, Pace
from b10_transfer.testing.memory import MemoryStore
from tests.simulation.scheduler import EPOCH_S, Event, Scheduler
from tests.simulation.service import Service, UnavailableError

if TYPE_CHECKING:
    from b10_transfer.stores.base import Source
    from b10_transfer.stores.bucket.ranges import Fetch

T = TypeVar("T")

_TRANSFER_BYTES = MB
"""Default maximum size of one NFS request."""
_UPLOAD_PART_BYTES = 5 * MB


class Contents:
    """Content of a service. Equal ranges are the same object."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.objects = MemoryStore(clock=lambda: EPOCH_S + scheduler.now_s)
        self._cut: dict[tuple[str, int, int], bytes] = {}

    def cut(self, name: str, offset: int, length: int) -> bytes:
        if (name, offset, length) not in self._cut:
            reader = self.objects.open(name)
            assert reader is not None
            self._cut[name, offset, length] = bytes(reader.read_at(offset, length))
        return self._cut[name, offset, length]


class SimulatedStore(Store):
    """Connection of one client. A subclass defines the cost of each operation."""

    def __init__(self, service: Service, contents: Contents) -> None:
        self.location = "simulated"
        self._service = service
        self._contents = contents

    def _pay(self, size_bytes: int = 0, requests: int = 1) -> None:
        """Send requests, with retries. Raises StoreError."""
        raise NotImplementedError

    def folders(self, folder: str) -> list[str]:
        self._pay()
        return self._contents.objects.folders(folder)

    def list(self, folder: str) -> list[ObjectInfo]:
        self._pay()
        return self._contents.objects.list(folder)

    def facts(self) -> StoreFacts:
        return StoreFacts(exists=True)

    def delete(self, name: str) -> bool:
        self._pay()
        return self._contents.objects.delete(name)

    def now(self) -> float:
        for _ in range(3):  # create an object, read its time, delete it
            self._pay()
        return self._contents.objects.now()

    def remove_abandoned(self, older_than_s: float) -> int:
        self._pay()
        return 0


class Mount(SimulatedStore):
    """A directory on a network file system."""

    def open(self, name: str) -> ObjectReader | None:
        self._pay()
        reader = self._contents.objects.open(name)
        return None if reader is None else _MountReader(self, self._contents, name, reader.size_bytes)

    def create(self, name: str, source: Source) -> bool:
        data = _Bytes(source)
        self.move(len(data.content))
        for _ in range(4):  # create, sync, link and unlink a staging file
            self._pay()
        return self._contents.objects.create(name, data)

    def move(self, size_bytes: int) -> None:
        self._pay(size_bytes, max(-(-size_bytes // _TRANSFER_BYTES), 1))

    def _pay(self, size_bytes: int = 0, requests: int = 1) -> None:
        while True:
            try:
                return self._service.request(size_bytes, requests)
            except UnavailableError:
                self._service.scheduler.sleep(random.uniform(0.05, 0.15))


class _MountReader(ObjectReader):
    def __init__(self, mount: Mount, contents: Contents, name: str, size_bytes: int) -> None:
        self._mount = mount
        self._contents = contents
        self._name = name
        self.size_bytes = size_bytes

    def read_at(self, offset: int, length: int) -> bytes:
        self._mount.move(length)
        return self._contents.cut(self._name, offset, length)

    def close(self) -> None:
        pass


class Bucket(RangedStore, SimulatedStore):
    """A bucket. Each operation has its own worker process, so its own client."""

    def __init__(self, service: Service, contents: Contents, timeout_s: float) -> None:
        SimulatedStore.__init__(self, service, contents)
        self._timeout_s = timeout_s
        self._pace = Pace(timeout_s)
        RangedStore.__init__(self, _Pool(service.scheduler, PARTS_AHEAD).submit)  # type: ignore[arg-type]

    def list_each(self, folders: Sequence[str]) -> Sequence[Sequence[ObjectInfo]]:
        self._pay()  # for all of them
        return self._contents.objects.list_each(folders)

    def create(self, name: str, source: Source) -> bool:
        data = _Bytes(source)
        size = len(data.content)
        if size > 16 * MB:
            for _ in range(3):  # check, begin and complete an upload
                self._pay()
            self._pay(size, -(-size // _UPLOAD_PART_BYTES))
        else:
            self._pay(size)
        return self._contents.objects.create(name, data)

    def _end(self, name: str) -> End | None:
        reader = self._contents.objects.open(name)
        size = min(reader.size_bytes, TAIL_BYTES) if reader else 0
        self._pay(size)
        if reader is None:
            return None
        return End(reader.size_bytes, memoryview(self._contents.cut(name, reader.size_bytes - size, size)))

    def _range(self, name: str, start: int, before: int) -> memoryview:
        self._pay(before - start)
        return memoryview(self._contents.cut(name, start, before - start))

    def _reader(self, name: str, end: End, fetch: Fetch) -> RangeReader:
        return _BucketReader(name, end, fetch, self._in_background, self._contents)

    def _pay(self, size_bytes: int = 0, requests: int = 1) -> None:
        attempts = Attempts(self._pace, self._timeout_s)
        while True:
            attempts.begin()
            try:
                self._service.request(size_bytes, requests)
            except UnavailableError as error:
                failure = StoreError("use", self.location, "the bucket throttled the request")
                attempts.failed(failure, is_refused=error.is_refused)
            else:
                return attempts.succeeded()


class _BucketReader(RangeReader):
    """Waits like the real reader and returns the shared copy."""

    def __init__(
        self, name: str, end: End, fetch: Fetch, in_background: Callable[..., Any], contents: Contents
    ) -> None:
        super().__init__(name, end, fetch, in_background)
        self._object = name
        self._contents = contents

    def read_at(self, offset: int, length: int) -> bytes:
        self.views_at(offset, length)
        return self._contents.cut(self._object, offset, length)


class _Future(Generic[T]):
    def __init__(self, scheduler: Scheduler, function: Callable[[], T]) -> None:
        self._function = function
        self._done = Event(scheduler)
        self._values: list[T] = []
        self._error: StoreError | None = None
        self.is_cancelled = False

    def run(self) -> None:
        try:
            self._values.append(self._function())
        except StoreError as error:
            self._error = error
        self._done.set()

    def result(self) -> T:
        self._done.wait()
        if self._error is not None:
            raise self._error
        return self._values[0]

    def cancel(self) -> None:
        self.is_cancelled = True


class _Pool:
    """Runs at most ``most`` functions of one client at once."""

    def __init__(self, scheduler: Scheduler, most: int) -> None:
        self._scheduler = scheduler
        self._left = most
        self._queue: deque[_Future[object]] = deque()

    def submit(self, function: Callable[[], object]) -> _Future[object]:
        future = _Future(self._scheduler, function)
        self._queue.append(future)
        if self._left:
            self._left -= 1
            self._scheduler.start(self._work)
        return future

    def _work(self) -> None:
        while self._queue:
            future = self._queue.popleft()
            if not future.is_cancelled:
                future.run()
        self._left += 1


class _Bytes:
    """The whole content of a source, itself a source."""

    def __init__(self, source: Source) -> None:
        parts = []
        while part := source.read(MB):
            parts.append(bytes(part))
        self.content = b"".join(parts)

    def read(self, size: int = -1, /) -> bytes:
        return self.content
