"""Values that tracing reads without a guard: noted, or guarded after all, while a package records."""

from __future__ import annotations

import functools
import sys
import types
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch._dynamo.guards import GuardBuilder
from torch._dynamo.source import SkipGuardSource
from torch._dynamo.symbolic_convert import InliningInstructionTranslator
from torch._dynamo.variables import functions
from torch._dynamo.variables.builder import SourcelessBuilder, VariableBuilder
from torch._dynamo.variables.builtin import BuiltinVariable
from torch._dynamo.variables.dicts import ConstDictVariable

from .hidden import answers_in_python
from .recording import recording
from .values import DESCRIPTORS
from .watching import unwatched

_builder: Any = VariableBuilder
_builtins: Any = BuiltinVariable
_dictionary: Any = ConstDictVariable
_polyfilled: Any = functions.PolyfilledFunctionVariable
_translator: Any = InliningInstructionTranslator
_create = SourcelessBuilder.create
_invoke: Any = getattr(functions, "invoke_and_store_as_constant", None)
_isinstance: Any = getattr(_builtins, "call_isinstance", None)
_issubclass: Any = getattr(_builtins, "call_issubclass", None)
_wrap: Any = getattr(_builder, "_wrap", None)
_wrap_module: Any = getattr(_builder, "wrap_module", None)
_item: Any = getattr(_dictionary, "getitem_const_raise_exception_if_absent", None)
_global: Any = getattr(_translator, "get_globals_source_and_value", None)
_call: Any = getattr(_polyfilled, "call_function", None)


def install() -> None:
    """Take note from now on, while a package records."""
    SourcelessBuilder.create = staticmethod(_noting_create)  # type: ignore[method-assign]
    functions.invoke_and_store_as_constant = _refusing_invoke
    _builtins.call_isinstance = _noting_isinstance
    _builtins.call_issubclass = _noting_issubclass
    _builder._wrap = _guarding_wrap
    _builder.wrap_module = _unwatched_wrap_module
    _dictionary.getitem_const_raise_exception_if_absent = _guarding_item
    _translator.get_globals_source_and_value = _guarding_global
    _polyfilled.call_function = _noting_call


def lacking() -> str:
    """What this torch lacks of what is touched here."""
    if not callable(_isinstance) or not callable(_issubclass):
        return "this torch's Dynamo asks for instances in another way"
    if not all(map(callable, (_wrap, _wrap_module, _item, _global))):
        return "this torch's Dynamo reads values in another way"
    return "" if callable(_invoke) and callable(_call) else "this torch's Dynamo calls functions in another way"


@functools.wraps(_create)
def _noting_create(tx: Any, value: Any) -> Any:
    """Dynamo wraps a value that has no source: no guard will compare it."""
    if (recorder := recording.get()) is not None:
        recorder.note(value)
    return _create(tx, value)


@functools.wraps(_wrap)
def _guarding_wrap(builder: Any, value: Any) -> Any:
    """Dynamo guards neither on descriptors in C nor on classes of tensors."""
    result = _wrap(builder, value)
    if (recorder := recording.get()) is not None:
        if isinstance(value, types.MethodWrapperType):
            recorder.refuse(f"{value} has no identity that could be compared")
        elif isinstance(value, DESCRIPTORS):
            builder.install_guards(GuardBuilder.ID_MATCH)
        elif isinstance(value, type) and issubclass(value, torch.Tensor):
            builder.install_guards(GuardBuilder.CLASS_MATCH)
    return result


@functools.wraps(_wrap_module)
def _unwatched_wrap_module(builder: Any, module: Any) -> Any:
    """Dynamo looks for marks of its own. If a class answers in Python, the answers are recorded (see hidden.py)."""
    with unwatched() if answers_in_python(module) else nullcontext():
        return _wrap_module(builder, module)


@functools.wraps(_global)
def _guarding_global(tx: Any, name: str) -> Any:
    """Dynamo does not guard on globals of Python's own modules. Some hold what a program sets, such as os.environ."""
    module, variable, source = _global(tx, name)
    if recording.get() is not None and isinstance(source, SkipGuardSource) and isinstance(module, types.ModuleType):
        value = vars(module).get(name)
        if value is not None and not isinstance(value, _FIXED):
            source = source.base
    return module, variable, source


_FIXED = (type, types.FunctionType, types.BuiltinFunctionType, types.ModuleType)
"""What a module of Python's own defines and no program sets."""


@functools.wraps(_item)
def _guarding_item(dictionary: Any, tx: Any, key: Any) -> Any:
    """Dynamo guards on an item that it finds in a dictionary, and not on one that is missing."""
    if recording.get() is not None and key not in dictionary:
        dictionary.install_dict_contains_guard(tx, [key])
    return _item(dictionary, tx, key)


@functools.wraps(_invoke)
def _refusing_invoke(*arguments: Any, **options: Any) -> Any:
    """Dynamo calls a function of the program, and takes its result for constant."""
    if (recorder := recording.get()) is not None:
        recorder.refuse("torch._dynamo.assume_constant_result is used")
    return _invoke(*arguments, **options)


@functools.wraps(_call)
def _noting_call(variable: Any, *arguments: Any) -> Any:
    """Dynamo calls sys.getrecursionlimit and others of its kind, and takes their result for constant."""
    function = variable.fn
    if (recorder := recording.get()) is not None and function.__module__ == "sys" and function is not sys.intern:
        recorder.note_limit(function.__name__)
    return _call(variable, *arguments)


@functools.wraps(_isinstance)
def _noting_isinstance(variable: Any, tx: Any, value: Any, classes: Any) -> Any:
    """Dynamo asks a class whether a value is one of it: the class's own code, and no guard on what that reads."""
    with unwatched():  # the answer is recorded
        result = _isinstance(variable, tx, value, classes)
    _note_check(value.python_type, classes)
    return result


@functools.wraps(_issubclass)
def _noting_issubclass(variable: Any, tx: Any, kind: Any, classes: Any) -> Any:
    with unwatched():
        result = _issubclass(variable, tx, kind, classes)
    _note_check(kind.as_python_constant, classes)
    return result


def _note_check(kind: Callable[[], Any], classes: Any) -> None:
    if (recorder := recording.get()) is not None:
        try:
            recorder.note_check(kind(), classes.as_python_constant())
        except Exception as error:  # noqa: BLE001 - Dynamo raises what it likes, and a class runs its own code
            recorder.refuse(str(error) or type(error).__name__)
