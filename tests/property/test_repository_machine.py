"""Saves, compactions and loads of one repository in any order: the union has the latest of each published unit."""

from __future__ import annotations

import io
import itertools
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from b10_transfer.concurrency.deadline import Deadline
from b10_transfer.config import Config
from b10_transfer.errors import CacheError
from b10_transfer.repository.compaction import own_repository, tidy
from b10_transfer.repository.union import Union
from b10_transfer.stores.base import Store
from b10_transfer.stores.directory import DirectoryStore
from b10_transfer.testing.memory import MemoryStore
from tests.mortal import WAYS, Death, Killed, MortalStore

if TYPE_CHECKING:
    from tests.conftest import Packs

UNITS = ["inductor/ne/one.", "inductor/wo/two.", "triton/THREE/", "triton/FOUR/"]
END = {".": "py", "/": "launcher.so"}
"""Of each kind of unit, what its file is called behind the unit's name."""
DEATHS = st.one_of(st.none(), st.tuples(st.integers(0, 30), st.sampled_from(WAYS)))
CONFIG = Config.from_environment({})
CONTENTS = st.dictionaries(st.sampled_from(UNITS), st.integers(0, 255), min_size=1)


class RepositoryMachine(RuleBasedStateMachine):
    """What was published is in ``published``, oldest first: the id and, of each unit, the content of its only file.

    Which objects hold it is in ``copies``: for each, the id of the pack that published each of its units.
    """

    ids = Bundle("ids")

    def __init__(self, packs: Packs, store: Store) -> None:
        super().__init__()
        self.packs = packs
        self.store = store
        self.pods = [packs.repository(store), packs.repository(store)]
        self.patch = pytest.MonkeyPatch()
        self.published: dict[str, dict[str, bytes]] = {}
        self.copies: dict[str, dict[str, str]] = {}
        self.damaged: set[str] = set()
        self.set_aside: set[str] = set()
        self.merges = 0

    def teardown(self) -> None:
        self.patch.undo()

    @initialize(target=ids, contents=st.lists(CONTENTS, max_size=4))
    def begin(self, contents: list[dict[str, int]]) -> MultipleResults[str]:
        return multiple(*(self.publish(0, content) for content in contents))

    @rule(now_s=st.integers(0, 4_000_000_000))
    def clock_jumps(self, now_s: int) -> None:
        """Pods need not agree about the time."""
        self.patch.setattr(time, "time_ns", lambda: now_s * 1_000_000_000)

    @rule(target=ids, pod=st.integers(0, 1), contents=CONTENTS)
    def save(self, pod: int, contents: dict[str, int]) -> str:
        return self.publish(pod, contents)

    def publish(self, pod: int, contents: dict[str, int]) -> str:
        files = {prefix: {END[prefix[-1]]: bytes([byte]) * 10} for prefix, byte in contents.items()}
        pack_id = self.pods[pod].publish(io.BytesIO(self.packs.write(files)))
        assert pack_id not in self.published
        self.published[pack_id] = {prefix[:-1]: content[END[prefix[-1]]] for prefix, content in files.items()}
        self.copies[pack_id] = dict.fromkeys(self.published[pack_id], pack_id)
        return pack_id

    @precondition(lambda self: len(self.copies) > 1)
    @rule(target=ids, pod=st.integers(0, 1), grace_s=st.sampled_from([0, 1_000_000_000]), death=DEATHS)
    def compact(self, pod: int, grace_s: int, death: Death) -> MultipleResults[str]:
        """It only moves units to other packs, even if it is killed."""
        before = self.latest()
        config = replace(CONFIG, max_packs=1, grace_s=grace_s)
        store, deadline = MortalStore(self.store, death), Deadline("test", 60)
        with suppress(Killed, CacheError):
            tidy(store, own_repository(store, config, self.packs.environment, deadline), config, deadline)
        objects = self.pods[pod].listing()
        for gone in [pack_id for pack_id in self.copies if pack_id not in objects]:
            del self.copies[gone]
            self.damaged.discard(gone)
            self.set_aside.discard(gone)
        merged = [pack for pack in self.pods[pod].union().packs if pack.id not in self.copies]
        for pack in merged:
            self.merges += 1
            self.copies[pack.id] = {unit.name: unit.origin for unit in pack.index.units}
        assert self.latest() == before
        return multiple(*(pack.id for pack in merged))

    @rule(pack_id=ids)
    def delete(self, pack_id: str) -> None:
        if pack_id in self.copies:
            self.store.delete(self.name_of(pack_id))
            del self.copies[pack_id]
            self.damaged.discard(pack_id)

    @rule(pack_id=ids)
    def prune(self, pack_id: str) -> None:
        if pack_id in self.copies:
            self.pods[0].prune(pack_id, "a test")
            self.set_aside.add(pack_id)

    @rule(pack_id=ids)
    def damage(self, pack_id: str) -> None:
        if pack_id in self.copies and pack_id not in self.damaged:
            reader = self.store.open(self.name_of(pack_id))
            assert reader is not None
            with reader:
                data = reader.read_at(0, reader.size_bytes - 1)
            self.store.delete(self.name_of(pack_id))
            self.store.create(self.name_of(pack_id), io.BytesIO(data))
            self.damaged.add(pack_id)

    @rule(pod=st.integers(0, 1))
    def set_damaged_packs_aside(self, pod: int) -> None:
        for rejected in self.pods[pod].union(verify_frames=True).rejected:
            self.pods[pod].quarantine(rejected)
            self.set_aside.add(rejected.id)

    def latest(self) -> dict[str, str]:
        """For each unit, the pack that published what a load gets."""
        found: dict[str, str] = {}
        for pack_id, origins in self.copies.items():
            if pack_id not in self.damaged | self.set_aside:
                for name, origin in origins.items():
                    found[name] = max(origin, found.get(name, ""))
        return found

    @invariant()
    def union_is_what_was_published(self) -> None:
        expected = {f"{name}{self.file(name)}": self.published[origin][name] for name, origin in self.latest().items()}
        for repository in self.pods:
            assert self.packs.read(repository) == expected

    @invariant()
    def damaged_packs_are_rejected_until_they_are_set_aside(self) -> None:
        rejected = {pack.id for pack in self.pods[0].union().rejected}
        assert rejected == self.damaged - self.set_aside

    @invariant()
    def every_unit_comes_from_its_latest_publication(self) -> None:
        units = self.pods[1].union().units
        assert {name: pack.origin(unit) for name, (pack, unit) in units.items()} == self.latest()

    @invariant()
    def what_is_superseded_is_held_by_a_pack_that_is_not(self) -> None:
        union = self.pods[0].union()
        without = Union(tuple(pack for pack in union.packs if pack.id not in union.superseded), (), union.recalled)
        assert {name: pack.origin(unit) for name, (pack, unit) in without.units.items()} == self.latest()

    def name_of(self, pack_id: str) -> str:
        return f"v1/{self.packs.namespace}/{self.packs.environment.id}/packs/{pack_id}.tar.zst"

    def file(self, name: str) -> str:
        """The rest of a file's name after the name of its unit."""
        return next(prefix[-1] + END[prefix[-1]] for prefix in UNITS if prefix[:-1] == name)


def test_union_equals_the_published_units_in_memory(packs: Packs) -> None:
    merges = []

    class Machine(RepositoryMachine):
        def __init__(self) -> None:
            super().__init__(packs, MemoryStore())

        def teardown(self) -> None:
            super().teardown()
            merges.append(self.merges)

    run_state_machine_as_test(Machine, settings=settings(max_examples=40, stateful_step_count=20))
    assert sum(merges) > 20, "hardly anything was merged"


def test_union_equals_the_published_units_in_a_directory(packs: Packs, tmp_path: Path) -> None:
    numbers = itertools.count()

    class Machine(RepositoryMachine):
        def __init__(self) -> None:
            super().__init__(packs, DirectoryStore(tmp_path / f"store {next(numbers)}"))

    run_state_machine_as_test(Machine, settings=settings(max_examples=8, stateful_step_count=10))
