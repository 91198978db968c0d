"""Descriptions of values: what is equal, what is not, and what has none."""

from __future__ import annotations

import collections
import dataclasses
import enum
import functools
import math
import threading
import time
import types
from typing import Any, NamedTuple

import pytest

torch = pytest.importorskip("torch")
from b10_transfer.instant.hidden import guard_on, hidden_state  # noqa: E402
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


class Ordered(collections.OrderedDict[str, Any]):
    pass


class Aliased:
    """Answers for its attributes from its own state."""

    def __init__(self, **values: Any) -> None:
        object.__getattribute__(self, "__dict__").update(values)

    def __getattribute__(self, name: str) -> Any:
        if super().__getattribute__("__dict__").get("broken"):
            raise ValueError(name)
        return super().__getattribute__(name)


class Clocked(Aliased):
    def __getattribute__(self, name: str) -> Any:
        return super().__getattribute__(name if time.time() > 0 else "a")


class Counting(Aliased):
    def __getattribute__(self, name: str) -> Any:
        super().__getattribute__("__dict__")["calls"].append(name)
        return super().__getattribute__(name)


class Calling(Aliased):
    clock = time.time

    def __getattribute__(self, name: str) -> Any:
        return super().__getattribute__(name if super().__getattribute__("clock")() > 0 else "a")


class Plain:
    """Holds a function in C, and answers for nothing."""

    clock = time.time

    def __init__(self, number: int) -> None:
        self.number = number


class Computed(property):
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
    (Ordered(a=1, b=2), Ordered(b=2, a=1)),
    (Aliased(a=1), Aliased(a=2)),
    (Computed(with_default), Computed(with_keyword)),
    (Plain(1), Plain(2)),
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
    "value",
    [threading.Lock(), iter([1]), memoryview(b""), Clocked(a=1), Calling(a=1)],
    ids=["lock", "iterator", "memory view", "reads a global", "calls C"],
)
def test_other_values_have_none(value: Any) -> None:
    with pytest.raises(UnrecordableError):
        Describer().describe(value)


def test_object_whose_class_answers_is_recorded_with_its_state() -> None:
    hidden, accessors = hidden_state([("config", Aliased(a=1)), ("other", Slotted(1.0))])
    assert list(hidden) == ["config"]
    assert accessors == [Aliased.__getattribute__]
    accepts = guard_on(hidden["config"])
    assert accepts(Aliased(a=1))
    assert not accepts(Aliased(a=2))
    assert not accepts(Slotted(1.0))


@pytest.mark.parametrize(
    "value", [Counting(calls=[]), Aliased(call=time.time), Aliased(call=functools.partial(max, 1))]
)
def test_object_whose_class_may_answer_otherwise_next_time_is_refused(value: Any) -> None:
    with pytest.raises(UnrecordableError, match=r"answers for its attributes|Aliased"):
        hidden_state([("config", value)])


def test_module_that_answers_is_recorded_unless_it_is_marked() -> None:
    assert hidden_state([("plain", torch.nn.Linear(1, 1)), ("model", Answering())])[0] == {"model": ()}
    accepts = guard_on(())
    assert accepts(Answering())
    assert not accepts(Answering(torchdynamo_force_dynamic=True))
    with pytest.raises(UnrecordableError, match="torchdynamo_force_dynamic"):
        hidden_state([("model", Answering(torchdynamo_force_dynamic=False))])


class Answering(torch.nn.Module):  # type: ignore[name-defined,misc]
    def __init__(self, **values: Any) -> None:
        super().__init__()
        self.values = values

    def __getattr__(self, name: str) -> Any:
        values = self.__dict__.get("values", {})
        return values[name] if name in values else super().__getattr__(name)


def test_a_message_shows_the_innermost_difference() -> None:
    was, now = (Describer().describe({"a": (1, scale)}) for scale in (1.0, 3.0))
    assert difference(was, now) == "was 1.0, is 3.0"
