"""The index: what it says comes out again, and what fits into it."""

from __future__ import annotations

import dataclasses

import pytest

from b10_transfer.pack import Frame, Index, Limits, Member, PackUnit
from b10_transfer.pack.rules import storable

MB = 1024 * 1024
INDEX = Index(
    namespace="default",
    environment_id="0" * 32,
    parts={"torch": "2.13.0", "device": "NVIDIA H100"},
    recorded={"hostname": "pod-1"},
    frames=(Frame(1000, 4096, "a" * 64), Frame(10, 512, "b" * 64)),
    units=(
        PackUnit("inductor/ey/key", "stem", (Member("inductor/ey/key.py", 5, 0o644, -1, 512, "c" * 64),)),
        PackUnit("triton/KEY", "folder", (Member("triton/KEY/d e/f", 0, 0, 1 << 62, 1024, "d" * 64),)),
    ),
    roots=("inductor", "triton"),
)
LIMITS = Limits(packed_bytes=MB, raw_bytes=MB)


def test_index_comes_out_again() -> None:
    assert Index.decode("pack", INDEX.encode(), LIMITS) == INDEX


def test_equal_indexes_have_equal_bytes() -> None:
    turned = dataclasses.replace(INDEX, parts=dict(sorted(INDEX.parts.items())))
    assert turned.encode() == INDEX.encode()


def test_unit_knows_its_size() -> None:
    assert [unit.size for unit in INDEX.units] == [5, 0]


@pytest.mark.parametrize(
    "path",
    ["a", "a/b", "a" * 255, "/".join(["a" * 203] * 5), "a b", "~", "a..b", "...", ".a", "a.", "-", "#'\"$`!*?:|<>&"],
)
def test_plain_path_is_storable(path: str) -> None:
    assert storable(path)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "/a",
        "a/",
        "a//b",
        ".",
        "..",
        "a/.",
        "a/..",
        "./a",
        "../a",
        "a" * 256,
        "a/" * 512 + "a",
        "a\\b",
        "a\n",
        "a\nb",
        "\ta",
        " a",
        "a ",
        "a/ b",
        "a /b",
        "é",
        "a\0",
        "\x7f",
    ],
    ids=lambda path: ascii(path)[:20],
)
def test_path_that_is_not_plain_is_not_storable(path: str) -> None:
    assert not storable(path)


def test_path_of_the_greatest_length_is_storable_and_a_longer_one_is_not() -> None:
    path = "/".join(["a" * 255] * 4)
    assert len(path) == 1023
    assert storable(path)
    assert not storable(f"{path}/a")


def test_limits_leave_room_for_what_shrinks() -> None:
    limits = Limits.for_packs_of(1024 * MB)
    assert (limits.packed_bytes, limits.raw_bytes) == (1024 * MB, 32 * 1024 * MB)
    assert Limits.for_packs_of(1).raw_bytes == 1 << 30
