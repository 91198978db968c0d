"""Objects that tracing reads without a guard, noted while a package records."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from torch._dynamo.variables import functions
from torch._dynamo.variables.builder import SourcelessBuilder
from torch._dynamo.variables.builtin import BuiltinVariable

from .recording import recording

_create = SourcelessBuilder.create
_invoke: Any = getattr(functions, "invoke_and_store_as_constant", None)
_builtins: Any = BuiltinVariable
_isinstance: Any = getattr(_builtins, "call_isinstance", None)
_issubclass: Any = getattr(_builtins, "call_issubclass", None)


def install() -> None:
    """Take note from now on, while a package records."""
    SourcelessBuilder.create = staticmethod(_noting_create)  # type: ignore[method-assign]
    functions.invoke_and_store_as_constant = _refusing_invoke
    _builtins.call_isinstance = _noting_isinstance
    _builtins.call_issubclass = _noting_issubclass


def lacking() -> str:
    """What this torch lacks of what is touched here."""
    if not callable(_isinstance) or not callable(_issubclass):
        return "this torch's Dynamo asks for instances in another way"
    return "" if callable(_invoke) else "this torch's Dynamo calls functions for constants in another way"


@functools.wraps(_create)
def _noting_create(tx: Any, value: Any) -> Any:
    """Dynamo wraps a value that has no source: no guard will compare it."""
    if (recorder := recording.get()) is not None:
        recorder.note(value)
    return _create(tx, value)


@functools.wraps(_invoke)
def _refusing_invoke(*arguments: Any, **options: Any) -> Any:
    """Dynamo calls a function of the program, and takes its result for constant."""
    if (recorder := recording.get()) is not None:
        recorder.refuse("torch._dynamo.assume_constant_result is used")
    return _invoke(*arguments, **options)


@functools.wraps(_isinstance)
def _noting_isinstance(variable: Any, tx: Any, value: Any, classes: Any) -> Any:
    """Dynamo asks a class whether a value is one of it: the class's own code, and no guard on what that reads."""
    result = _isinstance(variable, tx, value, classes)
    _note_check(value.python_type, classes)
    return result


@functools.wraps(_issubclass)
def _noting_issubclass(variable: Any, tx: Any, kind: Any, classes: Any) -> Any:
    result = _issubclass(variable, tx, kind, classes)
    _note_check(kind.as_python_constant, classes)
    return result


def _note_check(kind: Callable[[], Any], classes: Any) -> None:
    if (recorder := recording.get()) is not None:
        try:
            recorder.note_check(kind(), classes.as_python_constant())
        except Exception as error:  # noqa: BLE001 - Dynamo raises what it likes, and a class runs its own code
            recorder.refuse(str(error) or type(error).__name__)
