"""Results that a compiler collects in one file: merging keeps all of them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from b10_transfer.adapters.accumulation import MOST_BYTES, Results, merged_tables

KEYS = st.sampled_from(["mm", "64x512", "64x768", "highest", "triton_mm_0", ""])
VALUES = st.one_of(st.integers(0, 3), st.none(), st.lists(st.integers(0, 3), max_size=2))
TABLES = st.recursive(
    st.dictionaries(KEYS, VALUES, max_size=3), lambda inner: st.dictionaries(KEYS, st.one_of(inner, VALUES), max_size=3)
).filter(lambda value: isinstance(value, dict))


def leaves(table: dict[str, Any], path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    found: dict[tuple[str, ...], Any] = {}
    for key, value in table.items():
        found |= leaves(value, (*path, key)) if isinstance(value, dict) else {(*path, key): value}
    return found


@given(TABLES, TABLES, TABLES)
def test_merging_is_associative(one: dict[str, Any], two: dict[str, Any], three: dict[str, Any]) -> None:
    assert merged_tables(merged_tables(one, two), three) == merged_tables(one, merged_tables(two, three))


@given(TABLES, TABLES)
def test_merging_again_changes_nothing(one: dict[str, Any], two: dict[str, Any]) -> None:
    assert merged_tables(one, one) == one
    merged = merged_tables(one, two)
    assert merged_tables(merged, two) == merged


@given(TABLES, TABLES)
def test_order_matters_for_conflicts_alone(one: dict[str, Any], two: dict[str, Any]) -> None:
    forth, back = leaves(merged_tables(one, two)), leaves(merged_tables(two, one))
    assert forth.keys() == back.keys()
    first, second = leaves(one), leaves(two)
    for path, value in forth.items():
        assert value == second.get(path, first.get(path))
        assert back[path] == first.get(path, second.get(path))


@given(TABLES, TABLES)
def test_no_result_is_lost_or_made_up(one: dict[str, Any], two: dict[str, Any]) -> None:
    merged = leaves(json.loads(Results().merge(json.dumps(one).encode(), json.dumps(two).encode())))
    assert merged.items() <= {**leaves(one), **leaves(two)}.items()


def test_results_of_another_system_are_not_mixed_in() -> None:
    one, two = (json.dumps({"system": name, "cache": {name: 1}}).encode() for name in ("a", "b"))
    assert json.loads(Results("system").merge(one, two)) == {"system": "b", "cache": {"b": 1}}


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b"\xff", b"5", b'{"a":' * 40 + b"1" + b"}" * 40, b"[" * 100_000, b" " * (MOST_BYTES + 1)],
    ids=["empty", "half", "a list", "no text", "a number", "too deep", "a bomb", "too large"],
)
def test_malformed_content_is_left_out_with_a_message(data: bytes, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Results().read(data)
    assert Results().merge_all([data]) is None
    assert json.loads(Results().merge_all([b'{"a": 1}', data, b'{"b": 2}'], where="triton/x") or b"") == {
        "a": 1,
        "b": 2,
    }
    assert "triton/x" in caplog.text
