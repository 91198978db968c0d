"""Results that a compiler collects in one file: merging keeps all of them."""

from __future__ import annotations

import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from b10_transfer.adapters import accumulation
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
def test_malformed_content_is_left_out_with_a_message(
    data: bytes, caplog: pytest.LogCaptureFixture, request: pytest.FixtureRequest
) -> None:
    with pytest.raises(ValueError, match=r".+"):
        Results().read(data)
    assert Results().merge_all([b'{"b": 2}', data, b'{"a": 1}'], where="triton/x") == b'{"a":1,"b":2}'
    if "large" not in request.node.callspec.id:
        assert Results().merge_all([data]) is None
        assert "triton/x are left out" in caplog.text


def test_newest_results_stay_if_all_together_are_over_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    files = [json.dumps({f"{name}{number}": {"a": "x" * 80} for number in range(600)}).encode() for name in "abcd"]
    monkeypatch.setattr(accumulation, "MOST_MEMORY", 500_000)
    merged = json.loads(Results().merge_all(files) or b"")
    assert {key[0] for key in merged} == {"a", "b"}
    assert Results().merge(files[1], files[0]) == merged_text(files[1], files[0])
    large = json.dumps({f"a{number}": {"a": "x" * 80} for number in range(1200)}).encode()
    assert Results().merge(large, files[0]) == files[0]


def merged_text(older: bytes, newer: bytes) -> bytes:
    return json.dumps(merged_tables(json.loads(older), json.loads(newer)), separators=(",", ":")).encode()


def test_newest_file_stays_as_it_is_if_it_alone_is_over_the_limit() -> None:
    bomb = b'{"a":' + b"[" * 30 + b"[]," * 1_000_000 + b"[]" + b"]" * 30 + b"}"
    assert Results().merge_all([bomb, b'{"b": 2}']) is bomb
    assert Results().merge_all([b'{"b": 2}', bomb]) == b'{"b": 2}'


@pytest.mark.parametrize(
    "data",
    [
        b'{"a":' + b"[" * 30 + b"[]," * 100_000 + b"[]" + b"]" * 30 + b"}",
        ("{" + ",".join(f'"{number}":{{}}' for number in range(100_000)) + "}").encode(),
        ("{" + ",".join(f'"{number}":"\u20ac"' for number in range(100_000)) + "}").encode(),
        ("{" + ",".join(f'"{number}":{number}.5' for number in range(100_000)) + "}").encode(),
        json.dumps({"a": ["\U0001f600" + "x" * 1_000_000]}).encode(),
    ],
    ids=["lists", "tables", "texts", "numbers", "a wide text"],
)
def test_estimate_covers_the_memory_of_a_table(data: bytes) -> None:
    tracemalloc.start()
    try:
        table = json.loads(data)
        used, _peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert table
    assert used <= Results().memory_of(data) * 1.25
