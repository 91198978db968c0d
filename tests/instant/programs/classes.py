"""One pod: functions that ask an abstract class, or a class with a metaclass of its own, what is one of it.

``CHANGED=1`` has each answer the opposite. Prints JSON: by case, whether the result was right and how many graphs were
traced.
"""

from __future__ import annotations

import abc
import json
import os
from typing import Any, Protocol, runtime_checkable

import torch

from b10_transfer import load, save

CHANGED = os.environ["CHANGED"] == "1"
OPTIONS: Any = {"fallback_by_default": True}  # without a C++ compiler


class Concrete:
    pass


class Other(Concrete):
    pass


class Registered(abc.ABC):  # noqa: B024
    pass


class Hooked(abc.ABC):  # noqa: B024
    @classmethod
    def __subclasshook__(cls, _other: type) -> bool:
        return CHANGED


class Meta(type):
    def __instancecheck__(cls, _value: object) -> bool:
        return CHANGED


class Deciding(metaclass=Meta):
    pass


@runtime_checkable
class Going(Protocol):
    def go(self) -> int: ...


if CHANGED:
    Registered.register(Concrete)
    Concrete.go = lambda self: 1  # type: ignore[attr-defined]
CONCRETE, OTHER = Concrete(), Other()


def registered(x: torch.Tensor) -> torch.Tensor:
    return x * (2.0 if isinstance(CONCRETE, Registered) else 5.0)


def registered_base(x: torch.Tensor) -> torch.Tensor:
    return x * (2.0 if isinstance(OTHER, (int, Registered)) else 5.0)


def registered_class(x: torch.Tensor) -> torch.Tensor:
    return x * (2.0 if issubclass(Concrete, Registered) else 5.0)


def hooked(x: torch.Tensor) -> torch.Tensor:
    return x * (2.0 if isinstance(CONCRETE, Hooked) else 5.0)


def by_metaclass(x: torch.Tensor) -> torch.Tensor:
    return x * (2.0 if isinstance(CONCRETE, Deciding) else 5.0)


def protocol(x: torch.Tensor) -> torch.Tensor:
    return x * (2.0 if isinstance(CONCRETE, Going) else 5.0)


CASES = (registered, registered_base, registered_class, hooked, by_metaclass, protocol)


def main() -> None:
    load()
    told: dict[str, Any] = {}
    x = torch.arange(6.0)
    counters = torch._dynamo.utils.counters
    with torch.no_grad():
        for case in CASES:
            counters.clear()
            right = torch.equal(torch.compile(case, options=OPTIONS)(x), case(x))
            told[case.__name__] = {"right": right, "traced": counters["stats"]["unique_graphs"]}
    save()
    print(json.dumps(told))


if __name__ == "__main__":
    main()
