"""What a store that does not do as it should is found out by."""

from __future__ import annotations

import errno
import io
import os
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from b10_transfer.concurrency.deadline import Deadline
from b10_transfer.errors import DeadlineExceededError, ReadOnlyStoreError, StoreError
from b10_transfer.inspection.checks import Check, State
from b10_transfer.inspection.probing import PROBES, probe_store
from b10_transfer.stores.base import ObjectInfo, StoreFacts
from b10_transfer.testing.memory import MemoryStore

if TYPE_CHECKING:
    from b10_transfer.stores.base import Source

MIB = 1024 * 1024


def probe(store: MemoryStore, *, read_only: bool = False) -> dict[str, Check]:
    found = list(probe_store(store, store, 64 * MIB, Deadline("test", 60), read_only=read_only))
    checks = {check.name: check for check in found}
    assert len(checks) == len(found)
    return checks


def test_sound_store_passes_and_nothing_is_left_in_it() -> None:
    store = MemoryStore()
    checks = probe(store)
    assert {check.state for check in checks.values()} == {State.OK}
    assert list(checks) == ["store", "write", "read", "listing", "exclusive create", "latency", "clock"]
    assert store.list(PROBES) == []


def test_read_only_pod_writes_nothing() -> None:
    class Untouchable(MemoryStore):
        def create(self, name: str, source: Source) -> bool:
            raise AssertionError("something was written")

        def now(self) -> float:
            raise AssertionError("something was written")

    checks = probe(Untouchable(), read_only=True)
    assert checks["write"].seen.startswith("B10_READ_ONLY=1")


def refusing(number: int, error: type[StoreError] = StoreError) -> MemoryStore:
    class Refusing(MemoryStore):
        def create(self, name: str, source: Source) -> bool:
            raise error("write", name, os.strerror(number))

        def delete(self, name: str) -> bool:
            raise error("delete", name, os.strerror(number))

    return Refusing()


def test_store_that_refuses_writes_is_a_warning_because_loads_work() -> None:
    checks = probe(refusing(errno.EACCES, ReadOnlyStoreError))
    assert checks["write"].state is State.WARNING
    assert "read-only for this pod" in checks["write"].seen
    assert list(checks) == ["store", "write"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_store_that_fails_writes_is_a_problem(number: int) -> None:
    check = probe(refusing(number))["write"]
    assert check.state is State.PROBLEM
    assert os.strerror(number) in check.seen
    assert check.advice


def test_store_that_lets_both_creators_win_is_a_problem() -> None:
    class Overwriting(MemoryStore):
        def create(self, name: str, source: Source) -> bool:
            self.delete(name)
            super().create(name, source)
            return True

    check = probe(Overwriting())["exclusive create"]
    assert check.state is State.PROBLEM
    assert "2 of two clients" in check.seen


def test_store_that_lists_late_is_a_warning() -> None:
    class Stale(MemoryStore):
        def list(self, folder: str) -> list[ObjectInfo]:
            return []

    check = probe(Stale())["listing"]
    assert check.state is State.WARNING
    assert "harmless" in check.advice


def test_store_that_loses_new_objects_is_a_problem() -> None:
    class Losing(MemoryStore):
        def create(self, name: str, source: Source) -> bool:
            return True

    assert probe(Losing())["read"].state is State.PROBLEM


def test_store_that_damages_data_is_a_problem() -> None:
    class Damaging(MemoryStore):
        def create(self, name: str, source: Source) -> bool:
            return super().create(name, io.BytesIO(bytes(len(source.read()))))

    check = probe(Damaging())["read"]
    assert check.state is State.PROBLEM
    assert "other bytes" in check.seen


@pytest.mark.parametrize(("ahead_s", "words"), [(3600, "3600 s ahead of"), (-3600, "3600 s behind")])
def test_clock_that_is_far_off_is_a_warning(ahead_s: float, words: str) -> None:
    check = probe(MemoryStore(clock=lambda: time.time() + ahead_s))["clock"]
    assert check.state is State.WARNING
    assert words in check.seen.replace("3599", "3600")


@pytest.mark.parametrize(("free_bytes", "state"), [(63 * MIB, State.WARNING), (64 * MIB, State.OK)])
def test_room_for_less_than_one_pack_is_a_warning(free_bytes: int, state: State) -> None:
    class Full(MemoryStore):
        def facts(self) -> StoreFacts:
            return StoreFacts(exists=True, free_bytes=free_bytes)

    assert probe(Full())["space"].state is state


def test_probe_that_cannot_be_removed_is_named() -> None:
    class Keeping(MemoryStore):
        def delete(self, name: str) -> bool:
            raise StoreError("delete", name, "no")

    check = probe(Keeping())["cleaning up"]
    assert check.state is State.WARNING
    assert f"memory/{PROBES}/doctor-" in check.seen


@pytest.mark.parametrize("method", ["facts", "folders", "list", "create", "open", "now"])
def test_store_that_hangs_costs_no_more_than_the_deadline(
    monkeypatch: pytest.MonkeyPatch, method: str, request: pytest.FixtureRequest
) -> None:
    """As a store at arm's length hangs: it raises when its deadline has passed."""
    store, deadline = MemoryStore(), Deadline("test", 0.2)
    original: Callable[..., object] = getattr(store, method)

    def hang(*arguments: object) -> object:
        if threading.current_thread() is threading.main_thread() and deadline.remaining_s:
            time.sleep(deadline.remaining_s)
        deadline.check()
        return original(*arguments)

    monkeypatch.setattr(store, method, hang)
    with pytest.raises(DeadlineExceededError):
        list(probe_store(store, store, MIB, deadline))
