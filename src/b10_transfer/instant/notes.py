"""Objects that tracing reads without a guard, noted while a package records."""

from __future__ import annotations

import functools
from typing import Any

from torch._dynamo.variables import functions
from torch._dynamo.variables.builder import SourcelessBuilder

from .recording import recording

_create = SourcelessBuilder.create
_invoke: Any = getattr(functions, "invoke_and_store_as_constant", None)


def install() -> None:
    """Take note from now on, while a package records."""
    SourcelessBuilder.create = staticmethod(_noting_create)  # type: ignore[method-assign]
    functions.invoke_and_store_as_constant = _refusing_invoke


def lacking() -> str:
    """What this torch lacks of what is touched here."""
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
