"""Results that each process has its own of: hashes of text, the order of sets, addresses in text.

Dynamo computes with those of the process that traces, and guards on none of them. A trace that depends on one is not
kept.
"""

from __future__ import annotations

import functools
import re
import sys
import threading
from typing import Any

from torch._dynamo.variables import builtin, constant, lazy, lists, object_protocol, sets

from .recording import recording

_hash: Any = getattr(object_protocol, "generic_hash", None)
_constant: Any = constant.ConstantVariable
_builtin: Any = builtin.BuiltinVariable
_set: Any = getattr(sets, "BaseSetVariable", sets.SetVariable)
_init = _constant.__init__
_method = _constant.call_method
_call = _builtin.call_function
_unpack: Any = getattr(_set, "unpack_var_sequence", None)
_iterate: Any = getattr(_set, "tp_iter_impl", None)
_set_method: Any = getattr(_set, "call_method", None)

_HASH = "the traced code calls hash(), whose result differs between processes"
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
_NUMBERS = (bool, int, float, complex)
# fmt: off
_BLIND = frozenset((
    "len", "isinstance", "issubclass", "type", "bool", "set", "frozenset", "any", "all", "id", "hash", "callable",
    "hasattr", "getattr", "setattr", "contains", "truth", "not_", "is_", "is_not", "eq", "ne", "lt", "le", "gt", "ge",
    "and_", "or_", "xor", "sub", "iand", "ior", "ixor", "isub",
))
# fmt: on
"""Builtins and operators whose results do not depend on the order of a set."""
# fmt: off
_MERGING = frozenset((
    "update", "difference_update", "intersection_update", "symmetric_difference_update",
    "union", "difference", "intersection", "symmetric_difference", "issubset", "issuperset", "isdisjoint",
))
# fmt: on
"""Methods of sets whose results do not depend on the order of sets of constants. Dynamo traces loops in their place,
also for a literal set of three or more constants."""
_merging = threading.local()


def install() -> None:
    """Refuse traces that depend on such a result from now on, while a package records."""
    for module in (object_protocol, builtin):
        if getattr(module, "generic_hash", None) is _hash:
            module.generic_hash = _refusing_hash  # type: ignore[attr-defined]
    _constant.__init__ = _refusing_init
    _constant.call_method = _refusing_method
    _builtin.call_function = _refusing_call
    _set.unpack_var_sequence = _refusing_unpack
    _set.tp_iter_impl = _refusing_iterate
    _set.call_method = _refusing_set_method
    _set.items = _Items()


def lacking() -> str:
    """What this torch lacks of what is touched here."""
    if not all(map(callable, (_hash, _unpack, _iterate, _set_method))):
        return "this torch's Dynamo hashes values or reads sets in another way"
    return ""


def _refuse(reason: str) -> None:
    if (recorder := recording.get()) is not None:
        recorder.refuse(reason)


def _refuse_order(*values: Any) -> None:
    """Refuse the trace if one of Dynamo's variables is a set whose order may differ in another process."""
    if recording.get() is None or getattr(_merging, "constants", False):
        return
    try:
        is_unordered = any(map(_is_unordered, values))
    except Exception:  # noqa: BLE001 - the compilation must go on as if we were not there
        is_unordered = True
    if is_unordered:
        _refuse("the traced code reads a set in its order, which differs between processes")


def _is_unordered(value: Any) -> bool:
    if (found := _realized(value)) is None:
        original = value.original_value()
        return isinstance(original, (set, frozenset)) and len(original) > 1
    return isinstance(found, _set) and not isinstance(found, _ORDERED) and len(found.items) > 1


def _realized(value: Any) -> Any:
    """The variable that a lazy one stands for; None if Dynamo has not looked at its value yet."""
    if isinstance(value, lazy.LazyVariableTracker):
        return value.realize() if value.is_realized() else None
    return value


_ORDERED = (sets.OrderedSetVariable, sets.DictKeySetVariable)


@functools.wraps(_hash)
def _refusing_hash(tx: Any, value: Any) -> Any:
    """Hashes of text start at a random number in each process, and those of objects are addresses."""
    result = _hash(tx, value)
    if recording.get() is not None and not _is_number(value):
        _refuse(_HASH)
    return result


def _is_number(value: Any) -> bool:
    try:
        return value.python_type() in _NUMBERS
    except NotImplementedError:
        return False


@functools.wraps(_init)
def _refusing_init(variable: Any, value: Any, **options: Any) -> None:
    if type(value) is str and options.get("source") is None and _ADDRESS.search(value):
        _refuse("the traced code uses the address of an object in a text")
    _init(variable, value, **options)


@functools.wraps(_method)
def _refusing_method(variable: Any, tx: Any, name: str, arguments: Any, options: Any) -> Any:
    """A method of a constant, such as ``", ".join(names)``."""
    if name == "__hash__":
        _refuse(_HASH)
    _refuse_order(*arguments)
    return _method(variable, tx, name, arguments, options)


@functools.wraps(_call)
def _refusing_call(variable: Any, tx: Any, arguments: Any, options: Any) -> Any:
    if getattr(variable.fn, "__name__", "") not in _BLIND:
        _refuse_order(*arguments)
    return _call(variable, tx, arguments, options)


@functools.wraps(_unpack)
def _refusing_unpack(variable: Any, tx: Any) -> Any:
    _refuse_order(variable)
    return _unpack(variable, tx)


@functools.wraps(_iterate)
def _refusing_iterate(variable: Any, tx: Any) -> Any:
    _refuse_order(variable)
    return _iterate(variable, tx)


class _Items:
    """The attribute ``items`` of Dynamo's sets. Its lists read it as it is."""

    def __get__(self, variable: Any, _owner: type) -> Any:
        if variable is None:
            return self
        items = vars(variable)["items"]
        if len(items) > 1:
            caller: Any = sys._getframe(1)
            while caller.f_code.co_filename == lazy.__file__:
                caller = caller.f_back
            if caller.f_code.co_filename == lists.__file__:
                _refuse_order(variable)
        return items

    def __set__(self, variable: Any, items: Any) -> None:
        vars(variable)["items"] = items


@functools.wraps(_set_method)
def _refusing_set_method(variable: Any, tx: Any, name: str, arguments: Any, options: Any) -> Any:
    if name in ("pop", "__iter__", "__repr__", "__str__", "__format__"):
        _refuse_order(variable)
    if name not in _MERGING or not all(map(_holds_constants, (variable, *arguments))):
        return _set_method(variable, tx, name, arguments, options)
    before = getattr(_merging, "constants", False)
    _merging.constants = True
    try:
        return _set_method(variable, tx, name, arguments, options)
    finally:
        _merging.constants = before


def _holds_constants(value: Any) -> bool:
    """Whether one of Dynamo's variables is a set of constants only: then no code runs in the order of its items."""
    found = _realized(value)
    return isinstance(found, _set) and all(isinstance(item.vt, _constant) for item in vars(found)["items"])
