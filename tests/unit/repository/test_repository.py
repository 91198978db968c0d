"""The packs of one environment: which there are, and how one more is added."""

from __future__ import annotations

import io
import json
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from b10_transfer.concurrency.deadline import Deadline
from b10_transfer.environment import Environment
from b10_transfer.errors import CorruptPackError, DeadlineExceededError, StoreError, UnreadablePackError
from b10_transfer.repository.repository import ReadRepository, Repository
from b10_transfer.repository.union import Rejected
from b10_transfer.stores.base import ObjectReader
from b10_transfer.testing.memory import MemoryStore

if TYPE_CHECKING:
    from tests.conftest import Packs

UNIT = {"triton/KERNEL/": {"launcher.so": b"library"}}


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def repository(packs: Packs, store: MemoryStore) -> Repository:
    return packs.repository(store)


@pytest.fixture
def folder(packs: Packs) -> str:
    return f"v1/{packs.namespace}/{packs.environment.id}"


def publish(packs: Packs, repository: Repository, content: bytes = b"library") -> str:
    return repository.publish(io.BytesIO(packs.write({"triton/KERNEL/": {"launcher.so": content}})))


def content(store: MemoryStore, name: str) -> bytes:
    reader = store.open(name)
    assert reader is not None
    return bytes(reader.read_at(0, reader.size_bytes))


def test_empty_store_holds_nothing(repository: Repository) -> None:
    union = repository.union()
    assert (union.packs, union.rejected, dict(union.units)) == ((), (), {})


def test_published_pack_is_where_the_layout_says(
    packs: Packs, store: MemoryStore, repository: Repository, folder: str
) -> None:
    pack_id = publish(packs, repository)
    assert [info.name for info in store.list(f"{folder}/packs")] == [f"{folder}/packs/{pack_id}.tar.zst"]
    assert content(store, f"{folder}/packs/{pack_id}.tar.zst") == packs.write(UNIT)


def test_pack_is_published_from_its_beginning(packs: Packs, repository: Repository) -> None:
    spool = io.BytesIO(packs.write(UNIT))
    spool.seek(0, io.SEEK_END)
    repository.publish(spool)
    assert packs.read(repository) == {"triton/KERNEL/launcher.so": b"library"}


def test_later_pack_wins(packs: Packs, repository: Repository) -> None:
    for number in range(5):
        publish(packs, repository, b"%d" % number)
    assert packs.read(repository) == {"triton/KERNEL/launcher.so": b"4"}


@given(st.lists(st.integers(0, 1 << 47), min_size=1, max_size=10))
def test_each_pack_sorts_behind_those_before_it_whatever_the_clock_says(packs: Packs, times_ms: list[int]) -> None:
    repository = packs.repository()
    ids = []
    with pytest.MonkeyPatch.context() as patch:
        for time_ms in times_ms:
            patch.setattr(time, "time_ns", lambda time_ms=time_ms: time_ms * 1_000_000)
            ids.append(publish(packs, repository))
    assert ids == sorted(ids)
    assert [pack.id for pack in repository.union().packs] == ids


def id_at(seconds: float, tail: str = "0123456789abcdef") -> str:
    return f"{int(seconds * 1000):012x}-{tail}"


def test_pack_of_a_pod_whose_clock_is_hours_ahead_is_superseded(
    packs: Packs, store: MemoryStore, repository: Repository, folder: str
) -> None:
    future = id_at(time.time() + 11 * 3600)
    store.create(f"{folder}/packs/{future}.tar.zst", io.BytesIO(packs.write(UNIT)))
    pack_id = publish(packs, repository, b"newer")
    assert int(pack_id[:12], 16) == int(future[:12], 16) + 1
    assert packs.read(repository) == {"triton/KERNEL/launcher.so": b"newer"}


@pytest.mark.parametrize("ahead_s", [3600, 23 * 3600])
@pytest.mark.parametrize("content", [b"", b"rubbish"])
def test_id_of_a_pack_that_is_not_valid_does_not_move_the_order(
    packs: Packs, store: MemoryStore, repository: Repository, folder: str, content: bytes, ahead_s: float
) -> None:
    for number in range(3):
        name = id_at(time.time() + ahead_s, f"{number:016x}")
        store.create(f"{folder}/packs/{name}.tar.zst", io.BytesIO(content))
    before = id_at(time.time() - 1)
    assert before < publish(packs, repository) < id_at(time.time() + 60)


@pytest.mark.parametrize("first", ["ffffffffffff", "0fffffffffff", id_at(time.time() + 3 * 86400)[:12]], ids=range(3))
@pytest.mark.parametrize("is_sound", [True, False])
def test_id_more_than_a_day_ahead_does_not_move_the_order_and_is_named(
    packs: Packs,
    store: MemoryStore,
    repository: Repository,
    folder: str,
    first: str,
    is_sound: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    bogus = f"{first}-0123456789abcdef"
    store.create(f"{folder}/packs/{bogus}.tar.zst", io.BytesIO(packs.write(UNIT) if is_sound else b""))
    ids = [publish(packs, repository, b"%d" % number) for number in range(4)]
    assert ids == sorted(ids)
    assert ids[-1] < id_at(time.time() + 60)
    assert f"ignores those dated more than a day ahead of the store's clock: {bogus}" in caplog.text
    store.delete(f"{folder}/packs/{bogus}.tar.zst")
    assert packs.read(repository) == {"triton/KERNEL/launcher.so": b"3"}


def test_pack_that_cannot_be_read_just_now_may_be_valid_and_counts(
    packs: Packs, store: MemoryStore, repository: Repository, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    future = id_at(time.time() + 3600)
    store.create(f"{folder}/packs/{future}.tar.zst", io.BytesIO(packs.write(UNIT)))
    opened = store.open

    def fail(name: str) -> ObjectReader | None:
        if future in name:
            raise StoreError("open", name, "Input/output error")
        return opened(name)

    monkeypatch.setattr(store, "open", fail)
    assert publish(packs, repository) > future


@pytest.mark.parametrize("skew_s", [-10 * 365 * 86400, -2 * 86400, 2 * 86400, 50 * 365 * 86400])
def test_pod_whose_clock_is_days_off_publishes_by_the_stores(
    packs: Packs, repository: Repository, monkeypatch: pytest.MonkeyPatch, skew_s: int
) -> None:
    publish(packs, repository, b"before")
    now_ns = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now_ns + skew_s * 10**9)
    pack_id = publish(packs, repository, b"by the store's clock")
    assert id_at(time.time() - 60) < pack_id < id_at(time.time() + 60)
    assert packs.read(repository) == {"triton/KERNEL/launcher.so": b"by the store's clock"}


def test_save_after_another_does_not_ask_for_the_stores_clock(
    packs: Packs, store: MemoryStore, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a bucket that takes three requests."""
    publish(packs, repository)
    monkeypatch.setattr(store, "now", lambda: pytest.fail("it was asked"))
    publish(packs, repository)


def test_ids_of_equal_times_differ(packs: Packs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 10**18)
    assert publish(packs, packs.repository()) != publish(packs, packs.repository())


@pytest.mark.parametrize(
    "name",
    [
        "rubbish",
        "018bcfe56800-0123456789abcdef",
        "018bcfe56800-0123456789abcdef.tar.zst.tmp",
        "018BCFE56800-0123456789ABCDEF.tar.zst",
        "18bcfe56800-0123456789abcdef.tar.zst",
        "018bcfe56800-0123456789abcdef.tar.gz",
    ],
)
def test_other_objects_among_the_packs_are_passed_over(
    packs: Packs, store: MemoryStore, repository: Repository, folder: str, name: str
) -> None:
    store.create(f"{folder}/packs/{name}", io.BytesIO(b"rubbish"))
    pack_id = publish(packs, repository)
    union = repository.union()
    assert ([pack.id for pack in union.packs], union.rejected) == ([pack_id], ())


def test_environment_is_described_beside_its_packs(
    packs: Packs, store: MemoryStore, repository: Repository, folder: str
) -> None:
    publish(packs, repository)
    assert json.loads(content(store, f"{folder}/environment.json")) == {
        "id": packs.environment.id,
        "parts": dict(packs.environment.parts),
    }


@pytest.mark.parametrize("damaged", [b"", b"rubbish", b"{}"])
def test_damaged_description_is_written_anew(
    packs: Packs, store: MemoryStore, repository: Repository, folder: str, damaged: bytes
) -> None:
    store.create(f"{folder}/environment.json", io.BytesIO(damaged))
    publish(packs, repository)
    assert content(store, f"{folder}/environment.json") == packs.environment.to_json()


def test_description_that_cannot_be_written_is_no_obstacle(
    packs: Packs,
    store: MemoryStore,
    repository: Repository,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(_name: str) -> None:
        raise StoreError("open", "it", "Input/output error")

    monkeypatch.setattr(store, "open", fail)
    publish(packs, repository)
    assert "could not describe the environment" in caplog.text


def test_environments_and_namespaces_are_kept_apart(packs: Packs, store: MemoryStore, repository: Repository) -> None:
    publish(packs, repository)
    for namespace, environment in (("other", packs.environment), (packs.namespace, Environment({"torch": "2.12.0"}))):
        other = ReadRepository(store, namespace, environment, packs.limits, Deadline("load", 60))
        assert other.union().packs == ()


def test_pack_that_is_deleted_while_the_union_is_read_is_not_missed(
    packs: Packs, store: MemoryStore, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(packs, repository)
    monkeypatch.setattr(store, "open", lambda _name: None)
    union = repository.union()
    assert (union.packs, union.rejected) == ((), ())


def test_pack_that_is_deleted_before_its_files_are_read_is_unreadable(
    packs: Packs, store: MemoryStore, repository: Repository
) -> None:
    publish(packs, repository)
    [pack] = repository.union().packs
    store.delete(pack.name)
    with pytest.raises(UnreadablePackError, match="deleted while it was being read"), repository.opened(pack):
        pytest.fail("it was opened")


def test_pack_that_the_store_stops_delivering_while_its_files_are_read_is_unreadable(
    packs: Packs, store: MemoryStore, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pack that is deleted on an NFS server is an error at some read: ESTALE."""
    publish(packs, repository)
    [pack] = repository.union().packs

    def fail(_reader: object, _offset: int, _length: int) -> bytes:
        raise StoreError("read", "it", "Stale file handle")

    with pytest.raises(UnreadablePackError, match="Stale file handle") as raised, repository.opened(pack) as reader:
        monkeypatch.setattr(type(store.open(pack.name)), "read_at", fail)
        packs.contents(reader, pack.index, pack.index.units[0].members)
    assert isinstance(raised.value.__cause__, StoreError)


def test_store_that_cannot_be_listed_is_an_error(
    repository: Repository, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_folder: str) -> None:
        raise StoreError("list", "it", "Input/output error")

    monkeypatch.setattr(store, "list", fail)
    with pytest.raises(StoreError, match="Input/output error"):
        repository.union()


def test_pack_that_the_store_does_not_deliver_is_unreadable_and_not_corrupt(
    packs: Packs, store: MemoryStore, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(packs, repository)

    def fail(_name: str) -> ObjectReader | None:
        raise StoreError("read", "it", "Input/output error")

    monkeypatch.setattr(store, "open", fail)
    [rejected] = repository.union().rejected
    assert isinstance(rejected.error, UnreadablePackError)
    assert isinstance(rejected.error.__cause__, StoreError)


def test_pack_that_looks_damaged_is_opened_once_more(
    packs: Packs, store: MemoryStore, repository: Repository, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client of NFS may have cached a part of it."""
    pack_id = publish(packs, repository)
    stale = MemoryStore()
    stale.create(f"{folder}/packs/{pack_id}.tar.zst", io.BytesIO(b"stale"))
    opened = [stale.open, store.open]
    monkeypatch.setattr(store, "open", lambda name: opened.pop(0)(name))
    union = repository.union()
    assert ([pack.id for pack in union.packs], union.rejected) == ([pack_id], ())


def test_pack_that_was_set_aside_is_not_read_again(
    packs: Packs, store: MemoryStore, repository: Repository, folder: str
) -> None:
    pack_id = publish(packs, repository)
    repository.quarantine(Rejected(pack_id, CorruptPackError(pack_id, "it is truncated")))
    union = repository.union()
    assert (union.packs, union.rejected) == ((), ())
    assert store.open(f"{folder}/packs/{pack_id}.tar.zst") is not None
    assert json.loads(content(store, f"{folder}/quarantine/{pack_id}")) == {"pack": pack_id, "why": "it is truncated"}


def test_setting_aside_twice_is_no_error(packs: Packs, repository: Repository) -> None:
    rejected = Rejected("018bcfe56800-0123456789abcdef", CorruptPackError("018bcfe56800-0123456789abcdef", "why"))
    repository.quarantine(rejected)
    repository.quarantine(rejected)


def test_union_without_a_pack_falls_back_to_earlier_ones(packs: Packs, repository: Repository) -> None:
    first, second = publish(packs, repository, b"first"), publish(packs, repository, b"second")
    union = repository.union()
    error = CorruptPackError(second, "it is truncated")
    without = union.without(union.packs[1], error)
    assert [pack.id for pack, _unit in union.units.values()] == [second]
    assert [pack.id for pack, _unit in without.units.values()] == [first]
    assert without.rejected == (Rejected(second, error, frozenset({"triton/KERNEL"})),)


def test_nothing_is_read_or_published_behind_the_deadline(packs: Packs, store: MemoryStore) -> None:
    deadline = Deadline("save", 60)
    repository = Repository(store, packs.namespace, packs.environment, packs.limits, deadline)
    deadline.cancel()
    with pytest.raises(DeadlineExceededError, match="listing the packs in memory"):
        repository.union()
    with pytest.raises(DeadlineExceededError, match="publishing to memory"):
        repository.publish(io.BytesIO(packs.write(UNIT)))


def test_many_packs_are_read_in_order(packs: Packs, repository: Repository) -> None:
    ids = [publish(packs, repository) for _ in range(40)]
    assert [pack.id for pack in repository.union().packs] == ids


def test_listing_names_packs_that_are_set_aside_too(packs: Packs, repository: Repository) -> None:
    first, second = publish(packs, repository), publish(packs, repository, b"other")
    repository.quarantine(Rejected(first, CorruptPackError(first, "damaged")))
    assert list(repository.listing()) == [first, second]
    assert repository.look().set_aside == {first}


def test_description_names_the_parts_of_the_environment(packs: Packs, repository: Repository) -> None:
    assert repository.described_parts() is None
    publish(packs, repository)
    assert repository.described_parts() == dict(packs.environment.parts)


@pytest.mark.parametrize(
    "description",
    [b"", b"{", b"[]", b"[" * 100_000, b'{"parts": []}', b'{"id": "x", "parts": {"torch": "1"}}', bytes(1 << 20)],
    ids=lambda data: f"{data[:20]!r} {len(data)} bytes",
)
def test_damaged_description_counts_as_none(
    packs: Packs, store: MemoryStore, repository: Repository, folder: str, description: bytes
) -> None:
    store.create(f"{folder}/environment.json", io.BytesIO(description))
    assert repository.described_parts() is None


def test_nothing_is_left_of_an_environment_that_is_removed_but_its_leases(
    packs: Packs, store: MemoryStore, repository: Repository, folder: str
) -> None:
    pack_id = publish(packs, repository)
    repository.quarantine(Rejected(pack_id, CorruptPackError(pack_id, "damaged")))
    store.create(f"{folder}/leases/save-x.00000001", io.BytesIO(b""))
    store.create("v1/other/object", io.BytesIO(b""))
    repository.remove(repository.look(), description=True)
    assert [info.name for name in ("packs", "quarantine", "leases") for info in store.list(f"{folder}/{name}")] == [
        f"{folder}/leases/save-x.00000001"
    ]
    assert repository.described_parts() is None
    assert store.open("v1/other/object") is not None


def test_removing_an_environment_that_is_not_there_is_no_error(repository: Repository) -> None:
    repository.remove(repository.look(), description=True)
