"""Records of the units that warm starts used: how they merge, who writes them, and what hostile ones can do."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from b10_transfer.repository.layout import STARTS_A_DAY
from b10_transfer.repository.repository import Repository
from b10_transfer.repository.starts import KEPT_DAYS, MOST_BYTES, NONE, Starts, decode, latest_of, split
from b10_transfer.repository.use import today
from b10_transfer.testing.memory import MemoryStore

if TYPE_CHECKING:
    from tests.conftest import Packs

DAY = int(time.time() // 86_400)
STARTS = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(DAY - 3 * KEPT_DAYS, DAY)).map(Starts)


@given(STARTS, STARTS, STARTS)
def test_order_of_merging_does_not_matter(one: Starts, two: Starts, three: Starts) -> None:
    assert one.merged(two) == two.merged(one)
    assert one.merged(two).merged(three) == one.merged(two.merged(three))
    assert one.merged(two).merged(two) == one.merged(two)


@given(STARTS, STARTS)
def test_merged_record_has_every_unit_used_lately_and_no_other(one: Starts, two: Starts) -> None:
    merged = one.merged(two)
    assert merged.days.keys() <= one.days.keys() | two.days.keys()
    latest = max([*one.days.values(), *two.days.values()], default=0)
    for starts in (one, two):
        for name, day in starts.days.items():
            assert (name in merged.days) or day < latest - KEPT_DAYS
            assert merged.days.get(name, day) >= day
    assert decode(merged.encode()) == merged


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 100,
        b"[" * 100_000,
        b"[]",
        b'{"units": []}',
        b'{"units": {"triton/A": "1"}}',
        b'{"units": {"triton/A": true}}',
        b'{"units": {"triton/A": -1}}',
        b'{"units": {"triton/A": 1e400}}',
        json.dumps({"units": {"triton/A": DAY + 2}}).encode(),
        json.dumps({"units": {"triton/A": 10**30}}).encode(),
        json.dumps({"units": {"a" * 5000: DAY}}).encode(),
    ],
)
def test_record_that_no_writer_makes_is_empty(content: bytes) -> None:
    assert decode(content) == NONE


class Place:
    """A store, and pods that record their starts in it."""

    def __init__(self, packs: Packs) -> None:
        self.store = MemoryStore()
        self._packs = packs

    @property
    def repository(self) -> Repository:
        return self._packs.repository(self.store)

    def publish(self, *keys: str) -> None:
        units: Mapping[str, Mapping[str, bytes]] = {f"triton/{key}/": {"launcher.so": key.encode()} for key in keys}
        self.repository.publish(io.BytesIO(self._packs.write(units)))

    def record(self, name: str, content: bytes) -> None:
        folder = self.repository.name_of("x").rpartition("/packs/")[0]
        assert self.store.create(f"{folder}/used/{name}", io.BytesIO(content))

    def recorded(self) -> dict[str, int]:
        return dict(self.repository.starts(self.repository.union()).days)

    def records(self) -> list[str]:
        return sorted(self.repository.look(with_use=True).starts)

    def first(self, *names: str) -> tuple[list[str], list[str]]:
        union = self.repository.union()
        starts = self.repository.starts(union)
        return split(union, names or tuple(union.units), starts, lambda _name: True)


@pytest.fixture
def place(packs: Packs) -> Place:
    return Place(packs)


def test_starts_are_merged_and_a_few_a_day_are_recorded(place: Place) -> None:
    place.publish("A")
    written = [place.repository.record_start({f"triton/{number}"}) for number in range(10)]
    assert written == [True] * STARTS_A_DAY + [False] * (10 - STARTS_A_DAY)
    assert place.recorded() == {f"triton/{number}": DAY for number in range(STARTS_A_DAY)}
    assert place.records() == [f"{today()}.starts.{number}" for number in (STARTS_A_DAY - 2, STARTS_A_DAY - 1)]


def test_start_that_used_what_is_recorded_today_is_not_recorded(place: Place) -> None:
    assert place.repository.record_start({"triton/A", "triton/B"})
    assert not place.repository.record_start({"triton/A"})
    assert not place.repository.record_start(set())


def test_first_start_of_a_day_is_recorded_and_units_are_forgotten_after_a_month(place: Place) -> None:
    old = {"triton/A": DAY - 1, "triton/old": DAY - KEPT_DAYS - 1, "triton/B": DAY - KEPT_DAYS}
    place.record("20200101.starts.0", Starts(old).encode())
    assert place.repository.record_start({"triton/A"})
    assert place.recorded() == {"triton/A": DAY, "triton/B": DAY - KEPT_DAYS}


def test_start_that_used_too_much_is_not_recorded(place: Place) -> None:
    assert place.repository.record_start({"triton/A"})
    assert not place.repository.record_start({f"triton/{number:060d}" for number in range(MOST_BYTES // 60)})
    assert place.recorded() == {"triton/A": DAY}


def test_record_of_the_future_hides_no_other(place: Place) -> None:
    place.record("20991231.starts.0", Starts({"triton/false": DAY}).encode())
    assert place.repository.record_start({"triton/A"})
    assert place.recorded() == {"triton/A": DAY}


def test_record_over_the_limit_is_not_read(place: Place) -> None:
    place.record(f"{today()}.starts.0", b'{"units": {}}' + b" " * MOST_BYTES)
    assert place.recorded() == {}


def test_other_names_are_no_records(place: Place) -> None:
    for name in ("20200101.starts.4", "20200101.starts.00", "20200101.starts", "2020.starts.0", "20200101"):
        place.record(name, b"")
    assert place.records() == []
    assert latest_of({}) == ""


def test_units_that_starts_used_come_first(place: Place) -> None:
    place.publish("A", "B", "C", "D")
    place.repository.record_start({"triton/B"})
    first, rest = place.first()
    assert (first, sorted(rest)) == (["triton/B"], ["triton/A", "triton/C", "triton/D"])


def test_units_of_a_later_publication_come_first(place: Place) -> None:
    place.publish("A", "B", "C")
    place.repository.record_start({"triton/B"})
    place.publish("D", "E")
    assert set(place.first()[0]) == {"triton/B", "triton/D", "triton/E"}


def test_few_unused_units_are_restored_with_the_others(place: Place) -> None:
    place.publish("A", "B", "C", "D", "E")
    place.repository.record_start({"triton/B", "triton/C", "triton/D", "triton/E"})
    assert place.first()[1] == []


def test_record_names_only_what_the_store_has(place: Place) -> None:
    place.publish("A", "B")
    place.repository.record_start({"triton/gone", "triton/../../etc"})
    first, rest = place.first()
    assert (sorted(first), rest) == (["triton/A", "triton/B"], [])


def test_cleared_store_has_no_records(place: Place) -> None:
    place.publish("A")
    place.repository.record_start({"triton/A"})
    place.repository.remove(place.repository.look(with_use=True))
    assert place.records() == []
