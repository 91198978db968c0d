"""Operations are killed at any call of the store: acknowledged packs stay, and others are complete.

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
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from b10_transfer.concurrency.deadline import Deadline
from b10_transfer.config import Config
from b10_transfer.errors import CacheError, CorruptPackError
from b10_transfer.maintenance import prune as pruning
from b10_transfer.repository.compaction import own_repository, tidy
from b10_transfer.repository.union import Pack, Rejected
from b10_transfer.stores.base import Store
from b10_transfer.stores.directory import DirectoryStore
from b10_transfer.stores.leases import try_acquire
from b10_transfer.testing.memory import MemoryStore
from tests.mortal import DEATHS, WAYS, Death, Killed, MortalStore

if TYPE_CHECKING:
    from tests.conftest import Packs

UNITS = ["inductor/ne/one.", "inductor/wo/two.", "triton/THREE/", "triton/FOUR/"]
END = {".": "py", "/": "launcher.so"}
"""Of each kind of unit, what its file is called behind the unit's name."""
CONTENTS = st.dictionaries(st.sampled_from(UNITS), st.integers(0, 255), min_size=1)
TIMEOUT_S = 30.0

WHICH = st.integers(0, 10)
LATER_DEATHS = st.one_of(st.none(), st.tuples(st.integers(0, 20), st.sampled_from(WAYS)))
"""For operations that make many calls."""
NEVER_S = 1_000_000_000
GRACE_S = st.sampled_from([0, NEVER_S])


class CrashMachine(RuleBasedStateMachine):
    """``published`` is the content of every publication, ``objects`` the publication that each file of a pack is from.

    A pack without one of the ``marks`` counts. What an operation that died may or may not have done is in ``may_come``,
    ``may_change`` and ``may_go`` until the store is looked at next; from then on it must stay as it was seen.
    """

    def __init__(self, packs: Packs, store: Store, age: Callable[[float], None]) -> None:
        super().__init__()
        self.packs = packs
        self.store = store
        self.age = age
        self.published: dict[str, dict[str, bytes]] = {}
        self.objects: dict[str, dict[str, str]] = {}
        self.marks: set[str] = set()
        """Names of the objects that mark packs: ``quarantine/ID``, ``quarantine/ID.pruned``, ``recalled/ID``."""
        self.may_come: list[dict[str, bytes]] = []
        self.may_change: set[str] = set()
        self.may_go: set[str] = set()
        self.died = 0
        self.merges = 0
        self.calls = 0
        """How many calls the last operation came to."""

    def attempt(self, death: Death, operate: Callable[[Store], object]) -> bool:
        """Whether an operation of a pod completed and reported it."""
        store = MortalStore(self.store, death)
        try:
            operate(store)
        except (Killed, CacheError):
            self.died += 1
            return False
        finally:
            self.calls = store.calls
        return True

    @initialize(contents=st.lists(CONTENTS, min_size=2, max_size=5))
    def begin(self, contents: list[dict[str, int]]) -> None:
        for content in contents:
            self.publish(content, None)

    def counting(self) -> set[str]:
        return {pack_id for pack_id in self.objects if self.marks.isdisjoint(marks_of(pack_id))}

    def pruned(self) -> set[str]:
        return {pack_id for pack_id in self.objects if f"quarantine/{pack_id}.pruned" in self.marks}

    def some_pack(self, which: int, ids: set[str]) -> str | None:
        return sorted(ids)[which % len(ids)] if ids else None

    @rule(contents=CONTENTS, death=DEATHS)
    def publish(self, contents: dict[str, int], death: Death) -> None:
        files = {prefix: {END[prefix[-1]]: bytes([byte]) * 10} for prefix, byte in contents.items()}
        content = {f"{prefix}{END[prefix[-1]]}": content[END[prefix[-1]]] for prefix, content in files.items()}
        ids: list[str] = []
        pack = io.BytesIO(self.packs.write(files))
        if self.attempt(death, lambda store: ids.append(self.packs.repository(store).publish(pack))):
            assert ids[0] > max(self.objects, default="")
            self.add(ids[0], content)
            assert self.packs.repository(self.store).described_parts() is not None or death is not None
        else:
            self.may_come.append(content)

    def add(self, pack_id: str, content: dict[str, bytes]) -> None:
        assert pack_id not in self.published
        self.published[pack_id] = content
        self.objects[pack_id] = dict.fromkeys(content, pack_id)

    @rule(which=WHICH, death=DEATHS, how=st.sampled_from(["quarantine", "recall"]))
    def put_aside(self, which: int, death: Death, how: str) -> None:
        pack_id = self.some_pack(which, self.counting())
        if pack_id is None:
            return

        def operate(store: Store) -> None:
            repository = self.packs.repository(store)
            if how == "recall":
                repository.recall(pack_id, "a test")
            else:
                repository.quarantine(Rejected(pack_id, CorruptPackError(pack_id, "a test")))

        if self.attempt(death, operate):
            self.marks.add(f"recalled/{pack_id}" if how == "recall" else f"quarantine/{pack_id}")
        else:
            self.may_change.add(pack_id)

    @rule(which=WHICH, death=DEATHS)
    def reinstate(self, which: int, death: Death) -> None:
        pack_id = self.some_pack(which, set(self.objects) - self.counting())
        if pack_id is None:
            return
        if self.attempt(death, lambda store: self.packs.repository(store).reinstate(pack_id)):
            self.marks -= marks_of(pack_id)
        else:
            self.may_change.add(pack_id)

    @precondition(lambda self: len(self.objects) > 4)
    @rule(death=DEATHS)
    def remove(self, death: Death) -> None:
        self.may_go |= self.objects.keys()

        def remove(store: Store) -> None:
            repository = self.packs.repository(store)
            repository.remove(repository.look(), description=True)

        if self.attempt(death, remove):
            assert self.packs.repository(self.store).listing() == {}

    @precondition(lambda self: len(self.counting()) > 1)
    @rule(grace_s=GRACE_S, death=LATER_DEATHS)
    def compact(self, grace_s: int, death: Death) -> None:
        """It only moves units to other packs, and deletes pruned packs."""
        self.may_go |= self.pruned()
        before = self.latest()
        self.attempt(death, lambda store: compact(self.packs, store, grace_s))
        self.look()
        assert self.latest() == before

    @precondition(lambda self: len(self.objects) > 1)
    @rule(keep=st.integers(0, 3), grace_s=GRACE_S, death=LATER_DEATHS)
    def prune(self, keep: int, grace_s: int, death: Death) -> None:
        """Selected packs are ignored, then deleted; other packs are deleted only if another pack holds their units."""
        named = {pack.pack for pack in prune(self.store, keep, NEVER_S, pretend=True) if pack.action == pruning.MARK}
        # Where the store refuses to read a merged pack, the rule applies to those that were merged into it.
        named |= self.packs.repository(self.store).union().superseded.keys()
        done: list[str] = []
        is_done = self.attempt(death, lambda store: done.extend(one.pack for one in prune(store, keep, grace_s)))
        marked = named & set(done) if is_done else named
        self.may_change |= marked
        self.may_go |= marked | self.pruned()
        self.look()
        assert not is_done or self.counting().isdisjoint(done)

    @rule(death=DEATHS, is_released=st.booleans())
    def hold_a_lease(self, death: Death, is_released: bool) -> None:
        folder = self.packs.repository(self.store).lease_folder
        store = MortalStore(self.store, death)
        with suppress(Killed, CacheError):
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
    def look(self) -> None:
        """The store holds the acknowledged packs, and complete packs of killed operations."""
        repository = self.packs.repository(self.store)
        listed = set(repository.listing())
        union = repository.union(verify_frames=True)
        assert union.rejected == ()
        for pack in union.packs:
            with repository.opened(pack) as reader:
                members = [member for unit in pack.index.units for member in unit.members]
                self.account_for(pack, self.packs.contents(reader, pack.index, members))
        gone = {pack_id: self.objects.pop(pack_id) for pack_id in self.objects.keys() - listed}
        self.compare_marks()
        assert {pack.id for pack in union.packs} == self.counting()
        latest = self.latest()
        for pack_id, origins in gone.items():
            is_held = all(latest.get(path, "") >= origin for path, origin in origins.items())
            assert pack_id in self.may_go or is_held, f"{pack_id} was acknowledged, and is lost"
        self.may_come, self.may_change, self.may_go = [], set(), set()
        expected = {path: self.published[origin][path] for path, origin in latest.items()}
        assert self.packs.read(repository) == expected, "a later publication did not win"

    def account_for(self, pack: Pack, content: dict[str, bytes]) -> None:
        """A pack is unchanged, or of a killed operation, or merged from published packs."""
        origins = {member.path: pack.origin(unit) for unit in pack.index.units for member in unit.members}
        if pack.id not in self.objects and pack.is_merged:
            self.merges += 1
            self.objects[pack.id] = origins
        elif pack.id not in self.objects:
            assert content in self.may_come, f"{pack.id} was published by nobody"
            self.may_come.remove(content)
            self.add(pack.id, content)
        assert self.objects[pack.id] == origins
        assert content == {path: self.published[origin][path] for path, origin in origins.items()}

    def compare_marks(self) -> None:
        """Packs have the same marks as before, unless an operation was killed."""
        place = f"v1/{self.packs.namespace}/{self.packs.environment.id}"
        found = {info.name for folder in ("quarantine", "recalled") for info in self.store.list(f"{place}/{folder}")}
        marks = {name.removeprefix(f"{place}/") for name in found}
        published = {origin for origins in self.objects.values() for origin in origins.values()}
        for pack_id in (self.objects.keys() | published) - self.may_change:
            ours = marks_of(pack_id)
            if pack_id not in self.objects:  # only a recall says something of what has been merged
                ours = {f"recalled/{pack_id}"}
            assert marks & ours == self.marks & ours, f"{pack_id} was set aside by nobody, or is back"
        self.marks = marks

    def latest(self) -> dict[str, str]:
        """For each file, the publication of which a load gets it."""
        found: dict[str, str] = {}
        for pack_id in self.counting():
            for path, origin in self.objects[pack_id].items():
                if f"recalled/{origin}" not in self.marks:
                    found[path] = max(origin, found.get(path, ""))
        return found


def marks_of(pack_id: str) -> set[str]:
    return {f"quarantine/{pack_id}", f"quarantine/{pack_id}.pruned", f"recalled/{pack_id}"}


def compact(packs: Packs, store: Store, grace_s: int = 0) -> None:
    config = replace(Config.from_environment({}), max_packs=1, grace_s=grace_s)
    deadline = Deadline("compact", 60)
    tidy(store, own_repository(store, config, packs.environment, deadline), config, deadline)


def prune(store: Store, keep: int, grace_s: int = 0, *, pretend: bool = False) -> tuple[pruning.PrunedPack, ...]:
    """As an operator does who wants to keep some packs only. Raises CacheError if anything was left undone."""
    config = replace(Config.from_environment({}), grace_s=grace_s)
    rules = pruning.Rules(keep=keep)
    done = pruning.prune(store, config, Deadline("prune", 60), rules, pretend=pretend)
    if done.errors:
        raise CacheError(*done.errors)
    return done.packs


def test_store_in_memory_survives_the_death_of_its_users(packs: Packs) -> None:
    deaths, merges = [], []

    class Machine(CrashMachine):
        def __init__(self) -> None:
            self.now_s = 1_000_000.0
            super().__init__(packs, MemoryStore(lambda: self.now_s), self.pass_time)

        def pass_time(self, seconds: float) -> None:
            self.now_s += seconds

        def teardown(self) -> None:
            deaths.append(self.died)
            merges.append(self.merges)

    run_state_machine_as_test(Machine, settings=settings(max_examples=40, stateful_step_count=25))
    assert sum(deaths) > 40, "hardly anybody died"
    assert sum(merges) > 5, "hardly anything was merged"


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

    run_state_machine_as_test(Machine, settings=settings(max_examples=10, stateful_step_count=15))
    assert sum(deaths) > 4, "hardly anybody died"


OPERATIONS: dict[str, Callable[[CrashMachine, Death], object]] = {
    "publish": lambda machine, death: machine.publish(contents={UNITS[0]: 9, UNITS[3]: 9}, death=death),
    "quarantine": lambda machine, death: machine.put_aside(which=0, death=death, how="quarantine"),
    "recall": lambda machine, death: machine.put_aside(which=1, death=death, how="recall"),
    "reinstate": lambda machine, death: machine.reinstate(which=1, death=death),
    "remove": lambda machine, death: machine.remove(death=death),
    "compact": lambda machine, death: machine.compact(grace_s=0, death=death),
    "prune": lambda machine, death: machine.prune(keep=1, grace_s=0, death=death),
    "lease": lambda machine, death: machine.hold_a_lease(death=death, is_released=True),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_operation_may_die_at_each_of_its_calls(packs: Packs, operation: str, way: str) -> None:
    """After any kill, the same operation completes."""
    for number in range(100):
        clock = itertools.count(1_000_000)
        machine = CrashMachine(packs, MemoryStore(lambda clock=clock: next(clock)), lambda _seconds: None)  # type: ignore[misc]
        for byte in range(4):
            machine.publish(contents={UNITS[byte % 3]: byte, UNITS[3]: byte}, death=None)
        machine.put_aside(which=0, death=None, how="quarantine")
        machine.put_aside(which=2, death=None, how="recall")
        OPERATIONS[operation](machine, (number, way))
        machine.look()
        calls = machine.calls
        OPERATIONS[operation](machine, None)
        machine.look()
        if calls <= number:  # it was over before it could die
            assert number > 0
            return
    raise AssertionError("it never came to its end")


@pytest.mark.parametrize("way", WAYS)
def test_compaction_may_die_at_each_of_its_calls(packs: Packs, way: str) -> None:
    """It merges, and deletes superseded and pruned packs; the next one completes it."""
    for number in range(200):
        below = MemoryStore()
        repository = packs.repository(below)
        ids = [
            repository.publish(io.BytesIO(packs.write({unit: {END[unit[-1]]: b"%d" % index}})))
            for index, unit in enumerate([UNITS[0], UNITS[0], UNITS[1], UNITS[2]])
        ]
        compact(packs, below, grace_s=1000)
        ids.append(repository.publish(io.BytesIO(packs.write({UNITS[3]: {END["/"]: b"new"}}))))
        ids.append(repository.publish(io.BytesIO(packs.write({UNITS[0]: {END["."]: b"pruned"}}))))
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
