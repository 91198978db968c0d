"""Constants of every kind, in two editions: what a program holds when it saves, and what it holds when it loads.

``B10_TEST_EDITION`` chooses (0 or 1). Each kind has a function that computes with a constant, so that its two editions
give different results.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

EDITION = int(os.environ.get("B10_TEST_EDITION", "0"))


def double(x: Tensor) -> Tensor:
    return x * 2.0


def triple(x: Tensor) -> Tensor:
    return x * 3.0


class Adds:
    amount = 2.0


class Subtracts:
    amount = -3.0


CONSTANTS: dict[str, tuple[Any, Any]] = {
    "float": (2.0, 3.0),
    "int": (2, 3),
    "bool": (True, False),
    "bool_or_int": (True, 1),
    "zero": (0.0, -0.0),
    "str": ("two", "three"),
    "none": (None, 3.0),
    "tuple": ((2.0, 1.0), (3.0, 1.0)),
    "dtype": (torch.float64, torch.float32),
    "device": (torch.device("cpu"), torch.device("meta")),
    "function": (double, triple),
    "class": (Adds, Subtracts),
}


def use_float(x: Tensor, value: float) -> Tensor:
    return x * value


def use_bool(x: Tensor, value: bool) -> Tensor:
    return x * 2.0 if value else x * 3.0


def use_bool_or_int(x: Tensor, value: object) -> Tensor:
    return x * 2.0 if value is True else x * 3.0


def use_zero(x: Tensor, value: float) -> Tensor:
    return 1.0 / (torch.zeros_like(x) * value)


def use_str(x: Tensor, value: str) -> Tensor:
    return x * 2.0 if value == "two" else x * 3.0


def use_none(x: Tensor, value: float | None) -> Tensor:
    return x * 2.0 if value is None else x * value


def use_tuple(x: Tensor, value: tuple[float, float]) -> Tensor:
    return x * value[0] + value[1]


def use_dtype(x: Tensor, value: torch.dtype) -> Tensor:
    return x.to(value) * 2.0


def use_device(x: Tensor, value: torch.device) -> Tensor:
    return x * 2.0 if value.type == "cpu" else x * 3.0


def use_function(x: Tensor, value: Callable[[Tensor], Tensor]) -> Tensor:
    return value(x)


def use_class(x: Tensor, value: Any) -> Tensor:
    y: Tensor = x + value.amount
    return y


use_int = use_float
