"""Descriptions of values: two values with equal descriptions give equal traces.

A description is a nested tuple of strings, so it refers to no live object, and no two kinds of value compare equal:
``True``, ``1`` and ``1.0`` differ, and so do ``0.0`` and ``-0.0``. Only listed kinds of value have a description.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import enum
import functools
import math
import re
import sys
import types
import typing
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch._dynamo.guards import _Missing

from .accessors import reads_only_state
from .code import digest_of
from .messages import Description
from .releases import is_of_a_release

_MAX_VALUES = 20_000
_HEAP_TYPE = 1 << 9
_SLOT = type(type("_", (), {"__slots__": ("x",)}).__dict__["x"])
_CELL = type((lambda x: lambda: x)(0).__closure__[0])  # type: ignore[index]
_FIELD: Any = type(collections.namedtuple("_", "x").x)  # type: ignore[attr-defined]
_BY_TEXT = (
    torch.dtype,
    torch.device,
    torch.layout,
    torch.memory_format,
    torch.finfo,
    torch.iinfo,
    torch.DispatchKey,
    torch._C.DispatchKeySet,
    types.GenericAlias,
    types.UnionType,
    typing._GenericAlias,  # type: ignore[attr-defined]
    typing.TypeVar,
    typing.ForwardRef,
)
_SCALARS = (bool, int, str, bytes, type(None), type(Ellipsis), type(NotImplemented))
DESCRIPTORS = (
    types.MethodDescriptorType,
    types.WrapperDescriptorType,
    types.ClassMethodDescriptorType,
    types.GetSetDescriptorType,
    types.MemberDescriptorType,
)
"""The kinds of attribute that a class in C has."""
_C_FUNCTIONS = (types.BuiltinFunctionType, types.MethodWrapperType, *DESCRIPTORS)
_NOT_ATTRIBUTES = {"__wrapped__", "_torchdynamo_wrapper_id"}
"""What a function's closure holds, too, and an address that torch notes of what it wraps."""
_OF_ENUM = {"_value_", "_name_", "__objclass__", "_sort_order_", "__module__", "__doc__"}


class UnrecordableError(Exception):
    """A value that cannot be compared with one of another process."""


class Describer:
    """Describes values, and collects the classes it meets: their attributes count as well.

    ``codes`` are the ids of the code objects whose digests are in its descriptions.
    """

    def __init__(self, met: Iterable[type] = ()) -> None:
        self.classes: dict[type, None] = dict.fromkeys(met)
        self.codes: set[int] = set()
        self._open: list[int] = []
        self._count = 0

    def describe(self, value: Any) -> Description:
        """Raises UnrecordableError."""
        self._count = self._count + 1 if self._open else 1
        if self._count > _MAX_VALUES:
            raise UnrecordableError(f"it holds more than {_MAX_VALUES} values")
        if id(value) in self._open:
            return ("outer", str(len(self._open) - self._open.index(id(value))))
        self._open.append(id(value))
        try:
            return self._describe(value)
        finally:
            self._open.pop()

    def describe_all(self, values: Iterable[Any]) -> Description:
        return tuple(self.describe(value) for value in values)

    def _describe(self, value: Any) -> Description:
        kind = type(value)
        if kind in _SCALARS:
            return (kind.__name__, repr(value))
        if kind in _BY_KIND:
            return _BY_KIND[kind](self, value)
        for base, describe in _BY_BASE:
            if isinstance(value, base):
                return describe(self, value)
        return self._instance(value)

    def name_of_class(self, value: type) -> Description:
        """A class by name. What it holds is compared by itself."""
        self.classes.setdefault(value)
        return ("class", value.__module__, value.__qualname__)

    def function(self, function: types.FunctionType) -> Description:
        """A function by names, documentation, code, defaults, closure, attributes and annotations."""
        attributes = {k: v for k, v in vars(function).items() if k not in _NOT_ATTRIBUTES}
        parts = [function.__defaults__, function.__kwdefaults__, function.__closure__ or (), attributes]
        names = (function.__module__, function.__qualname__, function.__name__, str(function.__doc__))
        self.codes.add(id(function.__code__))
        describe = self.lenient if is_of_a_release(function.__globals__.get("__name__")) else self.describe
        described = tuple(describe(part) for part in parts)
        return ("function", *names, digest_of(function.__code__), *described, _annotations(function))

    def lenient(self, value: Any) -> Description:
        """Leave out what a function of torch or of Python itself holds and cannot be described: it has a version."""
        if type(value) is tuple:
            return tuple(self.lenient(item) for item in value)
        try:
            return self.describe(value)
        except UnrecordableError:
            return ("left out", type(value).__qualname__)

    def _instance(self, value: Any) -> Description:
        """An instance of a Python class: its state is in its attributes, and in its items if it is a container."""
        kind = type(value)
        bases = [base for base in kind.__mro__[:-1] if not _is_python_class(base)]
        is_known = not bases or (bases[0] in _BASES_WITH_ITEMS and bases == list(bases[0].__mro__[:-1]))
        if kind is _Missing or not is_known or not reads_only_state(value):
            raise UnrecordableError(f"a {kind.__module__}.{kind.__qualname__}")
        items = self.describe(_BASES_WITH_ITEMS[bases[0]](value)) if bases else ()
        return ("instance", self.name_of_class(kind), items, self.attributes(value))

    def attributes(self, value: Any) -> Description:
        names = [name for base in type(value).__mro__ for name, slot in vars(base).items() if type(slot) is _SLOT]
        state = {name: getattr(value, name) for name in names if hasattr(value, name)}
        with contextlib.suppress(AttributeError):
            state |= object.__getattribute__(value, "__dict__")
        return self.describe(state)


_BASES_WITH_ITEMS: dict[type, Callable[[Any], Any]] = {
    collections.OrderedDict: lambda value: list(collections.OrderedDict.items(value)),
    dict: lambda value: dict(dict.items(value)),
    list: lambda value: list(list.__iter__(value)),
    tuple: lambda value: tuple(tuple.__iter__(value)),
    set: lambda value: set(set.__iter__(value)),
    int: int.__int__,
    float: float.__float__,
    str: lambda value: str.__str__(value)[:],
    property: lambda value: [getattr(property, name).__get__(value) for name in ("fget", "fset", "fdel")],
}
"""The classes in C that an instance's class may derive from, and how its own items are read."""


def _is_python_class(kind: type) -> bool:
    """Whether the state of an instance is in its attributes and slots alone: no class in C adds memory of its own."""
    if not kind.__flags__ & _HEAP_TYPE or not any(
        {"__dict__", "__slots__"} & vars(base).keys() for base in kind.__mro__
    ):
        return False
    if kind.__base__ in _BASES_WITH_ITEMS or kind.__base__ is None:
        return True
    slots = sum(type(slot) is _SLOT for slot in vars(kind).values())
    added = kind.__basicsize__ - kind.__base__.__basicsize__
    return added <= _POINTER * (slots + 2)  # two more for __dict__ and __weakref__


_POINTER = 8


def _annotations(function: types.FunctionType) -> Description:
    """By text: they are not part of what a function does, and may be anything."""
    try:
        annotations = function.__annotations__
    except Exception as error:  # noqa: BLE001 - from Python 3.14 on they are code that runs now
        return ("not defined", type(error).__name__)
    return tuple((name, _annotation(value)) for name, value in annotations.items())


def _annotation(value: Any) -> str:
    return f"{value.__module__}.{value.__qualname__}" if isinstance(value, type) else _ADDRESS.sub("", repr(value))


_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def _float(_describer: Describer, value: float) -> Description:
    return ("float", f"{'-' if math.copysign(1, value) < 0 else ''}nan" if math.isnan(value) else repr(value))


def _complex(describer: Describer, value: complex) -> Description:
    return ("complex", describer.describe(value.real), describer.describe(value.imag))


def _sequence(describer: Describer, value: Any) -> Description:
    return (type(value).__name__, *describer.describe_all(value))


def _set(describer: Describer, value: Any) -> Description:
    return (type(value).__name__, *sorted(describer.describe_all(value), key=repr))


def _dict(describer: Describer, value: Any) -> Description:
    pairs = tuple((describer.describe(k), describer.describe(v)) for k, v in value.items())
    factory = describer.describe(getattr(value, "default_factory", None))
    return (type(value).__name__, factory, *pairs)


def _range(_describer: Describer, value: Any) -> Description:
    return (type(value).__name__, repr(value))


def _slice(describer: Describer, value: slice) -> Description:
    return ("slice", *describer.describe_all((value.start, value.stop, value.step)))


def _pattern(describer: Describer, value: re.Pattern[Any]) -> Description:
    return ("pattern", describer.describe(value.pattern), str(value.flags))


def _cell(describer: Describer, value: types.CellType) -> Description:
    try:
        return ("cell", describer.describe(value.cell_contents))
    except ValueError:
        return ("empty cell",)


def _partial(describer: Describer, value: functools.partial[Any]) -> Description:
    return ("partial", *describer.describe_all((value.func, value.args, value.keywords)))


def _method(describer: Describer, value: types.MethodType) -> Description:
    return ("method", *describer.describe_all((value.__func__, value.__self__)))


def _property(describer: Describer, value: property) -> Description:
    return ("property", *describer.describe_all((value.fget, value.fset, value.fdel)))


def _wrapper(describer: Describer, value: Any) -> Description:
    return (type(value).__name__, describer.describe(value.__func__))


def _code(describer: Describer, value: types.CodeType) -> Description:
    describer.codes.add(id(value))
    return ("code", value.co_name, digest_of(value))


def _namespace(describer: Describer, value: types.SimpleNamespace) -> Description:
    return ("namespace", describer.describe(vars(value)))


def _by_text(_describer: Describer, value: Any) -> Description:
    return (type(value).__name__, repr(value))


def _module(_describer: Describer, value: types.ModuleType) -> Description:
    name = value.__name__
    if sys.modules.get(name) is not value and not is_of_a_release(type(value).__module__):
        raise UnrecordableError(f"the module {name}, which is not imported under its name")
    return ("module", name)


def _class(describer: Describer, value: type) -> Description:
    return describer.name_of_class(value)


def _enum(describer: Describer, value: enum.Enum) -> Description:
    others = {name: other for name, other in vars(value).items() if name not in _OF_ENUM}
    return ("enum", describer.name_of_class(type(value)), value.name, *describer.describe_all((value._value_, others)))


def _c_function(describer: Describer, value: Any) -> Description:
    owner = getattr(value, "__objclass__", getattr(value, "__self__", None))
    name = str(value.__name__)
    module = sys.modules.get(str(value.__module__)) if hasattr(value, "__module__") else None
    if owner is None or isinstance(owner, (type, types.ModuleType)):
        place = getattr(owner, "__qualname__", getattr(owner, "__name__", str(getattr(value, "__module__", ""))))
        return ("C function", type(value).__name__, place, name)
    if module is not None and getattr(module, name, None) is value:  # made by pybind11
        return ("C function", type(value).__name__, module.__name__, name)
    return ("C method", name, describer.describe(owner))


def _operator(_describer: Describer, value: Any) -> Description:
    return ("operator", type(value).__name__, str(value))


def _opaque(describer: Describer, value: Any) -> Description:
    """A tensor or a module: what a trace reads of one has guards of its own, or cannot be traced."""
    return ("opaque", describer.name_of_class(type(value)))


_BY_KIND: dict[type, Callable[[Describer, Any], Description]] = {
    float: _float,
    complex: _complex,
    tuple: _sequence,
    list: _sequence,
    torch.Size: _sequence,
    type({}.keys()): _sequence,
    collections.deque: _sequence,
    set: _set,
    frozenset: _set,
    dict: _dict,
    collections.OrderedDict: _dict,
    collections.defaultdict: _dict,
    types.MappingProxyType: _dict,
    range: _range,
    slice: _slice,
    re.Pattern: _pattern,
    _CELL: _cell,
    functools.partial: _partial,
    types.MethodType: _method,
    types.FunctionType: Describer.function,
    types.CodeType: _code,
    property: _property,
    staticmethod: _wrapper,
    classmethod: _wrapper,
    types.SimpleNamespace: _namespace,
    _FIELD: lambda _d, v: ("field number", str(v.__reduce__()[1][0])),
    functools.cached_property: lambda d, v: ("cached property", d.describe(v.func)),  # noqa: TID251  # only looked at
    functools._lru_cache_wrapper: lambda d, v: ("cached", *d.describe_all((v.__wrapped__, v.cache_parameters()))),
    **dict.fromkeys(_BY_TEXT, _by_text),
    **dict.fromkeys(_C_FUNCTIONS, _c_function),
}
_BY_BASE: list[tuple[Any, Callable[[Describer, Any], Description]]] = [
    (type, _class),
    (types.ModuleType, _module),
    (enum.Enum, _enum),
    (torch.Tensor, _opaque),
    (torch.nn.Module, _opaque),
    ((torch._ops.OpOverload, torch._ops.OpOverloadPacket, torch._ops.HigherOrderOperator), _operator),
    (dataclasses.Field, lambda d, v: ("field", v.name, *d.describe_all((v.default, v.default_factory, v.init)))),
]
