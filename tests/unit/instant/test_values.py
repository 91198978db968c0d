"""Descriptions of values: what is equal, what is not, and what has none."""

from __future__ import annotations

import collections
import dataclasses
import enum
import functools
import math
import threading
import types
from typing import Any, NamedTuple

import pytest

torch = pytest.importorskip("torch")
from b10_transfer.instant.messages import difference  # noqa: E402
from b10_transfer.instant.values import Describer, UnrecordableError  # noqa: E402

pytestmark = pytest.mark.torch


class Color(enum.Enum):
    RED = 1
    BLUE = 2


class Pair(NamedTuple):
    left: int
    right: int


@dataclasses.dataclass(frozen=True)
class Frozen:
    scale: float


class Settings(dict[str, Any]):
    pass


class Slotted:
    __slots__ = ("scale",)

    def __init__(self, scale: float) -> None:
        self.scale = scale


def closed(value: object) -> Any:
    def inner() -> object:
        return value

    return inner


def with_default(value: object) -> Any:
    def inner(default: object = value) -> object:
        return default

    return inner


def with_keyword(value: object) -> Any:
    def inner(*, default: object = value) -> object:
        return default

    return inner


def with_attribute(value: object) -> Any:
    def inner() -> object:
        return inner.scale  # type: ignore[attr-defined]

    inner.scale = value  # type: ignore[attr-defined]
    return inner


DIFFERENT: list[tuple[Any, Any]] = [
    (True, 1),
    (1, 1.0),
    (0.0, -0.0),
    (math.nan, -math.nan),
    (1j, -1j),
    ("1", 1),
    (b"a", "a"),
    ((1,), [1]),
    ((1, 2), (2, 1)),
    ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
    ({1}, frozenset({1})),
    (range(3), range(4)),
    (slice(1), slice(2)),
    (Color.RED, Color.BLUE),
    (Color.RED, 1),
    (Pair(1, 2), (1, 2)),
    (Frozen(1.0), Frozen(2.0)),
    (Settings(a=1), Settings(a=2)),
    (Settings(a=1), {"a": 1}),
    (Slotted(1.0), Slotted(2.0)),
    (types.SimpleNamespace(a=1), types.SimpleNamespace(a=2)),
    (collections.deque([1]), collections.deque([2])),
    (torch.float32, torch.float64),
    (torch.device("cpu"), torch.device("meta")),
    (math.sin, math.cos),
    (torch.sin, torch.cos),
    (functools.partial(max, 1), functools.partial(max, 2)),
    (closed(1), closed(2)),
    (closed(0.0), closed(-0.0)),
    (with_default(1), with_default(True)),
    (with_keyword(1), with_keyword(2)),
    (with_attribute(1), with_attribute(2)),
    (lambda: 1, lambda: 2),
    (Pair, Frozen),
    (math, enum),
]


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_values_that_tracing_tells_apart_have_different_descriptions(one: Any, other: Any) -> None:
    assert Describer().describe(one) != Describer().describe(other)
    assert Describer().describe(one) == Describer().describe(one)


def test_a_description_refers_to_no_live_object() -> None:
    table = {"scale": [1.0]}
    before = Describer().describe(table)
    table["scale"][0] = 3.0
    assert before != Describer().describe(table)


def test_a_value_that_holds_itself_has_a_description() -> None:
    knot: list[Any] = [1]
    knot.append(knot)
    assert Describer().describe(knot) == Describer().describe(knot)


@pytest.mark.parametrize(
    "value", [threading.Lock(), iter([1]), memoryview(b"")], ids=["lock", "iterator", "memory view"]
)
def test_a_value_of_another_kind_in_c_has_none(value: Any) -> None:
    with pytest.raises(UnrecordableError):
        Describer().describe(value)


def test_a_message_shows_the_innermost_difference() -> None:
    was, now = (Describer().describe({"a": (1, scale)}) for scale in (1.0, 3.0))
    assert difference(was, now) == "was 1.0, is 3.0"
