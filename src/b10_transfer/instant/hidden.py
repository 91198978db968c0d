"""What torch asks a program's objects while it traces, without a guard.

Dynamo asks every object for its class, and modules for marks of its own. If the object's class answers in Python, then
state that no guard compares decides what is traced. So a trace records that state. A restored trace compares it when
it first meets an object, and looks for the marks at every call.
"""

from __future__ import annotations

import types
import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch

from .accessors import own_accessors, reads_only_state
from .messages import Description
from .values import Describer, UnrecordableError

Hidden = dict[str, Description]
"""By the source of an object: its state, or nothing if it is a module that has no marks."""
_MARKS = ("_is_fsdp_managed_module", "torchdynamo_force_dynamic")
"""Attributes for which Dynamo looks when it meets a module."""


def answers_in_python(module: torch.nn.Module) -> bool:
    """Whether code of a program runs when Dynamo looks for marks of a module."""
    return any(own_accessors(type(module), name) for name in ("__getattr__", "__getattribute__"))


def hidden_state(values: Iterable[tuple[str, Any]]) -> tuple[Hidden, list[types.FunctionType]]:
    """What to record of objects, given by source, and the functions that may have read it.

    Raises:
        UnrecordableError: An object has state that cannot be described.
    """
    hidden: Hidden = {}
    accessors = []
    for source, value in values:
        if isinstance(value, torch.nn.Module):
            if not answers_in_python(value):
                continue
            if marks := [name for name in _MARKS if hasattr(value, name)]:
                raise UnrecordableError(f"{source} has {marks[0]}")
            hidden[source] = ()
        elif own := own_accessors(type(value), "__getattribute__"):
            before = Describer().describe(value)
            if not reads_only_state(value) or _holds_functions(before) or Describer().describe(value) != before:
                raise UnrecordableError(f"{source} answers for its attributes with code of its own")
            hidden[source] = before
            accessors += own
    return hidden, accessors


def _holds_functions(state: Description) -> bool:
    """Whether code that has the object can call something that no profiler of Python code sees."""
    if state[:1] in _FUNCTIONS:
        return True
    return any(isinstance(part, tuple) and _holds_functions(part) for part in state)


_FUNCTIONS = (("C function",), ("C method",), ("method",), ("partial",), ("cached",), ("module",))


def guard_on(state: Description) -> Callable[[Any], bool]:
    """A guard that accepts the objects for which a trace may be used, given what was recorded of one."""
    return _StateGuard(state) if state else _has_no_marks


class _StateGuard:
    """Compares the state of an object when it first meets it. Dynamo does not notice later changes either."""

    def __init__(self, state: Description) -> None:
        self._state = state
        self._met: Callable[[], Any] = lambda: None

    def __call__(self, value: Any) -> bool:
        if self._met() is value and value is not None:
            return True
        try:
            if Describer().describe(value) != self._state:
                return False
            self._met = weakref.ref(value)
        except Exception:  # noqa: BLE001 - an object that cannot be compared is another
            return False
        return True


def _has_no_marks(value: Any) -> bool:
    try:
        return not any(hasattr(value, name) for name in _MARKS)
    except Exception:  # noqa: BLE001 - the module's own code runs
        return False
