"""One pod: functions whose traces depend on what Dynamo reads, or runs, without a guard.

``CHANGED=1`` changes each value. Prints JSON: by case, whether the result was right and how many graphs were traced.
"""

from __future__ import annotations

import enum
import inspect
import json
import os
import sys
from typing import Any

import torch
from torch import Tensor

from b10_transfer import load, save

CHANGED = os.environ["CHANGED"] == "1"
OPTIONS: Any = {"fallback_by_default": True}  # without a C++ compiler
FACTOR = 5.0 if CHANGED else 2.0
TABLE = {"new": 1.0} if CHANGED else {"old": 1.0}
METHOD: Any = torch.Tensor.exp if CHANGED else torch.Tensor.abs
OPERATOR: Any = torch.Tensor.__mul__ if CHANGED else torch.Tensor.__add__
sys.setrecursionlimit(4000 if CHANGED else 3000)  # Inductor raises a lower one while it compiles
if CHANGED:
    os.environ["B10_TEST_NEW"] = "1"


class Method(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.activation = METHOD

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.activation(x)
        return result


def method(x: Tensor) -> Tensor:
    result: Tensor = METHOD(x)
    return result


def operator(x: Tensor) -> Tensor:
    result: Tensor = OPERATOR(x, 3.0)
    return result


def variable_in(x: Tensor) -> Tensor:
    return x * (5.0 if "B10_TEST_NEW" in os.environ else 2.0)


def variable_get(x: Tensor) -> Tensor:
    return x * float(os.environ.get("B10_TEST_NEW", "7"))


def variable_getenv(x: Tensor) -> Tensor:
    return x * (5.0 if os.getenv("B10_TEST_NEW") else 2.0)


def missing_item(x: Tensor) -> Tensor:
    try:
        return x * TABLE["new"]
    except KeyError:
        return x * 2.0


class Flag(enum.Enum):
    A = 1
    B = 2

    def __bool__(self) -> bool:
        return CHANGED

    def __str__(self) -> str:
        return "changed" if CHANGED else "first"

    @property
    def factor(self) -> float:
        return FACTOR

    @classmethod
    def _missing_(cls, value: object) -> Flag:
        return cls.A if CHANGED else cls.B


def enum_bool(x: Tensor) -> Tensor:
    return x * (5.0 if Flag.A else 2.0)


def enum_format(x: Tensor) -> Tensor:
    return x * (5.0 if f"{Flag.A}" == "changed" else 2.0)


def enum_missing(x: Tensor) -> Any:
    return x * Flag(17).value


def enum_property(x: Tensor) -> Tensor:
    return x * Flag.A.factor


def annotated(number: int) -> int:
    return number


annotated.__annotations__["number"] = float if CHANGED else int
annotated.__doc__ = annotated.__name__ = "changed" if CHANGED else "first"


def annotation(x: Tensor) -> Tensor:
    return x * (5.0 if annotated.__annotations__["number"] is float else 2.0)


def signature(x: Tensor) -> Tensor:
    return x * (5.0 if inspect.signature(annotated).parameters["number"].annotation is float else 2.0)


def documentation(x: Tensor) -> Tensor:
    return x * (5.0 if annotated.__doc__ == "changed" else 2.0)


def function_name(x: Tensor) -> Tensor:
    return x * (5.0 if annotated.__name__ == "changed" else 2.0)


def recursion_limit(x: Tensor) -> Tensor:
    return x * sys.getrecursionlimit()


_library: Any = torch.library.Library
LIBRARY = _library("b10_test", "FRAGMENT")
LIBRARY.define("composite(Tensor x) -> Tensor")
LIBRARY.impl("composite", lambda x: x * FACTOR, "CompositeImplicitAutograd")
LIBRARY.define("meta(Tensor x) -> Tensor")
LIBRARY.impl("meta", lambda x: x.new_ones(int(FACTOR)), "CPU")
LIBRARY.impl("meta", lambda x: x.new_empty(int(FACTOR)), "Meta")


@torch.library.custom_op("b10_test::fake", mutates_args=())
def fake(x: Tensor) -> Tensor:
    return x.new_ones(int(FACTOR))


@fake.register_fake
def _(x: Tensor) -> Tensor:
    return x.new_empty(int(FACTOR))


@torch.library.triton_op("b10_test::of_triton", mutates_args=())
def of_triton(x: Tensor) -> Tensor:
    return x * FACTOR


def _allowed(x: Tensor) -> Tensor:
    return x * FACTOR


allowed: Any = torch.compiler.allow_in_graph(_allowed)  # type: ignore[no-untyped-call]


def kernel_fake(x: Tensor) -> Any:
    return x * len(torch.ops.b10_test.fake(x))


def kernel_composite(x: Tensor) -> Any:
    return torch.ops.b10_test.composite(x) + 1


def kernel_meta(x: Tensor) -> Any:
    return x * len(torch.ops.b10_test.meta(x))


def kernel_triton(x: Tensor) -> Any:
    return torch.ops.b10_test.of_triton(x) + 1


def kernel_allowed(x: Tensor) -> Any:
    return allowed(x) + 1


CASES: Any = (
    *(method, operator, variable_in, variable_get, variable_getenv, missing_item),
    *(enum_bool, enum_format, enum_missing, enum_property, annotation, signature, documentation, function_name),
    *(recursion_limit, kernel_fake, kernel_composite, kernel_meta, kernel_triton, kernel_allowed),
)


def main() -> None:
    load()
    told: dict[str, Any] = {}
    x = torch.arange(6.0)
    counters = torch._dynamo.utils.counters
    with torch.no_grad():
        cases: dict[str, Any] = {case.__name__: case for case in CASES}
        compile_it: Any = torch.compile
        for name, case in (cases | {"attribute": Method()}).items():
            counters.clear()
            right = torch.allclose(compile_it(case, options=OPTIONS)(x), case(x))
            told[name] = {"right": right, "traced": counters["stats"]["unique_graphs"]}
    save()
    print(json.dumps(told))


if __name__ == "__main__":
    main()
