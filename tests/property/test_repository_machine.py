"""Savers and loaders at one repository, in any order: the union is what was published, the latest pack wins by unit."""

from __future__ import annotations

import io
import itertools
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from b10_transfer.pack import PackUnit
from b10_transfer.stores.base import Store
from b10_transfer.stores.directory import DirectoryStore
from b10_transfer.stores.memory import MemoryStore

if TYPE_CHECKING:
    from tests.conftest import Packs

UNITS = ["inductor/aa/one.", "inductor/aa/two.", "triton/THREE/", "triton/FOUR/"]
CONTENTS = st.dictionaries(st.sampled_from(UNITS), st.integers(0, 255), min_size=1)


class RepositoryMachine(RuleBasedStateMachine):
    """What is published is in ``published``, oldest first: the id and, of each unit, the content of its only file."""

    ids = Bundle("ids")

    def __init__(self, packs: Packs, store: Store) -> None:
        super().__init__()
        self.packs = packs
        self.store = store
        self.pods = [packs.repository(store), packs.repository(store)]
        self.patch = pytest.MonkeyPatch()
        self.published: dict[str, dict[str, bytes]] = {}
        self.damaged: set[str] = set()
        self.quarantined: set[str] = set()

    def teardown(self) -> None:
        self.patch.undo()

    @rule(now_s=st.integers(0, 4_000_000_000))
    def clock_jumps(self, now_s: int) -> None:
        """Pods need not agree about the time."""
        self.patch.setattr(time, "time_ns", lambda: now_s * 1_000_000_000)

    @rule(target=ids, pod=st.integers(0, 1), contents=CONTENTS)
    def save(self, pod: int, contents: dict[str, int]) -> str:
        files = {prefix: {"file": bytes([byte]) * 10} for prefix, byte in contents.items()}
        pack_id = self.pods[pod].publish(io.BytesIO(self.packs.write(files)))
        assert pack_id not in self.published
        self.published[pack_id] = {f"{prefix}file": content["file"] for prefix, content in files.items()}
        return pack_id

    @rule(pack_id=ids)
    def delete(self, pack_id: str) -> None:
        if pack_id in self.published:
            self.store.delete(self.name_of(pack_id))
            self.forget(pack_id)

    @rule(pack_id=ids)
    def damage(self, pack_id: str) -> None:
        if pack_id in self.published and pack_id not in self.damaged:
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
            self.quarantined.add(rejected.id)

    @invariant()
    def union_is_what_was_published(self) -> None:
        expected: dict[str, bytes] = {}
        for pack_id, files in self.published.items():
            if pack_id not in self.damaged:
                expected |= files
        for repository in self.pods:
            assert self.packs.read(repository) == expected

    @invariant()
    def damaged_packs_are_rejected_until_they_are_set_aside(self) -> None:
        rejected = {pack.id for pack in self.pods[0].union().rejected}
        assert rejected == self.damaged - self.quarantined

    @invariant()
    def every_unit_comes_from_the_latest_pack_that_holds_it(self) -> None:
        latest = {
            unit_of(path): pack_id
            for pack_id, files in self.published.items()
            if pack_id not in self.damaged
            for path in files
        }
        found: dict[str, tuple[str, PackUnit]] = {
            name: (pack.id, unit) for name, (pack, unit) in self.pods[1].union().units.items()
        }
        assert {name: pack_id for name, (pack_id, _unit) in found.items()} == latest

    def forget(self, pack_id: str) -> None:
        del self.published[pack_id]
        self.damaged.discard(pack_id)

    def name_of(self, pack_id: str) -> str:
        return f"v1/{self.packs.namespace}/{self.packs.environment.id}/packs/{pack_id}.tar.zst"


def unit_of(path: str) -> str:
    return next(prefix[:-1] for prefix in UNITS if path.startswith(prefix))


def test_union_is_what_was_published_to_a_store_in_memory(packs: Packs) -> None:
    class Machine(RepositoryMachine):
        def __init__(self) -> None:
            super().__init__(packs, MemoryStore())

    run_state_machine_as_test(Machine, settings=settings(max_examples=30, stateful_step_count=15))


def test_union_is_what_was_published_to_a_directory(packs: Packs, tmp_path: Path) -> None:
    numbers = itertools.count()

    class Machine(RepositoryMachine):
        def __init__(self) -> None:
            super().__init__(packs, DirectoryStore(tmp_path / f"store {next(numbers)}"))

    run_state_machine_as_test(Machine, settings=settings(max_examples=8, stateful_step_count=10))
