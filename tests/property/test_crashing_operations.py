"""Operations that die at any call of the store: what was acknowledged is there, and else only whole packs of the dead.

A pod that dies makes no further call. Its store's calls end before or behind what they do, or with an error of the
store's; in the middle of a call only a real process can die (``tests/concurrency/test_kills.py``).
"""

from __future__ import annotations

import io
import itertools
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from b10_transfer.compaction import own_repository, tidy
from b10_transfer.config import Config
from b10_transfer.deadline import Deadline
from b10_transfer.errors import CacheError, CorruptPackError, StoreError
from b10_transfer.leases import try_acquire
from b10_transfer.repository import Repository
from b10_transfer.stores.base import Store
from b10_transfer.stores.directory import DirectoryStore
from b10_transfer.stores.memory import MemoryStore
from b10_transfer.union import Rejected
from tests.mortal import DEATHS, WAYS, Death, Killed, MortalStore

if TYPE_CHECKING:
    from tests.conftest import Packs

UNITS = ["inductor/aa/one.", "inductor/aa/two.", "triton/THREE/", "triton/FOUR/"]
CONTENTS = st.dictionaries(st.sampled_from(UNITS), st.integers(0, 255), min_size=1)
TIMEOUT_S = 30.0

WHICH = st.integers(0, 10)


class CrashMachine(RuleBasedStateMachine):
    """``packs_there`` is what the union must hold, ``set_aside`` what must stay out of it: the content of each pack.

    What an operation that died may or may not have done is in ``may_come`` and ``may_change`` until the union is looked
    at next; from then on it must stay as it was seen.
    """

    def __init__(self, packs: Packs, store: Store, age: Callable[[float], None]) -> None:
        super().__init__()
        self.packs = packs
        self.store = store
        self.age = age
        self.packs_there: dict[str, dict[str, bytes]] = {}
        self.set_aside: dict[str, dict[str, bytes]] = {}
        self.removed: set[str] = set()
        self.may_come: list[dict[str, bytes]] = []
        self.may_change: set[str] = set()
        self.may_go: set[str] = set()
        self.died = 0
        self.calls = 0
        """How many calls the last operation came to."""

    def attempt(self, death: Death, operate: Callable[[Repository], object]) -> bool:
        """Whether an operation of a pod came to its end and says so."""
        store = MortalStore(self.store, death)
        try:
            operate(self.packs.repository(store))
        except (Killed, StoreError):
            self.died += 1
            return False
        finally:
            self.calls = store.calls
        return True

    def some_pack(self, which: int, ids: set[str]) -> str | None:
        return sorted(ids)[which % len(ids)] if ids else None

    @rule(contents=CONTENTS, death=DEATHS)
    def publish(self, contents: dict[str, int], death: Death) -> None:
        files = {prefix: {"file": bytes([byte]) * 10} for prefix, byte in contents.items()}
        content = {f"{prefix}file": content["file"] for prefix, content in files.items()}
        ids: list[str] = []
        pack = io.BytesIO(self.packs.write(files))
        if self.attempt(death, lambda repository: ids.append(repository.publish(pack))):
            assert ids[0] > max(self.packs_there, default="")
            self.packs_there[ids[0]] = content
            assert self.packs.repository(self.store).described_parts() is not None or death is not None
        else:
            self.may_come.append(content)

    @rule(which=WHICH, death=DEATHS, how=st.sampled_from(["quarantine", "recall"]))
    def put_aside(self, which: int, death: Death, how: str) -> None:
        pack_id = self.some_pack(which, set(self.packs_there))
        if pack_id is None:
            return

        def operate(repository: Repository) -> None:
            if how == "recall":
                repository.recall(pack_id, "a test")
            else:
                repository.quarantine(Rejected(pack_id, CorruptPackError(pack_id, "a test")))

        if self.attempt(death, operate):
            self.set_aside[pack_id] = self.packs_there.pop(pack_id)
        else:
            self.may_change.add(pack_id)

    @rule(which=WHICH, death=DEATHS)
    def reinstate(self, which: int, death: Death) -> None:
        pack_id = self.some_pack(which, set(self.set_aside))
        if pack_id is None:
            return
        if self.attempt(death, lambda repository: repository.reinstate(pack_id)):
            self.packs_there[pack_id] = self.set_aside.pop(pack_id)
        else:
            self.may_change.add(pack_id)

    @rule(death=DEATHS)
    def remove(self, death: Death) -> None:
        if self.attempt(death, lambda repository: repository.remove()):
            self.removed |= {*self.packs_there, *self.set_aside}
            self.packs_there, self.set_aside = {}, {}
        else:
            self.may_go |= {*self.packs_there, *self.set_aside}

    @rule(death=DEATHS, is_released=st.booleans())
    def hold_a_lease(self, death: Death, is_released: bool) -> None:
        folder = self.packs.repository(self.store).lease_folder
        store = MortalStore(self.store, death)
        with suppress(Killed, StoreError):
            lease = try_acquire(store, folder, ["save-a", "save-b"], TIMEOUT_S)
            if lease is not None and is_released:
                lease.release()
            elif lease is not None:
                lease._released.set()  # dies with the lease in hand
        self.calls = store.calls

    @rule()
    def time_passes_and_a_lease_is_to_be_had(self) -> None:
        """Nobody waits for ever for the dead, and nothing of theirs stays."""
        self.age(2 * TIMEOUT_S + 1)
        folder = self.packs.repository(self.store).lease_folder
        lease = try_acquire(self.store, folder, ["save-a"], TIMEOUT_S)
        assert lease is not None
        assert len(self.store.list(folder)) == 1
        lease.release()
        assert self.store.list(folder) == []

    @invariant()
    def union_is_what_was_acknowledged_and_whole_packs_of_the_dead(self) -> None:
        repository = self.packs.repository(self.store)
        union = repository.union(verify_frames=True)
        assert union.rejected == ()
        found = {pack.id for pack in union.packs}
        for pack in union.packs:
            with repository.opened(pack) as reader:
                members = [member for unit in pack.index.units for member in unit.members]
                self.account_for(pack.id, self.packs.contents(reader, pack.index, members))
        for pack_id in set(self.packs_there) - found:
            assert pack_id in self.may_change | self.may_go, f"{pack_id} was acknowledged, and is lost"
            self.set_aside[pack_id] = self.packs_there.pop(pack_id)
        for pack_id in set(self.set_aside) - set(repository.listing()):
            assert pack_id in self.may_go, f"{pack_id} was set aside, and is gone"
            self.removed.add(pack_id)
            del self.set_aside[pack_id]
        self.may_come, self.may_change, self.may_go = [], set(), set()
        expected: dict[str, bytes] = {}
        for pack_id in sorted(self.packs_there):
            expected |= self.packs_there[pack_id]
        assert self.packs.read(repository) == expected, "a later publication did not win"

    def account_for(self, pack_id: str, content: dict[str, bytes]) -> None:
        if pack_id in self.packs_there:
            assert self.packs_there[pack_id] == content
        elif pack_id in self.set_aside:
            assert pack_id in self.may_change, f"{pack_id} had been set aside, and is back"
            assert self.set_aside[pack_id] == content
            self.packs_there[pack_id] = self.set_aside.pop(pack_id)
        else:
            assert pack_id not in self.removed
            assert content in self.may_come, f"{pack_id} was published by nobody"
            self.may_come.remove(content)
            self.packs_there[pack_id] = content


def test_store_in_memory_survives_the_death_of_its_users(packs: Packs) -> None:
    deaths = []

    class Machine(CrashMachine):
        def __init__(self) -> None:
            self.now_s = 1_000_000.0
            super().__init__(packs, MemoryStore(lambda: self.now_s), self.pass_time)

        def pass_time(self, seconds: float) -> None:
            self.now_s += seconds

        def teardown(self) -> None:
            deaths.append(self.died)

    run_state_machine_as_test(Machine, settings=settings(max_examples=60, stateful_step_count=25))
    assert sum(deaths) > 100, "hardly anybody died"


def test_directory_survives_the_death_of_its_users(packs: Packs, tmp_path: Path) -> None:
    numbers = itertools.count()
    deaths = []

    class Machine(CrashMachine):
        def __init__(self) -> None:
            self.path = tmp_path / f"store {next(numbers)}"
            super().__init__(packs, DirectoryStore(self.path), self.pass_time)

        def pass_time(self, seconds: float) -> None:
            for path in self.path.rglob("*"):
                if path.is_file():
                    status = path.stat()
                    os.utime(path, (status.st_atime, status.st_mtime - seconds))

        def teardown(self) -> None:
            deaths.append(self.died)
            assert list(self.path.glob(".staging/*")) == []

    run_state_machine_as_test(Machine, settings=settings(max_examples=15, stateful_step_count=15))
    assert sum(deaths) > 15, "hardly anybody died"


OPERATIONS: dict[str, Callable[[CrashMachine, Death], object]] = {
    "publish": lambda machine, death: machine.publish(contents={UNITS[0]: 9, UNITS[3]: 9}, death=death),
    "quarantine": lambda machine, death: machine.put_aside(which=0, death=death, how="quarantine"),
    "recall": lambda machine, death: machine.put_aside(which=1, death=death, how="recall"),
    "reinstate": lambda machine, death: machine.reinstate(which=1, death=death),
    "remove": lambda machine, death: machine.remove(death=death),
    "lease": lambda machine, death: machine.hold_a_lease(death=death, is_released=True),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_operation_may_die_at_each_of_its_calls(packs: Packs, operation: str, way: str) -> None:
    """And whatever died, the same operation then comes to its end."""
    for number in range(100):
        clock = itertools.count(1_000_000)
        machine = CrashMachine(packs, MemoryStore(lambda clock=clock: next(clock)), lambda _seconds: None)  # type: ignore[misc]
        for byte in range(4):
            machine.publish(contents={UNITS[byte % 3]: byte, UNITS[3]: byte}, death=None)
        machine.put_aside(which=0, death=None, how="quarantine")
        machine.put_aside(which=2, death=None, how="recall")
        OPERATIONS[operation](machine, (number, way))
        machine.union_is_what_was_acknowledged_and_whole_packs_of_the_dead()
        calls = machine.calls
        OPERATIONS[operation](machine, None)
        machine.union_is_what_was_acknowledged_and_whole_packs_of_the_dead()
        if calls <= number:  # it was over before it could die
            assert number > 0
            return
    raise AssertionError("it never came to its end")


def compact(packs: Packs, store: Store, grace_s: int = 0) -> None:
    config = replace(Config.from_environment({}), max_packs=1, grace_s=grace_s)
    deadline = Deadline("compact", 60)
    tidy(store, own_repository(store, config, packs.environment, deadline), config, deadline)


@pytest.mark.parametrize("way", WAYS)
def test_compaction_may_die_at_each_of_its_calls(packs: Packs, way: str) -> None:
    """It merges, and deletes what was merged before and what was pruned; the next one brings it to its end."""
    for number in range(200):
        below = MemoryStore()
        repository = packs.repository(below)
        ids = [
            repository.publish(io.BytesIO(packs.write({unit: {"file": b"%d" % index}})))
            for index, unit in enumerate([UNITS[0], UNITS[0], UNITS[1], UNITS[2]])
        ]
        compact(packs, below, grace_s=1000)
        ids.append(repository.publish(io.BytesIO(packs.write({UNITS[3]: {"file": b"new"}}))))
        ids.append(repository.publish(io.BytesIO(packs.write({UNITS[0]: {"file": b"pruned"}}))))
        repository.prune(ids[-1], "a test")
        expected = packs.read(repository)
        assert len(expected) == 4
        mortal = MortalStore(below, (number, way))
        with suppress(Killed, CacheError):
            compact(packs, mortal)
        assert packs.read(repository) == expected
        for _ in range(2):
            compact(packs, below)
            assert packs.read(repository) == expected
        assert len(repository.listing()) == 1
        assert repository.look().set_aside == set()
        if mortal.calls <= number:
            assert number > 20
            return
    raise AssertionError("it never came to its end")
