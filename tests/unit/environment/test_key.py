"""The key: equal for equal parts, different for different ones, and framed so that no two sets of parts look alike."""

from __future__ import annotations

import hashlib
import json

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from b10_transfer.environment import Environment

# Digits, colons and newlines are what frames are made of.
TEXTS = st.one_of(st.text("0123456789:\n", max_size=6), st.text(max_size=6))
PARTS = st.dictionaries(TEXTS, TEXTS, max_size=4)


def hashed(parts: dict[str, str]) -> bytes:
    """The input of the hash."""
    recorded = bytearray()

    class Recorder:
        def __init__(self, data: bytes) -> None:
            recorded.extend(data)

        def update(self, data: bytes) -> None:
            recorded.extend(data)

        def hexdigest(self) -> str:
            return "0" * 64

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hashlib, "sha256", Recorder)
        assert Environment(parts).id == "0" * 32
    return bytes(recorded)


@given(PARTS, PARTS)
def test_different_parts_never_give_the_same_input_to_the_hash(one: dict[str, str], other: dict[str, str]) -> None:
    assume(one != other)
    assert hashed(one) != hashed(other)
    assert Environment(one).id != Environment(other).id


@given(st.lists(TEXTS, min_size=2, max_size=4, unique=True), st.data())
def test_text_that_moves_from_one_part_to_the_next_changes_the_input(texts: list[str], data: st.DataObject) -> None:
    joined = "".join(texts)
    cut, other_cut = (data.draw(st.integers(0, len(joined))) for _ in range(2))
    assume(cut != other_cut)
    assert hashed({joined[:cut]: joined[cut:]}) != hashed({joined[:other_cut]: joined[other_cut:]})


@given(PARTS)
def test_order_of_the_parts_does_not_matter(parts: dict[str, str]) -> None:
    assert Environment(parts).id == Environment(dict(reversed(parts.items()))).id


@given(PARTS, PARTS)
def test_recorded_facts_are_not_compared(parts: dict[str, str], recorded: dict[str, str]) -> None:
    assert Environment(parts, recorded).id == Environment(parts).id
    assert Environment(parts, recorded).to_json() == Environment(parts).to_json()


def test_id_never_changes_between_versions_of_this_package() -> None:
    """Were this to fail, every store would look empty to the new version."""
    framed = b"b10-transfer environment 1\n7:machine6:x86_645:torch10:2.13.0+cpu"
    found = Environment({"torch": "2.13.0+cpu", "machine": "x86_64"}).id
    assert found == hashlib.sha256(framed).hexdigest()[:32] == "f2decb620c964cc935be73e3177e83d6"


def test_id_can_be_a_name_in_a_store() -> None:
    assert len(Environment({}).id) == 32
    assert set(Environment({"device": "Ä / \\ \0"}).id) <= set("0123456789abcdef")


def test_parts_are_stored_for_people_to_read() -> None:
    environment = Environment({"torch": "2.13.0+cpu", "device": ""}, {"hostname": "here"})
    assert json.loads(environment.to_json()) == {"id": environment.id, "parts": dict(environment.parts)}
    assert environment.to_json() == Environment({"device": "", "torch": "2.13.0+cpu"}).to_json()
    assert b'\n    "torch": "2.13.0+cpu"\n' in environment.to_json()
