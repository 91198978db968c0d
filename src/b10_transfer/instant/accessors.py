"""Classes of a program that answer for their attributes in Python (``__getattribute__``, ``__getattr__``)."""

from __future__ import annotations

import functools
import types
from collections.abc import Iterator
from typing import Any

from .releases import is_of_a_release


def own_accessors(kind: type, name: str) -> list[types.FunctionType]:
    """The functions of a program that answer for the attributes of a class, each of which may call the next."""
    found = [vars(base)[name] for base in kind.__mro__ if name in vars(base)]
    return [each for each in found if isinstance(each, types.FunctionType) and not _is_of_a_release(each)]


def _is_of_a_release(function: types.FunctionType) -> bool:
    return is_of_a_release(function.__globals__.get("__name__"))


def reads_only_state(value: Any) -> bool:
    """Whether the class's ``__getattribute__`` takes its answers from the object's attributes and its classes alone.

    Each is run once more for some names, with globals that nothing may be read from but ``super``. Functions in C are
    found there, or are attributes, which must hold none. Functions in Python would be seen to run.
    """
    kind = type(value)
    found = [vars(base)["__getattribute__"] for base in kind.__mro__ if "__getattribute__" in vars(base)]
    accessors = [accessor for accessor in found if not isinstance(accessor, types.WrapperDescriptorType)]
    if not accessors:
        return True
    held = [vars(base) for base in kind.__mro__ if not is_of_a_release(base.__module__)]
    if any(isinstance(each, _FUNCTIONS_IN_C) for values in (*held, _state_of(value)) for each in values.values()):
        return False
    return all(_is_answered_without_globals(accessor, value) for accessor in accessors)


_FUNCTIONS_IN_C = (types.BuiltinFunctionType, types.MethodType, types.MethodWrapperType, functools.partial)


def _state_of(value: Any) -> dict[str, Any]:
    try:
        return dict(object.__getattribute__(value, "__dict__"))
    except AttributeError:
        return {}


def _is_answered_without_globals(accessor: Any, value: Any) -> bool:
    if not isinstance(accessor, types.FunctionType):
        return False
    code = accessor.__code__
    if code.co_freevars not in ((), ("__class__",)) or accessor.__defaults__ or accessor.__kwdefaults__:
        return False
    for name in _names(code, value):
        scope = _Scope()
        try:
            types.FunctionType(code, scope, code.co_name, None, accessor.__closure__)(value, name)
        except AttributeError:
            pass
        except Exception:  # noqa: BLE001 - it is the program's code
            return False
        if scope.read:
            return False
    return True


def _names(code: types.CodeType, value: Any) -> Iterator[str]:
    """What torch asks for, what the object has, what the code names, and one attribute that is unknown."""
    yield from ("__class__", "__dict__", "__torch_function__", "b10_transfer_unknown")
    constants = {constant for constant in code.co_consts if isinstance(constant, str) and constant.isidentifier()}
    yield from sorted(name for name in constants.union(_state_of(value)) if not hasattr(type(value), name))


class _Scope(dict[str, Any]):
    """Globals of a function that notice what is read."""

    def __init__(self) -> None:
        super().__init__(__builtins__={})
        self.read: list[str] = []

    def __getitem__(self, name: str) -> Any:
        if name == "super":
            return super
        self.read.append(name)
        raise KeyError(name)
