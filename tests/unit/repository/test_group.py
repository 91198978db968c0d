"""The packs that all processes of a group load."""

from __future__ import annotations

import io
import json
import time
from typing import TYPE_CHECKING

import pytest

from b10_transfer.errors import StoreError
from b10_transfer.repository.group import EXPIRES_S, ColdGroupError, Group
from b10_transfer.repository.signing import SigningKey
from b10_transfer.testing.memory import MemoryStore

if TYPE_CHECKING:
    from tests.conftest import Packs

JOB = "job 1"


class Place:
    """A store, and processes that use it."""

    def __init__(self, packs: Packs) -> None:
        self.now = time.time()
        self.store = MemoryStore(clock=lambda: self.now)
        self._packs = packs

    def publish(self, key: str) -> str:
        pack = self._packs.write({f"triton/{key}/": {"launcher.so": key.encode()}})
        return self._packs.repository(self.store).publish(io.BytesIO(pack))

    def member(self, name: str = JOB, *, read_only: bool = False, renews: bool = False) -> Group:
        return Group(self.store, self._packs.repository(self.store), name, read_only=read_only, renews=renews)

    def load(self, name: str = JOB, *, renews: bool = False) -> set[str]:
        """The units that a process of a group loads."""
        group = self.member(name, renews=renews)
        found = set(group.union().units)
        group.check([])
        return found

    @property
    def folder(self) -> str:
        return self._packs.repository(self.store).group_folder

    def objects(self) -> list[str]:
        return [info.name.rpartition("/")[2] for info in self.store.list(self.folder)]

    def replace_record(self, content: bytes) -> None:
        [info] = self.store.list(self.folder)
        self.store.delete(info.name)
        self.store.create(info.name, io.BytesIO(content))

    def name_of(self, pack_id: str) -> str:
        return self._packs.repository(self.store).name_of(pack_id)


@pytest.fixture
def place(packs: Packs) -> Place:
    return Place(packs)


def test_later_processes_load_what_the_first_one_has_recorded(place: Place) -> None:
    place.publish("A")
    first = place.member()
    assert set(first.union().units) == {"triton/A"}
    place.publish("B")
    second = place.member()
    assert set(second.union().units) == {"triton/A"}
    assert (first.state, second.state) == ("recorded", "followed")
    assert place.load("job 2") == {"triton/A", "triton/B"}


def test_what_was_published_again_is_loaded_as_the_first_one_did(place: Place) -> None:
    first = place.publish("A")
    place.load()
    place.publish("A")
    [(pack, _unit)] = place.member().union().units.values()
    assert pack.id == first


def test_process_that_was_slower_to_record_follows_the_other(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.publish("A")
    slow, fast = place.member(), place.member()
    found = slow._repository.union()
    assert set(fast.union().units) == {"triton/A"}
    place.publish("B")
    # It has looked for a record, and read the packs, before the other one recorded.
    looks = [(0, None, False)]
    latest = slow._latest
    monkeypatch.setattr(slow, "_latest", lambda: looks.pop() if looks else latest())
    assert set(slow.union().units) == set(found.units)
    assert slow.state == "followed"


def test_empty_store_is_recorded_too_and_only_a_wait_for_packs_renews_it(place: Place) -> None:
    assert place.load() == set()
    place.publish("A")
    assert place.load() == set()
    assert place.load(renews=True) == {"triton/A"}
    place.publish("B")
    assert place.load(renews=True) == place.load() == {"triton/A"}


def test_renewal_finds_nothing_new(place: Place) -> None:
    assert place.load() == place.load(renews=True) == set()
    assert len(place.objects()) == 1


@pytest.mark.parametrize("why", ["deleted", "recalled", "pruned", "damaged"])
def test_pack_that_cannot_be_used_any_more_makes_the_group_cold(place: Place, packs: Packs, why: str) -> None:
    pack_id = place.publish("A")
    place.publish("B")
    early = place.member()
    early.union()
    repository = packs.repository(place.store)
    if why == "recalled":
        repository.recall(pack_id, "test")
    elif why == "pruned":
        repository.prune(pack_id, "test")
    else:
        place.store.delete(place.name_of(pack_id))
    if why == "damaged":
        place.store.create(place.name_of(pack_id), io.BytesIO(b"damaged"))
    member = place.member()
    with pytest.raises(ColdGroupError, match=rf"job 1 starts cold: pack {pack_id} is (gone|set aside|damaged)"):
        member.union()
    assert member.state == "cold"
    # So do all others, also if the pack is there for them, and one that has not put its files in place yet.
    with pytest.raises(ColdGroupError, match="another process of it could not load its packs"):
        place.load()
    with pytest.raises(ColdGroupError, match="another process"):
        early.check([])
    assert "triton/B" in place.load("job 2")


def test_recall_of_what_was_merged_makes_the_group_cold(place: Place, packs: Packs) -> None:
    """The merged pack is still there. Without the recalled unit it is not what the others load."""
    first, merged = place.publish("A"), place.publish("B")
    place.load()
    # As of a merged pack whose inputs are gone: the mark names an origin only.
    packs.repository(place.store).recall(first, "test")
    with pytest.raises(ColdGroupError):
        place.load()
    assert merged


def test_process_that_cannot_put_everything_in_place_makes_the_group_cold(place: Place) -> None:
    place.publish("A")
    place.load()
    member = place.member()
    member.union()
    with pytest.raises(ColdGroupError, match="no space"):
        member.check(["no space"])
    with pytest.raises(ColdGroupError):
        place.load()


def test_later_job_with_the_same_name_loads_what_is_new(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.publish("A")
    place.load()
    place.publish("B")
    later = time.time() + 2 * EXPIRES_S + 10
    monkeypatch.setattr(time, "time", lambda: later)
    assert place.load() == {"triton/A"}  # only this machine's clock is wrong
    place.now = later
    assert place.load() == place.load() == {"triton/A", "triton/B"}
    assert [name.rpartition(".")[2] for name in place.objects()] == ["00000002"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[" * 10_000,
        b"[]",
        b'{"packs": "all", "units": ""}',
        b'{"packs": ["../../x"], "units": "' + b"0" * 64 + b'"}',
        b'{"packs": [' + b'"01890000aaaa-0000000000000000",' * 2_000 + b'"x"]}',
        b'{"packs": ["01890000aaaa-0000000000000000"], "units": 1}',
    ],
    ids=range(8),
)
def test_record_of_another_form_means_that_all_start_cold(place: Place, content: bytes) -> None:
    place.publish("A")
    place.load()
    place.replace_record(content)
    assert place.load() == place.load() == set()


def test_record_chooses_only_among_packs_that_are_valid(place: Place, packs: Packs) -> None:
    good, bad = place.publish("A"), place.publish("B")
    packs.repository(place.store).recall(bad, "test")
    place.load()
    [info] = place.store.list(place.folder)
    reader = place.store.open(info.name)
    assert reader is not None
    record = json.loads(bytes(reader.read_at(0, reader.size_bytes)))
    assert record["packs"] == [good]
    place.replace_record(json.dumps(record | {"packs": [good, bad]}).encode())
    with pytest.raises(ColdGroupError, match=f"{bad} is set aside"):
        place.load()


def test_record_cannot_choose_a_pack_that_no_trusted_key_has_signed(place: Place, packs: Packs) -> None:
    place.publish("A")
    place.load()  # of a pod that trusts everybody
    repository = packs.repository(place.store)
    repository._trusted = SigningKey.generate().public
    with pytest.raises(ColdGroupError, match="untrusted"):
        Group(place.store, repository, JOB).union()


def test_record_with_the_last_possible_number_is_replaced(place: Place) -> None:
    place.publish("A")
    place.load()
    [info] = place.store.list(place.folder)
    place.store.delete(info.name)
    fake = info.name.replace("00000001", "99999999")
    place.now -= 2 * EXPIRES_S
    place.store.create(fake, io.BytesIO(b""))
    place.now += 2 * EXPIRES_S
    assert place.load() == {"triton/A"}


def test_objects_of_other_names_are_left_alone(place: Place) -> None:
    place.store.create(f"{place.folder}/notes.txt", io.BytesIO(b"mine"))
    place.publish("A")
    place.load()
    place.now += 3 * EXPIRES_S
    assert "notes.txt" in place.objects()


def test_process_that_may_not_write_follows_a_record_but_makes_none(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    place.publish("A")
    reader = place.member(read_only=True)
    assert set(reader.union().units) == {"triton/A"}
    assert reader.state == "not recorded: could not write memory: B10_READ_ONLY=1"
    assert "its processes may differ" in caplog.text
    assert place.objects() == []
    place.load()
    place.publish("B")
    assert set(place.member(read_only=True).union().units) == {"triton/A"}


def test_store_that_cannot_be_listed_is_an_error(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_folder: str) -> None:
        raise StoreError("list", "memory", "it is down")

    monkeypatch.setattr(place.store, "list", fail)
    with pytest.raises(StoreError):
        place.load()
