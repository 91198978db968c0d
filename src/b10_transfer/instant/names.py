"""Names of functions: where another process finds them, below a module or below what wraps them."""

from __future__ import annotations

import ast
import importlib
import sys
import types
from collections.abc import Iterator
from typing import Any

_MAX_STEPS = 200


def find(module: str, name: str) -> Any:
    """The object of a dotted name with indices, such as ``Model.forward.__closure__[0].cell_contents``.

    Raises whatever importing, getting attributes or items may raise.
    """
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        attribute, bracket, index = part.partition("[")
        found = getattr(found, attribute)
        if bracket:
            found = found[ast.literal_eval(index.removesuffix("]"))]
    return found


def name_of_function(function: types.FunctionType) -> tuple[str, str] | None:
    """A module and a name by which ``find`` finds this very function; None if there is none.

    A function that was wrapped (``functools.wraps``) has the name of what wraps it, and lies somewhere below.
    """
    module, name = function.__module__, function.__qualname__
    if module not in sys.modules or "<locals>" in name:
        return None
    return next(((module, way) for way, found in _ways(module, name) if found is function), None)


def path_to_code(code: types.CodeType, module: str) -> tuple[str, str] | None:
    """The name of a function below a module, and the way from there to a code object; None if there is none.

    Torch finds no code of properties. Before Python 3.11 code has no qualified name.
    """
    name = getattr(code, "co_qualname", "<locals>").partition(".<locals>")[0]
    if "<" in name:
        return None
    for way, found in _ways(module, name):
        if isinstance(found, types.FunctionType):
            path = _path_inside(found.__code__, code)
            if path is not None:
                return name, f"{way[len(name) + 1 :]}.__code__{path}".lstrip(".")
    return None


def _path_inside(outer: types.CodeType, code: types.CodeType) -> str | None:
    if outer is code:
        return ""
    for number, constant in enumerate(outer.co_consts):
        if isinstance(constant, types.CodeType) and (path := _path_inside(constant, code)) is not None:
            return f".co_consts[{number}]{path}"
    return None


def _ways(module: str, name: str) -> Iterator[tuple[str, Any]]:
    """What the name stands for and what it wraps, each with its name."""
    try:
        ways = [(name, find(module, name))]
    except Exception:  # noqa: BLE001 - classes run their own code
        return
    seen: set[int] = set()
    while ways and len(seen) < _MAX_STEPS:
        way, found = ways.pop(0)
        if id(found) not in seen:
            seen.add(id(found))
            yield way, found
            ways += [(f"{way}.{step}", below) for step, below in _below(found)]


def _below(wrapper: Any) -> Iterator[tuple[str, Any]]:
    """What a wrapper wraps."""
    if isinstance(wrapper, types.FunctionType):
        for number, cell in enumerate(wrapper.__closure__ or ()):
            try:
                value = cell.cell_contents
            except ValueError:  # it is empty
                continue
            if isinstance(value, _WRAPPERS):
                yield f"__closure__[{number}].cell_contents", value
        if isinstance(inner := vars(wrapper).get("__wrapped__"), _WRAPPERS):
            yield "__wrapped__", inner
    elif isinstance(wrapper, (types.MethodType, staticmethod, classmethod)):
        yield "__func__", wrapper.__func__
    elif isinstance(wrapper, property):
        yield from ((name, part) for name in ("fget", "fset", "fdel") if (part := getattr(wrapper, name)) is not None)


_WRAPPERS = (types.FunctionType, types.MethodType, staticmethod, classmethod, property)
