"""Ranged reads of an object: exactly its bytes, ahead of a reader, and nothing before the first byte that is read."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from b10_transfer.stores.bucket import ranges
from b10_transfer.stores.bucket.ranges import End, RangeReader

SIZE = 10_000
TAIL = 500
CONTENT = random.Random(0).randbytes(SIZE)


class Now:
    """A task that has ended."""

    def __init__(self, function: Callable[[], memoryview]) -> None:
        self._value = function()

    def result(self) -> memoryview:
        return self._value

    def cancel(self) -> None:
        pass


class Object:
    """An object in a bucket, and the ranges that were fetched of it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ranges, "_PART_BYTES", 1000)
        self.fetched: list[tuple[int, int]] = []
        end = End(SIZE, memoryview(CONTENT)[-TAIL:])
        submit: Any = Now
        self.reader = RangeReader("object", end, self._fetch, submit)

    def _fetch(self, start: int, before: int) -> memoryview:
        self.fetched.append((start, before))
        return memoryview(CONTENT)[start:before]


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> Object:
    return Object(monkeypatch)


def test_end_of_an_object_is_read_without_what_lies_before(found: Object) -> None:
    """Units that starts use lie there."""
    for start in range(8_300, SIZE, 100):
        assert found.reader.read_at(start, 100) == CONTENT[start : start + 100]
    assert found.fetched == [(8_300, 9_300), (9_300, SIZE - TAIL)]


def test_object_that_is_read_from_its_beginning_is_fetched_in_parts(found: Object) -> None:
    assert b"".join(found.reader.read_at(start, 100) for start in range(0, SIZE, 100)) == CONTENT
    assert sorted(found.fetched) == [(start, min(start + 1000, SIZE - TAIL)) for start in range(0, SIZE - TAIL, 1000)]


def test_any_range_is_read_after_any_other(found: Object) -> None:
    chosen = random.Random(1)
    for _ in range(500):
        start = chosen.randrange(SIZE)
        length = chosen.randrange(SIZE - start)
        assert found.reader.read_at(start, length) == CONTENT[start : start + length]
