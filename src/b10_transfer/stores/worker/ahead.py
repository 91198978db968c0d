"""A directory whose objects are opened ahead: on a network mount each open and each read waits for a server.

Threads pay here and not in the client: this process has one connection, and answers one request at a time.
"""

from __future__ import annotations

from _thread import allocate_lock, start_new_thread
from collections import deque

from ...errors import StoreError
from ..base import TAIL_BYTES, ObjectReader
from ..directory import DirectoryStore

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_THREADS = 8
_AHEAD = 16
"""Objects that are open before a client requests them. Each holds a descriptor and an end of an object."""


class AheadDirectory(DirectoryStore):
    """Opens the objects that a client expects, and reads their ends, in threads. Everything else is unchanged."""

    def __init__(self, path: str, *, make_parents: bool = False) -> None:
        super().__init__(path, make_parents=make_parents)
        self._expected: deque[str] = deque()
        self._opened: dict[str, _Opening] = {}
        self._waiting: deque[_Opening] = deque()
        self._lock = allocate_lock()
        self._idle_threads = _THREADS

    def expect(self, names: Sequence[str]) -> None:
        for opening in self._opened.values():
            opening.abandon()
        self._opened.clear()
        self._expected = deque(names)
        for _ in range(_AHEAD):
            self._open_next()

    def open(self, name: str) -> ObjectReader | None:
        opening = self._opened.pop(name, None)
        if opening is None:
            return super().open(name)
        self._open_next()
        return opening.reader()

    def open_with_end(self, name: str) -> ObjectReader | None:
        """An object's reader that holds the object's end already. Raises StoreError."""
        reader = super().open(name)
        if reader is None:
            return None
        start = max(reader.size_bytes - TAIL_BYTES, 0)
        try:
            return _EndFirst(reader, start, memoryview(reader.read_at(start, reader.size_bytes - start)))
        except BaseException:
            reader.close()
            raise

    def _open_next(self) -> None:
        if not self._expected:
            return
        name = self._expected.popleft()
        opening = self._opened[name] = _Opening(self, name)
        with self._lock:
            self._waiting.append(opening)
            starts = self._idle_threads > 0
            self._idle_threads -= starts
        if starts:
            try:
                start_new_thread(self._work, ())
            except RuntimeError:  # the system starts no more threads: this one opens it
                self._work()

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._idle_threads += 1
                    return
                opening = self._waiting.popleft()
            opening.run()


class _Opening:
    """An object that a thread opens."""

    def __init__(self, store: AheadDirectory, name: str) -> None:
        self._store = store
        self._name = name
        self._reader: ObjectReader | None = None
        self._error: BaseException | None = None
        self._is_abandoned = False
        self._lock = allocate_lock()
        self._pending = allocate_lock()
        self._pending.acquire()

    def run(self) -> None:
        reader = None
        try:
            if not self._is_abandoned:
                reader = self._store.open_with_end(self._name)
        except BaseException as error:  # noqa: BLE001 - reader() raises it
            self._error = error
        with self._lock:
            self._reader = reader
            is_abandoned = self._is_abandoned
        if is_abandoned and reader is not None:
            reader.close()
        self._pending.release()

    def reader(self) -> ObjectReader | None:
        """Wait for the object. Raises what opening it raised."""
        with self._pending:
            pass
        if self._error is not None:
            raise self._error
        return self._reader

    def abandon(self) -> None:
        """Close the object: no client will request it."""
        with self._lock:
            self._is_abandoned = True
            reader = self._reader
        if reader is not None:
            reader.close()


class _EndFirst(ObjectReader):
    """An open object whose end has been read."""

    def __init__(self, reader: ObjectReader, start: int, end: memoryview) -> None:
        self.size_bytes = reader.size_bytes
        self._reader = reader
        self._start = start
        self._end = end

    def read_at(self, offset: int, length: int) -> bytes | bytearray:
        if offset < self._start:
            return self._reader.read_at(offset, length)
        if offset + length > self.size_bytes:
            raise StoreError("read", "an object", f"it ends at byte {self.size_bytes}")
        return bytes(self._end[offset - self._start : offset - self._start + length])

    def views_at(self, offset: int, length: int) -> list[memoryview]:
        if offset < self._start:
            return self._reader.views_at(offset, length)
        return [memoryview(self.read_at(offset, length))]

    def reread_at(self, offset: int, length: int) -> bytes | bytearray:
        return self._reader.reread_at(offset, length)

    def close(self) -> None:
        self._reader.close()
