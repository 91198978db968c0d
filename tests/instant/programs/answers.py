"""One pod: models as libraries write them, with classes that answer for their attributes and wrapped functions.

``CHANGED=1`` changes each value. Prints JSON: by case, whether the result was right and how many graphs were traced.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import json
import math
import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from b10_transfer import load, save

CHANGED = os.environ["CHANGED"] == "1"
OPTIONS: Any = {"fallback_by_default": True}  # without a C++ compiler
FACTOR = 5.0 if CHANGED else 2.0


class Config:
    """Some names stand for others, as in transformers."""

    names: Any = {}  # noqa: RUF012

    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)

    def __getattribute__(self, name: str) -> Any:
        if name != "names" and name in super().__getattribute__("names"):
            name = super().__getattribute__("names")[name]
        return super().__getattribute__(name)


class Mapped(Config):
    names: Any = {"size": "large" if CHANGED else "small"}  # noqa: RUF012


class Optional(Config):
    """Uses globals only in a state that the object does not have."""

    def __getattribute__(self, name: str) -> Any:
        if super().__getattribute__("__dict__").get("layers") is not None:
            raise RuntimeError(json.dumps(name))
        return super().__getattribute__(name)


class ReadsGlobal(Config):
    def __getattribute__(self, name: str) -> Any:
        return super().__getattribute__("large" if name == "size" and FACTOR > 2 else name)


class Calls(Config):
    rounded: Any = math.ceil if CHANGED else math.floor

    def __getattribute__(self, name: str) -> Any:
        if name == "size" and super().__getattribute__("rounded")(0.5):
            name = "large"
        return super().__getattribute__(name)


class ReadsDefault(Config):
    def __getattribute__(self, name: str, instead: str = "large" if CHANGED else "small") -> Any:
        return super().__getattribute__(instead if name == "size" else name)


class Model(torch.nn.Module):
    """Finds in its configuration what it lacks, as in diffusers."""

    def __init__(self, **values: Any) -> None:
        super().__init__()
        self.values = Frozen(values)

    def __getattr__(self, name: str) -> Any:
        if "values" in self.__dict__ and name in self.__dict__["values"]:
            return self.__dict__["values"][name]
        return super().__getattr__(name)

    def forward(self, x: Tensor) -> Any:
        return x * self.factor


class Frozen(collections.OrderedDict[str, Any]):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        for name, value in self.items():
            setattr(self, name, value)


class Configured(torch.nn.Module):
    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config

    def forward(self, x: Tensor) -> Any:
        return x * self.config.size


class FirstKey(Configured):
    def forward(self, x: Tensor) -> Any:
        return x * next(iter(self.config.values()))


class OfClass(property):
    """As transformers' classproperty."""

    def __get__(self, _object: object, owner: type | None = None) -> Any:
        assert self.fget is not None
        return self.fget(owner)


class WithProperties(torch.nn.Module):
    factor = OfClass(lambda _owner: 5.0 if CHANGED else 2.0)
    if CHANGED:

        @property
        def factors(self) -> float:
            return sum([5.0 * number for number in (1, 2)])

    else:

        @property
        def factors(self) -> float:
            return sum([2.0 * number for number in (1, 2)])

    def forward(self, x: Tensor) -> Any:
        return x * self.factors


def wrapped(function: Callable[..., Any]) -> Any:
    @functools.wraps(function)
    def wrapper(*arguments: Any, **options: Any) -> Any:
        return function(*arguments, **options)

    return wrapper


class Wrapped(torch.nn.Module):
    @wrapped
    @wrapped
    def forward(self, x: Tensor, factor: float = FACTOR) -> Any:
        return x * factor


class Doubly(torch.nn.Module):
    @wrapped
    @functools.lru_cache  # noqa: B019
    def scale(self) -> float:
        return FACTOR

    @wrapped
    @wrapped
    def forward(self, x: Tensor) -> Any:
        return shifted(x) + len(self.__class__.forward.__defaults__ or ())


@wrapped
@wrapped
def shifted(x: Tensor, *, by: float = FACTOR) -> Any:
    return x + by


@dataclasses.dataclass
class Output(collections.OrderedDict[str, Any]):
    """As transformers' ModelOutput."""

    result: Any = None
    factor: float = FACTOR

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            self[field.name] = getattr(self, field.name)


class Outputs(torch.nn.Module):
    def forward(self, x: Tensor) -> Any:
        output = Output(x + 1)
        return Output(result=output["result"] * output.factor)


Output.__init__ = wrapped(Output.__init__)  # type: ignore[method-assign]


def of_two(config: Config) -> Config:
    config.__dict__.update(small=2.0, large=5.0)
    return config


CASES: dict[str, Any] = {
    "state": Configured(Config(size=FACTOR)),
    "state_of_another_attribute": Configured(Config(size=3.0, other=FACTOR)),
    "mapped": Configured(of_two(Mapped())),
    "optional": Configured(Optional(size=FACTOR)),
    "reads_a_global": Configured(of_two(ReadsGlobal(size=2.0))),
    "calls_what_it_holds": Configured(of_two(Calls(size=2.0))),
    "reads_its_default": Configured(of_two(ReadsDefault())),
    "answers_for_module": Model(factor=FACTOR),
    "is_marked": Model(factor=FACTOR, torchdynamo_force_dynamic=True),
    "becomes_marked": Model(factor=2.0, **({"torchdynamo_force_dynamic": True} if CHANGED else {})),
    "ordered": FirstKey(Frozen({"a": 5.0, "b": 2.0} if CHANGED else {"b": 2.0, "a": 5.0})),
    "property": WithProperties(),
    "wrapped": Wrapped(),
    "doubly": Doubly(),
    "outputs": Outputs(),
}


def tensor(result: Any) -> Tensor:
    found: Tensor = result["result"] if isinstance(result, Output) else result
    return found


def main() -> None:
    load()
    told: dict[str, Any] = {}
    x = torch.arange(6.0)
    counters = torch._dynamo.utils.counters
    with torch.no_grad():
        for name, case in CASES.items():
            counters.clear()
            compiled: Any = torch.compile(case, options=OPTIONS)
            right = torch.allclose(tensor(compiled(x)), tensor(case(x)))
            told[name] = {"right": right, "traced": counters["stats"]["unique_graphs"]}
    save()
    print(json.dumps(told))


if __name__ == "__main__":
    main()
