"""What every store must do: the promises of ``stores.base``, checked through its own methods alone."""

from __future__ import annotations

import errno
import io
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from b10_transfer.concurrency.deadline import Deadline
from b10_transfer.errors import StoreError
from b10_transfer.stores.base import Store
from b10_transfer.stores.directory import DirectoryStore
from b10_transfer.stores.tiered import TieredStore
from b10_transfer.stores.worker import client as worker
from b10_transfer.stores.worker.client import bucket_store, directory_store
from b10_transfer.testing.memory import MemoryStore

OUTSIDE_THE_RULE = [
    "",
    ".",
    "..",
    "/",
    "/etc/passwd",
    "a/../b",
    "../a",
    "a/..",
    "a//b",
    "a/",
    "a/./b",
    "-a",
    "a/-b",
    "a b",
    "a\\b",
    "a\n",
    "a\0",
    "ä",
    "٣",
]


class Unreliable(io.BytesIO):
    """A source that gives its content byte by byte, and then an error instead of an end."""

    def __init__(self, content: bytes, error: BaseException) -> None:
        super().__init__(content)
        self._error = error

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(1)
        if not data or size is None or size < 0:
            raise self._error
        return data


def refuse_links(*_: object, **__: object) -> None:
    raise OSError(errno.EPERM, os.strerror(errno.EPERM))


BUCKET = os.environ.get("B10_TEST_BUCKET")
"""URL of a real bucket, where there is one: ``make test-s3``, which tests nothing else."""
STORES = [
    "directory",
    "directory without hard links",
    "directory behind a worker process",
    "directory behind a cache of the node",
    "memory",
]


@pytest.fixture(params=["bucket"] if BUCKET else STORES)
def opened(
    request: pytest.FixtureRequest, store_place: Path, monkeypatch: pytest.MonkeyPatch, deadline: Deadline
) -> Iterator[Callable[[], Store]]:
    """Opens one and the same store, each time as if by another client."""
    path, memory = store_place / "store", MemoryStore()
    url = f"{BUCKET}/{secrets.token_hex(8)}"
    if request.param == "directory without hard links":
        monkeypatch.setattr(os, "link", refuse_links)
    monkeypatch.setattr(worker, "is_local", lambda path: False)
    with ExitStack() as cleanup:

        def open_store() -> Store:
            if request.param == "memory":
                return memory
            if request.param == "directory behind a cache of the node":
                return TieredStore(DirectoryStore(path), store_place / "node", deadline)
            if request.param == "bucket":
                return cleanup.enter_context(bucket_store(url, deadline=deadline))
            if request.param == "directory behind a worker process":
                return cleanup.enter_context(directory_store(path, make_parents=False, deadline=deadline))
            return DirectoryStore(path)

        yield open_store


@pytest.fixture
def store(opened: Callable[[], Store]) -> Store:
    return opened()


@pytest.fixture
def same_store(opened: Callable[[], Store]) -> Store:
    """The same store, as another client has it open."""
    return opened()


def create(store: Store, name: str, data: bytes = b"content") -> bool:
    return store.create(name, io.BytesIO(data))


def content(store: Store, name: str) -> bytes | None:
    reader = store.open(name)
    if reader is None:
        return None
    with reader:
        return bytes(reader.read_at(0, reader.size_bytes))


def names(store: Store, folder: str) -> list[str]:
    return [info.name for info in store.list(folder)]


@pytest.mark.parametrize("data", [b"", b"x", bytes(range(256)) * 40_000], ids=["empty", "one byte", "10 MB"])
def test_created_object_reads_back_whole(store: Store, data: bytes) -> None:
    assert create(store, "v1/a/object", data)
    assert content(store, "v1/a/object") == data


def test_create_publishes_what_its_source_holds_from_its_position_on(store: Store) -> None:
    source = io.BytesIO(b"skipped, published")
    source.seek(9)
    store.create("a/object", source)
    assert content(store, "a/object") == b"published"


def test_create_never_replaces(store: Store) -> None:
    assert create(store, "a/object", b"first")
    assert not create(store, "a/object", b"second")
    assert content(store, "a/object") == b"first"


def test_delete_makes_room_for_another_of_the_same_name(store: Store) -> None:
    create(store, "a/object", b"first")
    assert store.delete("a/object")
    assert content(store, "a/object") is None
    assert create(store, "a/object", b"second")
    assert content(store, "a/object") == b"second"


def test_open_answers_none_for_what_is_not_there(store: Store) -> None:
    assert store.open("a/object") is None
    create(store, "a/object")
    assert store.open("a/other") is None
    assert store.open("b/object") is None


def test_list_is_empty_for_a_folder_that_is_not_there(store: Store) -> None:
    assert store.list("a") == []
    create(store, "a/object")
    assert store.list("b") == []


def test_delete_answers_false_for_what_is_not_there(store: Store) -> None:
    assert not store.delete("a/object")
    create(store, "a/object")
    store.delete("a/object")
    assert not store.delete("a/object")


@pytest.mark.parametrize("name", OUTSIDE_THE_RULE)
def test_names_outside_the_rule_are_refused(store: Store, name: str) -> None:
    attempts: list[Callable[[], object]] = [
        lambda: create(store, name),
        lambda: store.open(name),
        lambda: store.delete(name),
        lambda: store.list(name),
    ]
    for attempt in attempts:
        with pytest.raises(StoreError, match="not a relative name of plain characters"):
            attempt()


def test_list_is_sorted_by_name(store: Store) -> None:
    for name in ("a/c", "a/B", "a/a.10", "a/a.9", "a/.hidden", "a/0"):
        create(store, name)
    assert names(store, "a") == ["a/.hidden", "a/0", "a/B", "a/a.10", "a/a.9", "a/c"]


def test_list_shows_only_what_is_directly_below_the_folder(store: Store) -> None:
    for name in ("a/b/object", "a/b/deeper/object", "a/bb/object", "a/object"):
        create(store, name)
    assert names(store, "a/b") == ["a/b/object"]


def test_list_each_is_the_list_of_each_folder(store: Store) -> None:
    for name in ("v1/a/x/2", "v1/a/x/1", "v1/a/x/deeper/3", "v1/a/y/4", "v1/a/z/5", "v1/a/6"):
        create(store, name)
    folders = ["v1/a/y", "v1/a/x", "v1/a/none"]
    listed = [[(info.name, info.size_bytes, info.modified_s) for info in found] for found in store.list_each(folders)]
    assert listed == [
        [(info.name, info.size_bytes, info.modified_s) for info in store.list(folder)] for folder in folders
    ]
    assert [len(found) for found in listed] == [1, 2, 0]


def test_list_tells_sizes(store: Store) -> None:
    create(store, "a/empty", b"")
    create(store, "a/three", b"123")
    assert [info.size_bytes for info in store.list("a")] == [0, 3]


def test_list_does_not_show_what_is_still_being_created(store: Store, same_store: Store) -> None:
    seen: list[list[str]] = []

    class Watching(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            seen.append(names(same_store, "a"))
            return super().read(size)

    store.create("a/object", Watching(b"content"))
    assert seen
    assert not any(seen)
    assert names(store, "a") == ["a/object"]


@pytest.mark.parametrize(("offset", "length"), [(0, 0), (0, 10), (3, 4), (9, 1), (10, 0)])
def test_read_at_gives_exactly_what_was_asked_for(store: Store, offset: int, length: int) -> None:
    create(store, "a/object", b"0123456789")
    reader = store.open("a/object")
    assert reader is not None
    with reader:
        assert reader.read_at(offset, length) == b"0123456789"[offset : offset + length]


@pytest.mark.parametrize(("offset", "length"), [(0, 11), (9, 2), (10, 1), (100, 1)])
def test_read_at_is_an_error_where_the_object_ends_too_early(store: Store, offset: int, length: int) -> None:
    create(store, "a/object", b"0123456789")
    reader = store.open("a/object")
    assert reader is not None
    with reader, pytest.raises(StoreError, match="it ends at byte"):
        reader.read_at(offset, length)


def test_what_is_lent_is_what_is_read(store: Store) -> None:
    data = os.urandom(9_000_000)
    create(store, "a/object", data)
    reader = store.open("a/object")
    assert reader is not None
    with reader:
        for _ in range(6):  # more often than there may be room for at once, and one larger than any room
            for start, length in ((0, 2_000_000), (1_999_999, 3), (1_000_000, 4_000_000), (0, 9_000_000), (5, 0)):
                with reader.borrow_at(start, length) as lent, reader.borrow_at(start, length) as again:
                    assert bytes(lent) == bytes(again) == data[start : start + length]


def test_what_is_lent_stays_as_it_is_until_it_is_given_back(store: Store) -> None:
    data = os.urandom(3_000_000)
    create(store, "a/object", data)
    reader = store.open("a/object")
    assert reader is not None
    with reader, ExitStack() as loans:
        lent = [loans.enter_context(reader.borrow_at(start, 100_000)) for start in range(0, 2_900_000, 100_000)]
        assert b"".join(lent) == data[:2_900_000]


def test_open_reader_knows_the_size(store: Store) -> None:
    create(store, "a/object", b"12345")
    reader = store.open("a/object")
    assert reader is not None
    assert reader.size_bytes == 5
    reader.close()


def test_reader_may_be_closed_twice(store: Store) -> None:
    create(store, "a/object")
    reader = store.open("a/object")
    assert reader is not None
    reader.close()
    reader.close()
    assert content(store, "a/object") == b"content"


def test_one_of_sixteen_racing_creators_wins(store: Store) -> None:
    everyone_is_ready = threading.Barrier(16)
    winners: list[int] = []
    errors: list[BaseException] = []

    def race(number: int) -> None:
        everyone_is_ready.wait()
        try:
            if create(store, "a/prize", bytes([number]) * 100_000):
                winners.append(number)
        except BaseException as error:  # noqa: BLE001 - shown by the assertion below
            errors.append(error)

    threads = [threading.Thread(target=race, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(winners) == 1
    assert content(store, "a/prize") == bytes([winners[0]]) * 100_000


def test_creators_of_different_names_do_not_hinder_each_other(store: Store, same_store: Store) -> None:
    taken: list[bool] = []

    class Interrupting(io.BytesIO):
        """Another creator comes and goes while this one is at work."""

        def read(self, size: int | None = -1, /) -> bytes:
            if not taken:
                taken.append(create(same_store, "b/object", b"other"))
            return super().read(size)

    assert store.create("a/object", Interrupting(b"content"))
    assert taken == [True]
    assert content(store, "b/object") == b"other"


def test_new_object_is_as_young_as_the_stores_clock_says(store: Store) -> None:
    before = store.now()
    create(store, "a/object")
    after = store.now()
    [info] = store.list("a")
    # File systems stamp files with the time of the last timer tick, some milliseconds ago.
    assert before - 0.1 <= info.modified_s <= after + 0.1


def test_stores_clock_does_not_stand_still(store: Store) -> None:
    first = store.now()
    time.sleep(1.05 if store.location.startswith("az:") else 0.05)  # Azure's shows whole seconds
    assert store.now() > first


@pytest.mark.parametrize("error", [ValueError("changed"), OSError(errno.EIO, "no luck"), KeyboardInterrupt()], ids=repr)
def test_nothing_is_created_from_a_source_that_fails_midway(store: Store, error: BaseException) -> None:
    with pytest.raises((type(error), StoreError)):
        store.create("a/object", Unreliable(b"half", error))
    assert store.list("a") == []
    assert store.open("a/object") is None
    assert create(store, "a/object", b"whole")
    assert content(store, "a/object") == b"whole"


def test_object_is_never_taken_for_abandoned(store: Store) -> None:
    create(store, "a/object")
    assert store.remove_abandoned(-1000) == 0
    assert content(store, "a/object") == b"content"


def test_what_one_client_creates_another_sees_at_once(store: Store, same_store: Store) -> None:
    assert same_store.open("a/object") is None
    create(store, "a/object")
    assert names(same_store, "a") == ["a/object"]
    assert content(same_store, "a/object") == b"content"
    assert not create(same_store, "a/object")
    assert same_store.delete("a/object")
    assert store.open("a/object") is None


def test_several_readers_are_open_at_once(store: Store) -> None:
    for name in ("a/one", "a/two"):
        create(store, name, name.encode())
    one, two = store.open("a/one"), store.open("a/two")
    assert one is not None
    assert two is not None
    with one, two:
        assert (one.read_at(0, 5), two.read_at(0, 5)) == (b"a/one", b"a/two")


def test_error_leaves_the_store_usable(store: Store) -> None:
    create(store, "a/object")
    for _ in range(3):
        with pytest.raises(StoreError):
            store.open("../object")
        with pytest.raises(StoreError):
            create(store, "../object", bytes(5_000_000))
        with pytest.raises(ValueError, match="changed"):
            store.create("a/other", Unreliable(b"half", ValueError("changed")))
        assert content(store, "a/object") == b"content"


def test_store_says_where_it_is(store: Store) -> None:
    assert store.location


def test_folders_are_those_with_objects_at_any_depth_below_them(store: Store, same_store: Store) -> None:
    for name in ("v1/two/deep/deeper/object", "v1/one/object", "v1/object", "v2/other/object"):
        create(store, name)
    assert same_store.folders("v1") == ["v1/one", "v1/two"]
    assert same_store.folders("v1/two") == ["v1/two/deep"]
    assert same_store.folders("v1/one") == []


def test_store_without_objects_has_no_folders(store: Store) -> None:
    assert store.folders("v1") == []


@pytest.mark.parametrize("name", OUTSIDE_THE_RULE, ids=repr)
def test_folders_of_a_name_outside_the_rule_are_refused(store: Store, name: str) -> None:
    with pytest.raises(StoreError):
        store.folders(name)


def test_store_that_holds_an_object_exists(store: Store) -> None:
    create(store, "a/object")
    facts = store.facts()
    assert facts.exists
    assert facts.free_bytes is None or facts.free_bytes > 0


def test_worker_without_shared_memory_sends_what_it_reads(
    store_place: Path, monkeypatch: pytest.MonkeyPatch, deadline: Deadline
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(os, "memfd_create", refuse)
    monkeypatch.setattr(worker, "is_local", lambda path: False)
    with directory_store(store_place / "store", make_parents=False, deadline=deadline) as store:
        create(store, "a/object", b"content")
        reader = store.open("a/object")
        assert reader is not None
        with reader, reader.borrow_at(0, 7) as lent:
            assert bytes(lent) == b"content"
