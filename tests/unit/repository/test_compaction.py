"""Packs that have become many are merged, and what is superseded goes: a load gets the same before and after."""

from __future__ import annotations

import hashlib
import io
import logging
import secrets
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from b10_transfer import OperationStatus, load, save
from b10_transfer.concurrency.deadline import Deadline
from b10_transfer.config import Config
from b10_transfer.environment import detect
from b10_transfer.errors import CorruptPackError, StoreError
from b10_transfer.pack import Limits, packed_bytes_of
from b10_transfer.repository import compaction
from b10_transfer.repository.compaction import due, is_due, own_repository, sweep, tidy
from b10_transfer.repository.repository import Repository
from b10_transfer.repository.signing import SigningKey
from b10_transfer.repository.union import Pack, Rejected, Union
from b10_transfer.testing.memory import MemoryStore
from tests.command import Publisher

if TYPE_CHECKING:
    from tests.conftest import IsolatedEnv, Packs, ReadTree

GRACE_S = 3600
MOST = 3


class Store:
    """A store in memory with a clock of its own, and pods that use it."""

    def __init__(self, packs: Packs) -> None:
        self.now_s = 1_000_000.0
        self.packs = packs
        self.memory = MemoryStore(lambda: self.now_s)
        self.config = replace(
            Config.from_environment({"B10_MAX_PACKS": str(MOST), "B10_GRACE_SECONDS": str(GRACE_S)}),
            namespace=packs.namespace,
        )
        self.deadline = Deadline("test", 60)
        self.repository = self.packs.repository(self.memory)

    def publish(self, content: str, *names: str, signer: SigningKey | None = None) -> str:
        """Publish kernels, each with the same content; the pack's id."""
        units = {f"triton/{name}/": {"launcher.so": content.encode()} for name in names}
        return self.pod(signer).publish(io.BytesIO(self.packs.write(units)))

    def pod(self, signer: SigningKey | None = None) -> Repository:
        text = signer.private_text() if signer is not None else None
        config = replace(self.config, signing_key=text)
        return own_repository(self.memory, config, self.packs.environment, self.deadline)

    def tidy(self, signer: SigningKey | None = None) -> None:
        tidy(self.memory, self.pod(signer), self.config, self.deadline)

    def merged(self) -> Pack:
        [found] = [pack for pack in self.repository.union().packs if pack.is_merged]
        return found

    def ids(self) -> list[str]:
        return list(self.repository.listing())

    def read(self) -> dict[str, str]:
        """What a load gets: content by kernel."""
        found = self.packs.read(self.repository)
        return {path.split("/")[1]: data.decode() for path, data in found.items()}

    def is_due(self) -> bool:
        return is_due(self.memory, self.repository, self.repository.union(), self.config)


@pytest.fixture
def store(packs: Packs) -> Store:
    return Store(packs)


@pytest.fixture
def full(store: Store) -> Store:
    """A store that holds one pack too many: A was published twice."""
    for content, name in (("one", "A"), ("one", "B"), ("two", "A"), ("one", "C")):
        store.publish(content, name)
    return store


EXPECTED = {"A": "two", "B": "one", "C": "one"}


def test_few_packs_stay_as_they_are(store: Store) -> None:
    ids = [store.publish("one", str(number)) for number in range(MOST)]
    store.tidy()
    assert store.ids() == ids


def test_many_packs_become_one_that_holds_the_latest_of_each_unit(full: Store) -> None:
    ids = full.ids()
    assert full.is_due()
    full.tidy()
    merged = full.merged()
    assert full.ids() == [*ids, merged.id]
    assert {unit.name: unit.origin for unit in merged.index.units} == {
        "triton/A": ids[2],
        "triton/B": ids[1],
        "triton/C": ids[3],
    }
    assert set(full.repository.union().superseded) == set(ids)
    assert full.read() == EXPECTED


def test_superseded_packs_go_after_the_period_of_grace_and_not_before(full: Store) -> None:
    full.tidy()
    full.now_s += GRACE_S - 1
    assert not full.is_due()
    full.tidy()
    assert len(full.ids()) == MOST + 2
    full.now_s += 1
    assert full.is_due()
    full.tidy()
    assert full.ids() == [full.merged().id]
    assert full.read() == EXPECTED


def test_files_come_out_of_a_merged_pack_as_they_were_published(packs: Packs, store: Store) -> None:
    units = {
        "triton/KEY/": {"k.ttir": b"", "k.cubin": secrets.token_bytes(5_000_000), "k.ptx": b""},
        "inductor/ke/akey.": {"py": b"", "main.so": secrets.token_bytes(3000)},
    }
    store.repository.publish(io.BytesIO(packs.write(units, mode=0o755, mtime_ns=7)))
    for number in range(MOST):
        store.publish("other", f"K{number}")
    before = {unit.name: unit for pack in store.repository.union().packs for unit in pack.index.units}
    content = packs.read(store.repository)
    store.tidy()
    store.now_s += GRACE_S
    store.tidy()
    for unit in store.merged().index.units:
        assert [m._replace(offset=0) for m in unit.members] == [m._replace(offset=0) for m in before[unit.name].members]
    assert packs.read(store.repository) == content


def test_saver_that_began_before_a_merge_and_ends_behind_it_still_supersedes_what_is_older(
    full: Store, packs: Packs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its id says when it began."""
    ids = full.ids()
    late = f"{ids[1][:12]}-ffffffffffffffff"
    full.tidy()
    pack = io.BytesIO(packs.write({"triton/A/": {"launcher.so": b"late"}, "triton/B/": {"launcher.so": b"late"}}))
    monkeypatch.setattr(full.repository, "_new_id", lambda: late)
    full.repository.publish(pack)
    assert full.read() == {"A": "two", "B": "late", "C": "one"}
    full.now_s += GRACE_S
    full.tidy()
    assert full.read() == {"A": "two", "B": "late", "C": "one"}


def test_what_is_published_after_a_merge_supersedes_it(full: Store) -> None:
    full.tidy()
    later = full.publish("three", "A")
    assert later > full.merged().id
    assert full.read() == EXPECTED | {"A": "three"}


def test_merged_packs_are_merged_again(full: Store) -> None:
    for number in range(4 * MOST):
        full.now_s += GRACE_S
        full.publish("new", f"N{number}")
        full.tidy()
    full.now_s += GRACE_S
    full.tidy()
    assert len(full.ids()) <= MOST + 1
    assert full.read() == EXPECTED | {f"N{number}": "new" for number in range(4 * MOST)}


def test_two_compactors_at_once_lose_nothing(full: Store) -> None:
    one, other = full.pod(), full.pod()
    unions = one.union(), other.union()
    for pod, union in zip((one, other), unions, strict=True):
        compaction._merge(pod, union, full.config, full.deadline)
    first, second = (pack for pack in full.repository.union().packs if pack.is_merged)
    superseded = full.repository.union().superseded
    assert superseded[first.id].id == second.id
    assert second.id not in superseded
    assert full.read() == EXPECTED
    full.now_s += GRACE_S
    for pod in (one, other, one):
        tidy(full.memory, pod, full.config, full.deadline)
        assert full.read() == EXPECTED
    assert len(full.ids()) == 1


def test_two_that_sweep_at_once_lose_nothing(full: Store) -> None:
    full.tidy()
    full.now_s += GRACE_S
    pods = full.pod(), full.pod()
    found = [due(pod, pod.union(), GRACE_S, full.memory.now) for pod in pods]
    for pod, one in zip(pods, found, strict=True):
        sweep(pod, one)
    assert full.ids() == [full.merged().id]
    assert full.read() == EXPECTED


def damage(store: Store, pack: Pack) -> None:
    reader = store.memory.open(pack.name)
    assert reader is not None
    data = bytearray(reader.read_at(0, reader.size_bytes))
    data[5] ^= 1
    store.memory.delete(pack.name)
    store.memory.create(pack.name, io.BytesIO(data))


def test_damaged_merged_pack_supersedes_nothing(full: Store) -> None:
    full.tidy()
    merged = full.merged()
    damage(full, merged)
    full.now_s += GRACE_S
    ids = full.ids()
    full.tidy()
    assert set(ids) <= set(full.ids())
    full.repository.quarantine(Rejected(merged.id, CorruptPackError(merged.id, "a test")))
    assert full.read() == EXPECTED


def test_damaged_pack_is_not_merged(full: Store) -> None:
    damage(full, full.repository.union().packs[1])
    full.tidy()
    assert {unit.name for unit in full.merged().index.units} == {"triton/A", "triton/C"}
    full.now_s += GRACE_S
    full.tidy()
    assert len(full.ids()) == 2, "it stays where it is, for people to look at"


def test_pack_whose_files_are_not_as_its_index_says_keeps_no_others_from_being_merged(
    full: Store, packs: Packs
) -> None:
    pack = packs.write({"triton/ODD/": {"launcher.so": b"x"}})
    index = packs.index_of(pack)
    digest = hashlib.sha256(b"x").hexdigest().encode()
    odd = full.repository.publish(io.BytesIO(packs.with_index(pack, index.replace(digest, b"0" * 64))))
    full.tidy()
    assert odd not in full.repository.union().superseded
    assert {unit.name for unit in full.merged().index.units} == {"triton/A", "triton/B", "triton/C"}


@pytest.mark.parametrize("is_merged_first", [True, False])
def test_recalled_pack_is_absent_whether_it_was_merged_or_not(full: Store, is_merged_first: bool) -> None:
    ids = full.ids()
    if is_merged_first:
        full.tidy()
    full.repository.recall(ids[2], "a test")
    assert full.read() == EXPECTED | {"A": "one"}, "the one before counts again, as long as it is there"
    full.publish("one", "D")
    full.tidy()
    full.now_s += GRACE_S
    full.tidy()
    assert full.read() == EXPECTED | {"A": "one", "D": "one"}
    union = full.repository.union()
    [(path, _digest)] = next(iter(full.repository.recalled_content(union)["triton/A"]))
    assert path == "triton/A/launcher.so"
    full.repository.reinstate(ids[2])
    assert full.read() == EXPECTED | {"D": "one"}


def test_recall_that_comes_between_reading_and_publishing_is_not_undone(
    full: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids, pod = full.ids(), full.pod()
    publish = pod.publish

    def recall_and_publish(*arguments: object, **keywords: object) -> str:
        full.repository.recall(ids[1], "a test")
        return publish(*arguments, **keywords)  # type: ignore[arg-type]

    monkeypatch.setattr(pod, "publish", recall_and_publish)
    tidy(full.memory, pod, full.config, full.deadline)
    assert full.merged().id in full.ids()
    assert full.read() == {"A": "two", "C": "one"}


def test_pack_that_was_set_aside_meanwhile_is_not_merged(full: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    ids, pod = full.ids(), full.pod()
    union = pod.union()
    full.repository.prune(ids[1], "a test")
    compaction._merge(pod, union, full.config, full.deadline)
    assert full.ids() == ids


def test_pruned_pack_goes_after_the_period_of_grace_and_its_mark_with_it(full: Store) -> None:
    ids = full.ids()
    full.repository.prune(ids[1], "a test")
    assert full.read() == {"A": "two", "C": "one"}
    full.tidy()
    assert full.ids() == ids
    full.now_s += GRACE_S
    full.tidy()
    assert ids[1] not in full.ids()
    assert full.repository.look().set_aside == set()


def test_pruned_pack_that_was_restored_stays(full: Store) -> None:
    ids = full.ids()
    full.repository.prune(ids[1], "a test")
    full.now_s += GRACE_S
    pod = full.pod()
    found = due(pod, pod.union(), GRACE_S, full.memory.now)
    assert full.repository.reinstate(ids[1])
    assert sweep(pod, found) == []
    assert full.read() == EXPECTED


ALICE, BOB = SigningKey.generate(), SigningKey.generate()


@pytest.mark.parametrize("signer", [ALICE, None], ids=["signed", "unsigned"])
def test_pod_merges_only_what_it_could_have_published_itself(store: Store, signer: SigningKey | None) -> None:
    others = [key for key in (ALICE, BOB, None) if key is not signer]
    for number in range(MOST + 1):
        for key in (signer, *others):
            store.publish("x", f"{'ABC'[[ALICE, BOB, None].index(key)]}{number}", signer=key)
    foreign = {pack.id for key in others for pack in store.pod(key).union().packs}
    before = store.read()
    store.tidy(signer)
    store.now_s += GRACE_S
    store.tidy(signer)
    assert len(store.ids()) == 2 * (MOST + 1) + 1
    assert foreign <= set(store.ids())
    assert [pack.id for pack in store.pod(signer).union().packs] == [store.merged().id]
    assert store.read() == before


def test_merged_pack_that_a_pod_does_not_trust_deletes_nothing_of_its_own(store: Store) -> None:
    """Whoever may write to the store could claim to hold what others have signed."""
    for number in range(MOST + 1):
        store.publish("x", f"K{number}", signer=ALICE)
    everything = store.repository.union().packs
    forger = store.packs.repository(store.memory)  # trusts all, signs nothing
    compaction._merge(forger, Union(everything, ()), store.config, store.deadline)
    assert store.merged().is_merged
    store.now_s += GRACE_S
    config = replace(store.config, max_packs=0)
    tidy(store.memory, store.pod(ALICE), config, store.deadline)
    assert {pack.id for pack in everything} <= set(store.ids())


def test_large_packs_stay_alone(full: Store, packs: Packs) -> None:
    packed = max(pack.packed_bytes for pack in full.repository.union().packs)
    pod = Repository(
        full.memory, packs.namespace, packs.environment, Limits.for_packs_of(4 * packed - 4), full.deadline
    )
    ids = full.ids()
    tidy(full.memory, pod, full.config, full.deadline)
    assert full.ids() == ids


def test_as_much_is_merged_at_once_as_makes_one_pack_within_the_limits(full: Store, packs: Packs) -> None:
    for number in range(20):
        full.publish("x", f"K{number}")
    before = full.read()
    limits = replace(Limits.for_packs_of(1 << 20), members=6)
    pod = Repository(full.memory, packs.namespace, packs.environment, limits, full.deadline)
    for _ in range(20):
        tidy(full.memory, pod, full.config, full.deadline)
        full.now_s += GRACE_S
    files = [sum(len(unit.members) for unit in pack.index.units) for pack in full.repository.union().packs]
    assert max(files) == limits.members
    assert len(files) < 12
    assert full.read() == before


def test_three_hundred_saves_leave_few_packs_and_objects(store: Store, packs: Packs) -> None:
    """There are fifteen saves in the grace period, and every tenth one checks whether packs are to be merged.

    After the first thirty saves the numbers no longer grow.
    """
    store.config = replace(store.config, max_packs=6)
    contents = [packs.write({f"triton/K{number}/": {"launcher.so": b"x"}}) for number in range(100)]
    most = 0
    for number in range(300):
        store.now_s += GRACE_S / 15
        store.repository.publish(io.BytesIO(contents[number % 100]))
        if number % 10 == 0 and store.is_due():
            store.tidy()
        most = max(most, len(store.memory._objects))
    assert most < 6 + 2 * 10 + 15, "kept packs, packs published since, and packs merged within the grace period"
    store.now_s += GRACE_S
    store.tidy()
    assert len(store.memory._objects) <= 6 + 10
    assert len(store.read()) == 100


def save_kernels(isolated_env: IsolatedEnv, numbers: range) -> None:
    for number in numbers:
        isolated_env.fill(isolated_env.triton, {f"KERNEL{number}/launcher.so": b"%d" % number})
        assert save().status is OperationStatus.SUCCESS


@pytest.fixture
def saves(isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch) -> Callable[[range], None]:
    """Saves of one kernel each, where more than ``MOST`` packs are merged, and superseded ones go at once."""
    monkeypatch.setenv("B10_MAX_PACKS", str(MOST))
    monkeypatch.setenv("B10_GRACE_SECONDS", "0")
    return lambda numbers: save_kernels(isolated_env, numbers)


@pytest.mark.parametrize("locks", ["0", "1"])
@pytest.mark.parametrize("is_local", [True, False], ids=["directly", "through a worker"])
def test_saves_merge_packs_and_delete_what_is_superseded(
    isolated_env: IsolatedEnv,
    saves: Callable[[range], None],
    monkeypatch: pytest.MonkeyPatch,
    read_tree: ReadTree,
    tmp_path: Path,
    locks: str,
    is_local: bool,
) -> None:
    monkeypatch.setenv("B10_LOCKS", locks)
    monkeypatch.setattr("b10_transfer.stores.worker.client.is_local", lambda _path: is_local)
    saves(range(6))
    assert len(list(isolated_env.store.glob("v1/*/*/packs/*"))) <= MOST + 1
    assert list(isolated_env.store.glob("v1/*/*/leases/*")) == []
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "new"))
    assert load().status is OperationStatus.SUCCESS
    assert read_tree(tmp_path / "new") == {f"KERNEL{n}/launcher.so": b"%d" % n for n in range(6)}


def test_failed_compaction_fails_no_save(
    isolated_env: IsolatedEnv,
    saves: Callable[[range], None],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(*_: object) -> None:
        raise StoreError("write", "a pack", "No space left on device")

    monkeypatch.setattr(compaction, "compact", fail)
    with caplog.at_level(logging.WARNING, "b10_transfer"):
        saves(range(MOST + 1))
    assert "the packs stay as they are until the next save: could not write a pack" in caplog.text
    assert len(list(isolated_env.store.glob("v1/*/*/packs/*"))) == MOST + 1


def test_nobody_merges_while_another_does(
    isolated_env: IsolatedEnv, saves: Callable[[range], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    saves(range(MOST))
    [environment] = isolated_env.store.glob("v1/default/*")
    (environment / "leases" / "compact.00000001").touch()
    saves(range(MOST, MOST + 2))
    assert len(list(environment.glob("packs/*"))) == MOST + 2


def test_zero_is_no_limit(
    isolated_env: IsolatedEnv, saves: Callable[[range], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("B10_MAX_PACKS", "0")
    saves(range(MOST + 2))
    assert len(list(isolated_env.store.glob("v1/*/*/packs/*"))) == MOST + 2


def test_pack_with_a_group_file_that_nobody_can_restore_is_set_aside_by_the_next_save(
    isolated_env: IsolatedEnv,
) -> None:
    """The load that cannot restore it marks it. It is never merged into a sound one."""
    bad = Publisher(isolated_env.store, detect()).publish({"triton/BAD/": {"__grp__k.json": b"no group"}})
    assert load().status is OperationStatus.DOES_NOT_EXIST
    isolated_env.fill(isolated_env.triton, {"KEY/launcher.so": b"x"})
    assert save().quarantined_packs == (bad.name.partition(".")[0],)


def bytes_for(store: Store, names: set[str]) -> tuple[int, int]:
    """The bytes of frames that a load fetches for some units, and those of all frames."""
    union = store.repository.union()
    needed = total = 0
    for pack in union.packs:
        if pack.id not in union.superseded:
            members = [m for name in names if union.units[name][0] is pack for m in union.units[name][1].members]
            needed += packed_bytes_of(pack.index, members)
            total += sum(frame.packed_bytes for frame in pack.index.frames)
    return needed, total


def test_units_that_starts_use_get_frames_of_their_own(store: Store) -> None:
    used = {f"triton/K{number}" for number in range(0, 80, 10)}
    for part in range(2):
        units = {
            f"triton/K{number}/": {"launcher.so": secrets.token_hex(50_000).encode()}
            for number in range(40 * part, 40 * part + 40)
        }
        store.repository.publish(io.BytesIO(store.packs.write(units)))
    before = store.read()
    needed, total = bytes_for(store, used)
    assert needed > 0.9 * total
    store.tidy()
    assert len(store.ids()) == 2  # nothing is known of starts
    assert store.repository.record_start(used)
    store.tidy()
    needed, total = bytes_for(store, used)
    assert needed < 0.15 * total
    assert store.read() == before
    ids = store.ids()
    store.tidy()
    assert store.ids() == ids
    store.now_s += GRACE_S
    store.tidy()
    assert store.ids() == [store.merged().id]
    assert store.read() == before


@pytest.mark.parametrize(("used", "max_packs"), [(36, MOST), (1, 0)])
def test_packs_stay_as_they_are_if_starts_use_most_of_them_or_merging_is_off(
    store: Store, used: int, max_packs: int
) -> None:
    units = {f"triton/K{number}/": {"launcher.so": secrets.token_hex(50_000).encode()} for number in range(40)}
    store.repository.publish(io.BytesIO(store.packs.write(units)))
    assert store.repository.record_start({f"triton/K{number}" for number in range(used)})
    store.config = replace(store.config, max_packs=max_packs)
    store.tidy()
    assert len(store.ids()) == 1


def test_false_record_changes_nothing_of_what_a_merge_holds(store: Store) -> None:
    for number in range(MOST + 1):
        store.publish(f"{number}", f"K{number}")
    before = store.read()
    store.repository.record_start({"triton/K1", "triton/none", "../../etc/passwd"})
    store.tidy()
    assert store.read() == before
    assert store.merged()
