"""Names of functions that others wrap, and of code inside of properties."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("torch")
from b10_transfer.instant.code import CodeName, UnresolvableError
from b10_transfer.instant.names import find, name_of_function

pytestmark = pytest.mark.torch


def wrapped(function: Callable[..., Any]) -> Any:
    @functools.wraps(function)
    def wrapper(*arguments: Any) -> Any:
        return function(*arguments)

    return wrapper


class Model:
    @wrapped
    @wrapped
    def twice(self) -> int:
        return 1

    @property
    def inside(self) -> object:
        return sorted((lambda: number)() for number in (2, 1))


def layers(function: Any) -> list[Any]:
    return [function, function.__wrapped__, function.__wrapped__.__wrapped__]


def test_every_layer_of_a_wrapped_function_has_a_name_of_its_own() -> None:
    names = [name_of_function(layer) for layer in layers(Model.twice)]
    assert len(set(names)) == 3
    assert [find(*name) for name in names if name is not None] == layers(Model.twice)


def test_function_that_was_replaced_has_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    replaced = layers(Model.twice)
    monkeypatch.setattr(Model, "twice", lambda self: 2)
    assert [name_of_function(layer) for layer in replaced] == [None, None, None]


@pytest.mark.skipif(sys.version_info < (3, 11), reason="code has no qualified name")
def test_code_inside_of_a_property_has_a_name_until_the_property_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    getter: Any = vars(Model)["inside"].fget
    inside = next(constant for constant in getter.__code__.co_consts if hasattr(constant, "co_code"))
    name = CodeName.of(inside)
    assert name.resolve() is inside
    monkeypatch.setattr(Model, "inside", property(lambda self: 1))
    with pytest.raises(UnresolvableError):
        name.resolve()
