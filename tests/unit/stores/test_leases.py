"""Leases on a store in memory, whose clock the tests turn."""

from __future__ import annotations

import io
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from b10_transfer.concurrency.deadline import Deadline
from b10_transfer.errors import DeadlineExceededError, StoreError
from b10_transfer.stores.base import Store
from b10_transfer.stores.leases import Lease, held, try_acquire
from b10_transfer.testing.memory import MemoryStore

FOLDER = "v1/leases"
TIMEOUT_S = 30.0


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_000_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> MemoryStore:
    return MemoryStore(clock)


@pytest.fixture
def acquire(store: MemoryStore) -> Iterator[Callable[..., Lease | None]]:
    """Tries to get a lease; what was got is released at the end."""
    got: list[Lease] = []

    def try_one(*names: str, timeout_s: float = TIMEOUT_S) -> Lease | None:
        lease = try_acquire(store, FOLDER, names or ("save",), timeout_s)
        if lease is not None:
            got.append(lease)
        return lease

    yield try_one
    for lease in got:
        lease.release()


Acquire = Callable[..., Lease | None]


def leave(store: Store, name: str) -> None:
    """What a holder leaves behind that dies."""
    assert store.create(f"{FOLDER}/{name}", io.BytesIO(b"{}"))


def names(store: Store) -> list[str]:
    return [info.name.removeprefix(f"{FOLDER}/") for info in store.list(FOLDER)]


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_lease_has_one_holder_at_a_time(acquire: Acquire) -> None:
    lease = acquire()
    assert lease is not None
    assert acquire() is None
    lease.release()
    assert acquire() is not None


def test_different_leases_do_not_hinder_each_other(acquire: Acquire) -> None:
    assert acquire("one") is not None
    assert acquire("two") is not None


def test_any_free_lease_of_several_will_do(acquire: Acquire) -> None:
    slots = ["slot-00", "slot-01", "slot-02"]
    assert None not in [acquire(*slots) for _ in slots]
    assert acquire(*slots) is None


def test_released_lease_leaves_nothing(store: MemoryStore, acquire: Acquire) -> None:
    lease = acquire()
    assert lease is not None
    assert names(store) == ["save.00000001"]
    lease.release()
    assert names(store) == []


def test_lease_tells_people_who_holds_it(store: MemoryStore, acquire: Acquire) -> None:
    acquire()
    reader = store.open(f"{FOLDER}/save.00000001")
    assert reader is not None
    assert json.loads(reader.read_at(0, reader.size_bytes))["pid"] == os.getpid()


def test_of_racing_claimants_one_gets_the_lease(store: MemoryStore) -> None:
    ready = threading.Barrier(8)
    got: list[Lease | None] = []

    def claim() -> None:
        ready.wait()
        got.append(try_acquire(store, FOLDER, ["save"], TIMEOUT_S))

    threads = [threading.Thread(target=claim) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    [lease] = [lease for lease in got if lease is not None]
    lease.release()


def test_dead_holder_is_replaced_once_the_timeout_is_over(store: MemoryStore, clock: Clock, acquire: Acquire) -> None:
    leave(store, "save.00000004")
    clock.now_s += TIMEOUT_S
    assert acquire() is None
    clock.now_s += 1
    assert acquire() is not None
    assert names(store) == ["save.00000005"]


def test_latest_generation_tells_whether_the_holder_lives(store: MemoryStore, clock: Clock, acquire: Acquire) -> None:
    leave(store, "save.00000009")
    clock.now_s += TIMEOUT_S + 1
    leave(store, "save.00000010")
    assert acquire() is None


def test_clock_that_was_set_back_makes_no_lease_live_for_ever(
    store: MemoryStore, clock: Clock, acquire: Acquire
) -> None:
    """A file server may come back with another time; and anybody may plant a lease with a time to come."""
    leave(store, "save.00000001")
    clock.now_s -= 86400
    assert acquire() is not None


def test_holder_renews_its_lease(store: MemoryStore, acquire: Acquire) -> None:
    lease = acquire(timeout_s=0.15)
    assert lease is not None
    wait_until(lambda: names(store) == ["save.00000003"])
    assert acquire(timeout_s=0.15) is None
    lease.release()
    wait_until(lambda: names(store) == [])


def test_holder_that_was_taken_for_dead_leaves_the_new_holder_alone(store: MemoryStore, acquire: Acquire) -> None:
    lease = acquire(timeout_s=0.15)
    assert lease is not None
    wait_until(lambda: names(store) == ["save.00000002"])
    generation = 3
    while not store.create(f"{FOLDER}/save.{generation:08d}", io.BytesIO(b"{}")):
        generation += 1
    lease.release()
    wait_until(lambda: names(store) == [f"save.{generation:08d}"])


def test_renewals_go_through_a_connection_of_their_own(store: MemoryStore) -> None:
    opened: list[Store] = []

    @contextmanager
    def renewing() -> Iterator[Store]:
        opened.append(store)
        yield store

    lease = try_acquire(store, FOLDER, ["save"], 0.15, renewing)
    assert lease is not None
    assert opened == []
    wait_until(lambda: names(store) == ["save.00000002"])
    lease.release()
    assert opened == [store]


def test_lease_that_nobody_remembers_is_deleted_by_who_comes_past(
    store: MemoryStore, clock: Clock, acquire: Acquire
) -> None:
    leave(store, "save-0123.00000001")
    leave(store, f"doctor-{0:016x}")
    clock.now_s += TIMEOUT_S + 1
    leave(store, "save-4567.00000001")
    acquire()
    assert names(store) == ["doctor-0000000000000000", "save-0123.00000001", "save-4567.00000001", "save.00000001"]
    clock.now_s += TIMEOUT_S
    acquire("other")
    assert names(store) == ["other.00000001", "save-4567.00000001", "save.00000001"]


def test_lease_whose_time_is_to_come_is_forgotten_too(store: MemoryStore, clock: Clock, acquire: Acquire) -> None:
    """Of a file server that had another time once; or somebody planted it."""
    leave(store, "save-0123.00000001")
    clock.now_s -= 86400
    acquire()
    assert names(store) == ["save.00000001"]


def test_slots_of_dead_savers_are_deleted_though_another_slot_is_taken(
    store: MemoryStore, clock: Clock, acquire: Acquire
) -> None:
    slots = [f"slot-{number:02d}" for number in range(50)]
    for slot in slots:
        leave(store, f"{slot}.00000001")
    clock.now_s += 2 * TIMEOUT_S + 1
    assert acquire(*slots) is not None
    assert [name.partition(".")[2] for name in names(store)] == ["00000002"]


def test_waiting_for_nobody_is_not_waiting(store: MemoryStore, deadline: Deadline) -> None:
    with held(store, FOLDER, ["save"], TIMEOUT_S, deadline, "waiting"):
        assert names(store) == ["save.00000001"]
    assert names(store) == []


def test_who_waited_gets_the_lease_in_the_end(store: MemoryStore, deadline: Deadline) -> None:
    lease = try_acquire(store, FOLDER, ["save"], TIMEOUT_S)
    assert lease is not None
    threading.Timer(0.1, lease.release).start()
    with held(store, FOLDER, ["save"], TIMEOUT_S, deadline, "waiting"):
        assert len(store.list(FOLDER)) == 1


def test_wait_takes_a_part_of_the_deadline_and_then_the_work_goes_on_without_a_lease(
    store: MemoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    """Somebody may keep creating fresh leases for ever."""
    slots = [f"slot-{number:02d}" for number in range(50)]
    for slot in slots:
        leave(store, f"{slot}.00000001")
    deadline = Deadline("save", 2)
    with (
        caplog.at_level("INFO", "b10_transfer"),
        held(store, FOLDER, slots, TIMEOUT_S, deadline, "waiting while others save"),
    ):
        assert deadline.remaining_s > 1, "most of the deadline is left for the work"
    assert "continuing without a lease after waiting while others save" in caplog.text


def test_deadline_that_passes_while_waiting_says_what_for(store: MemoryStore, acquire: Acquire) -> None:
    acquire()
    deadline = Deadline("save", 60)
    deadline.cancel()
    waiting = held(store, FOLDER, ["save"], TIMEOUT_S, deadline, "waiting while another replica saves the same")
    with pytest.raises(DeadlineExceededError, match="while waiting while another replica saves the same"), waiting:
        pytest.fail("it was not free")


@pytest.mark.parametrize("planted", [["save.99999999"], ["save.99999999", "save.100000000"], ["save.100000000"]])
def test_generation_that_nobody_reaches_does_not_end_a_lease(
    store: MemoryStore, clock: Clock, acquire: Acquire, planted: list[str]
) -> None:
    for name in planted:
        leave(store, name)
    clock.now_s += TIMEOUT_S + 1
    lease = acquire()
    assert lease is not None
    assert acquire() is None
    lease.release()
    assert acquire() is not None


@pytest.mark.parametrize("name", ["rubbish", "id_rsa", "config.json", "A.00000001", "a.b.00000001", "save.000001"])
def test_object_of_another_form_is_never_deleted(store: MemoryStore, clock: Clock, acquire: Acquire, name: str) -> None:
    leave(store, name)
    clock.now_s += 100 * TIMEOUT_S
    acquire()
    assert name in names(store)


def test_dead_lease_that_cannot_be_deleted_keeps_nobody_from_the_lease(
    store: MemoryStore, clock: Clock, acquire: Acquire, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(name: str) -> bool:
        raise StoreError("delete", name, "Operation not permitted")

    leave(store, "save.00000001")
    clock.now_s += TIMEOUT_S + 1
    monkeypatch.setattr(store, "delete", refuse)
    assert acquire() is not None


def test_lease_is_released_after_an_error(store: MemoryStore, deadline: Deadline) -> None:
    with pytest.raises(ValueError, match="no luck"), held(store, FOLDER, ["save"], TIMEOUT_S, deadline, "waiting"):
        raise ValueError("no luck")
    assert names(store) == []


def test_release_that_fails_is_no_error(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_name: str) -> bool:
        raise StoreError("delete", "it", "Input/output error")

    lease = try_acquire(store, FOLDER, ["save"], TIMEOUT_S)
    assert lease is not None
    monkeypatch.setattr(store, "delete", fail)
    lease.release()
    assert names(store) == ["save.00000001"]


def test_lease_is_renewed_through_a_store_of_its_own(store: MemoryStore) -> None:
    """The holder's own store may be busy with a pack, or closed, by the time a renewal is due."""
    opened = threading.Event()

    @contextmanager
    def renewing() -> Iterator[Store]:
        opened.set()
        yield store

    with held(store, FOLDER, ["save"], 0.0, Deadline("save", 60), "waiting", renewing=renewing):
        assert opened.wait(60)


@pytest.mark.parametrize("answer", ["list", "now"])
def test_lease_that_is_renewed_while_a_slow_store_answers_a_claimant_is_not_broken(
    store: MemoryStore, clock: Clock, monkeypatch: pytest.MonkeyPatch, answer: str
) -> None:
    leave(store, "save.00000003")
    monkeypatch.setattr(time, "monotonic", clock)
    tell = getattr(store, answer)

    def late(*arguments: str) -> object:
        for generation in (4, 5, 6):
            clock.now_s += TIMEOUT_S / 2 + 1
            leave(store, f"save.{generation:08d}")
            store.delete(f"{FOLDER}/save.{generation - 1:08d}")
        monkeypatch.setattr(store, answer, tell)
        return tell(*arguments)

    monkeypatch.setattr(store, answer, late)
    assert try_acquire(store, FOLDER, ["save"], TIMEOUT_S) is None
    assert names(store) == ["save.00000006"]


def test_lease_that_another_got_and_renewed_while_a_slow_store_created_it_is_not_held(
    store: MemoryStore, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "monotonic", clock)
    create = store.create

    def create_late(name: str, source: io.BytesIO) -> bool:
        clock.now_s += TIMEOUT_S
        create(f"{FOLDER}/save.00000002", io.BytesIO(b"{}"))
        return create(name, source)

    monkeypatch.setattr(store, "create", create_late)
    assert try_acquire(store, FOLDER, ["save"], TIMEOUT_S) is None
    assert names(store) == ["save.00000002"]
