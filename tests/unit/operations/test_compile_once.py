"""When a replica that waits for another to compile looks, and when it claims the lease: by a clock of the test."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest

from b10_transfer.operations import compile_once
from b10_transfer.operations.compile_once import Waiter
from b10_transfer.repository.repository import Repository
from b10_transfer.testing.memory import MemoryStore

if TYPE_CHECKING:
    from tests.conftest import Packs

TIMEOUT_S = 30


class Wait:
    """One waiter, whose clock is set by hand."""

    def __init__(self, repository: Repository, store: MemoryStore) -> None:
        self.now_s = 1000.0
        self.waiter = Waiter()
        self._repository = repository
        self._store = store

    def monotonic(self) -> float:
        return self.now_s

    def hold(self, generation: int) -> None:
        """Somebody has created this generation of the lease."""
        self._store.create(f"{self._repository.lease_folder}/compile.{generation:08d}", io.BytesIO(b"{}"))

    def release(self, generation: int) -> None:
        self._store.delete(f"{self._repository.lease_folder}/compile.{generation:08d}")

    def may_claim(self, after_s: float = 0.0) -> bool:
        self.now_s += after_s
        return self.waiter.may_claim(self._store, self._repository, TIMEOUT_S)


@pytest.fixture
def wait(packs: Packs, monkeypatch: pytest.MonkeyPatch) -> Wait:
    store = MemoryStore()
    found = Wait(packs.repository(store), store)
    monkeypatch.setattr(compile_once, "time", found)
    return found


def test_lease_is_claimed_at_first_whoever_seems_to_hold_it(wait: Wait) -> None:
    wait.hold(1)
    assert wait.may_claim()


def test_lease_that_is_renewed_is_not_claimed(wait: Wait) -> None:
    wait.hold(1)
    wait.may_claim()
    for generation in range(2, 8):
        wait.hold(generation)
        wait.release(generation - 1)
        assert not wait.may_claim(after_s=TIMEOUT_S)


def test_lease_that_is_not_renewed_for_its_timeout_is_claimed(wait: Wait) -> None:
    wait.hold(1)
    wait.may_claim()
    assert not wait.may_claim(after_s=TIMEOUT_S / 2)
    assert wait.may_claim(after_s=TIMEOUT_S / 2 + 1)


def test_lease_that_is_given_back_is_claimed(wait: Wait) -> None:
    wait.hold(1)
    wait.may_claim()
    wait.release(1)
    assert wait.may_claim(after_s=TIMEOUT_S / 2)


def test_waiter_rests_while_the_store_is_slow_and_for_a_while_after(wait: Wait) -> None:
    assert all(wait.waiter.pause_s(0.001) <= 1 for _ in range(10))
    assert wait.waiter.pause_s(1.6) >= 4
    assert wait.waiter.pause_s(0.001) >= 3.6
    assert min(wait.waiter.pause_s(0.001) for _ in range(50)) <= 1


def test_waiter_is_back_soon_after_a_single_look_that_took_long(wait: Wait) -> None:
    assert wait.waiter.pause_s(60.0) <= 10
