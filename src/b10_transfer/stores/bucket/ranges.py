"""Reads an object of a bucket by ranges: several at once, ahead of the reader. The size comes with the object's end.

Even a small request to a bucket takes tens of milliseconds, so the next ranges are requested early. Memory holds at
most :data:`PARTS_AHEAD` parts for each reader, and :data:`_MOST_ENDS` ends.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import OrderedDict, deque

from ...errors import StoreError
from ..base import ObjectReader, Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, TypeVar

    from .threads import Task

    T = TypeVar("T")
    Fetch = Callable[[int, int], memoryview]
    Background = Callable[[Callable[[], T]], Task[T]]

MB = 1024 * 1024
TAIL_BYTES = 1 * MB
"""Fetched when an object is opened, together with its size: the index of nearly every pack, and all of a small one."""
_PART_BYTES = 8 * MB
"""Larger ranges are fetched in parts of this size at once. With smaller parts a fleet would exceed the
request rate of a bucket (S3 promises 5,500 a second for a prefix)."""
PARTS_AHEAD = 8
_ENDS_AHEAD = 8
_MOST_ENDS = 32


class End:
    """An object's size and its last bytes."""

    __slots__ = ("size_bytes", "tail")

    def __init__(self, size_bytes: int, tail: memoryview) -> None:
        self.size_bytes = size_bytes
        self.tail = tail


class Ends:
    """The ends of objects that are expected to be opened, fetched ahead in that order and kept for a while.

    A load opens its packs twice, for their indexes and for their files. Packs never change.
    """

    def __init__(self, fetch: Callable[[str], End | None], in_background: Background[End | None]) -> None:
        self._fetch = fetch
        self._in_background = in_background
        self._expected: deque[str] = deque()
        self._fetching: OrderedDict[str, Task[End | None]] = OrderedDict()

    def expect(self, names: Sequence[str]) -> None:
        """Objects that will be opened soon, in this order."""
        self._expected = deque(names)
        self._go_on(_ENDS_AHEAD)

    def of(self, name: str) -> End | None:
        """The end of an object; None if there is no such object. Raises StoreError."""
        fetching = self._fetching.get(name)
        if fetching is None:
            return self._fetch(name)
        self._go_on(1)
        try:
            return fetching.result()
        except StoreError:
            self.forget(name)  # so that the next attempt makes a request
            raise

    def forget(self, name: str) -> None:
        """Fetch it anew if it is opened again."""
        self._fetching.pop(name, None)

    def _go_on(self, count: int) -> None:
        for _ in range(min(count, len(self._expected))):
            self._start(self._expected.popleft())
        while len(self._fetching) > _MOST_ENDS:
            self._fetching.popitem(last=False)

    def _start(self, name: str) -> None:
        self._fetching[name] = self._in_background(lambda: self._fetch(name))


class RangedStore(Store):
    """A store whose objects are read by ranges. A subclass says how an end and a range of an object are fetched."""

    def __init__(self, in_background: Background[Any]) -> None:
        self._in_background = in_background
        self._ends = Ends(self._end, in_background)

    def expect(self, names: Sequence[str]) -> None:
        self._ends.expect(names)

    def open(self, name: str) -> ObjectReader | None:
        end = self._ends.of(name)
        if end is None:
            return None
        return self._reader(name, end, lambda start, before: self._range(name, start, before))

    def _reader(self, name: str, end: End, fetch: Fetch) -> RangeReader:
        return RangeReader(f"{self.location}/{name}", end, fetch, self._in_background)

    @abstractmethod
    def _end(self, name: str) -> End | None:
        """An object's end, of :data:`TAIL_BYTES`; None if there is no such object. Raises StoreError."""

    @abstractmethod
    def _range(self, name: str, start: int, before: int) -> memoryview:
        """A range of an object. Raises StoreError."""


class RangeReader(ObjectReader):
    """Reads ranges, and ahead of them once they follow each other, as the frames of a pack do."""

    def __init__(self, name: str, end: End, fetch: Fetch, in_background: Background[memoryview]) -> None:
        self.size_bytes = end.size_bytes
        self._name = name
        self._tail = end.tail
        self._tail_start = end.size_bytes - len(end.tail)
        self._fetch = fetch
        self._in_background = in_background
        self._parts: dict[int, Task[memoryview]] = {}
        self._ahead = 2
        self._next = 0
        self._origin: int | None = None
        """Where the first read began. Parts are counted from there, so that nothing before it is fetched."""

    def read_at(self, offset: int, length: int) -> bytes:
        return b"".join(self.views_at(offset, length))

    def views_at(self, offset: int, length: int) -> list[memoryview]:
        if offset < 0 or offset + length > self.size_bytes:
            raise StoreError("read", self._name, f"it ends at byte {self.size_bytes}")
        if offset >= self._tail_start:
            start = offset - self._tail_start
            return [self._tail[start : start + length]]
        if self._origin is None:
            self._origin = offset
        # Twice as far ahead each time that a range begins where the last one ended.
        self._ahead = min(2 * self._ahead, PARTS_AHEAD) if offset == self._next else 1
        end = self._next = offset + length
        first = (offset - self._origin) // _PART_BYTES
        last = (min(end, self._tail_start) - 1 - self._origin) // _PART_BYTES
        for number in range(first, last + self._ahead):
            self._start(number)
        for number in [number for number in self._parts if number < first]:
            self._parts.pop(number).cancel()
        views = []
        for number in range(first, last + 1):
            start = self._part_start(number)
            views.append(self._parts[number].result()[max(offset - start, 0) : end - start])
        if end > self._tail_start:
            views.append(self._tail[: end - self._tail_start])
        return views

    def close(self) -> None:
        for part in self._parts.values():
            part.cancel()
        self._parts.clear()

    def _start(self, number: int) -> None:
        """Fetch a part, unless that has begun; the last one ends where the tail begins."""
        start, end = self._part_start(number), min(self._part_start(number + 1), self._tail_start)
        if number not in self._parts and start < end:
            self._parts[number] = self._in_background(lambda: self._fetch(start, end))

    def _part_start(self, number: int) -> int:
        return max(0, (self._origin or 0) + number * _PART_BYTES)
