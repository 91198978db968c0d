"""A directory whose objects the worker opens ahead, several at a time."""

from __future__ import annotations

import io
import os
import threading
from pathlib import Path

import pytest

from b10_transfer.errors import StoreError
from b10_transfer.stores.base import ObjectReader
from b10_transfer.stores.worker import ahead
from b10_transfer.stores.worker.ahead import AheadDirectory
from tests.descriptors import opened_below

NAMES = [f"v1/packs/{number:02d}" for number in range(40)]


@pytest.fixture
def store(tmp_path: Path) -> AheadDirectory:
    found = AheadDirectory(str(tmp_path / "store"))
    for name in NAMES:
        found.create(name, io.BytesIO(name.encode() * 10))
    return found


def read(reader: ObjectReader | None) -> bytes:
    assert reader is not None
    with reader:
        return bytes(reader.read_at(0, reader.size_bytes))


def wait_for_threads(store: AheadDirectory) -> None:
    """Wait until no thread opens an object: while one does, it holds folders and perhaps an object nobody asks for."""
    while store._idle_threads < ahead._THREADS:
        threading.Event().wait(0.01)


def test_expected_objects_are_opened_at_the_same_time(store: AheadDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    meeting = threading.Barrier(8, timeout=30)
    open_with_end = store.open_with_end

    def wait_for_the_others(name: str) -> ObjectReader | None:
        meeting.wait()
        return open_with_end(name)

    monkeypatch.setattr(store, "open_with_end", wait_for_the_others)
    store.expect(NAMES)
    assert [read(store.open(name)) for name in NAMES] == [name.encode() * 10 for name in NAMES]


def test_object_is_opened_again_and_in_any_order(store: AheadDirectory) -> None:
    store.expect(NAMES)
    for name in (*reversed(NAMES), *NAMES):
        assert read(store.open(name)) == name.encode() * 10


def test_few_objects_are_open_ahead_and_those_nobody_asks_for_are_closed(store: AheadDirectory, tmp_path: Path) -> None:
    for _ in range(5):
        store.expect(NAMES)
        assert read(store.open(NAMES[0]))
        wait_for_threads(store)
        assert len(opened_below(tmp_path)) == ahead._AHEAD
    store.expect([])
    wait_for_threads(store)
    assert opened_below(tmp_path) == []


def test_missing_object_and_one_that_cannot_be_read_are_the_caller_s_to_handle(
    store: AheadDirectory, tmp_path: Path
) -> None:
    (tmp_path / "store/v1/packs/fifo").parent.mkdir(exist_ok=True)
    os.mkfifo(tmp_path / "store/v1/packs/fifo")
    store.expect(["v1/packs/missing", "v1/packs/fifo", NAMES[0]])
    assert store.open("v1/packs/missing") is None
    with pytest.raises(StoreError, match="not a regular file"):
        store.open("v1/packs/fifo")
    assert read(store.open(NAMES[0]))


def test_without_threads_objects_are_opened_one_by_one(store: AheadDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(ahead, "start_new_thread", refuse)
    store.expect(NAMES)
    assert [read(store.open(name)) for name in NAMES] == [name.encode() * 10 for name in NAMES]


@pytest.mark.parametrize("size", [0, 1, 256 * 1024, 256 * 1024 + 1, 3 * 256 * 1024])
def test_every_range_of_an_object_is_what_lies_there(store: AheadDirectory, size: int) -> None:
    content = os.urandom(size)
    store.create("v1/packs/large", io.BytesIO(content))
    store.expect(["v1/packs/large"])
    reader = store.open("v1/packs/large")
    assert reader is not None
    with reader:
        for offset in {0, size // 3, max(size - 256 * 1024 - 1, 0), max(size - 10, 0)}:
            for length in {0, 1, 10, size // 2, size - offset}:
                if offset + length <= size:
                    expected = content[offset : offset + length]
                    assert bytes(reader.read_at(offset, length)) == expected
                    assert bytes(reader.reread_at(offset, length)) == expected
                    assert b"".join(reader.views_at(offset, length)) == expected
        with pytest.raises(StoreError):
            reader.read_at(0, size + 1)
