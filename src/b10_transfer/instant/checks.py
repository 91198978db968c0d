"""Classes that decide themselves what their instances are: abstract ones with what is registered, and metaclasses.

Dynamo calls them while it traces and takes the answer for constant; no guard compares what they read.
"""

from __future__ import annotations

import types
from abc import ABCMeta
from collections.abc import Iterator
from typing import Any

from .content import ChangedError, object_named
from .releases import is_of_a_release
from .values import UnrecordableError

Checks = dict[tuple[tuple[str, str], tuple[str, str]], bool]
_HEAP_TYPE = 1 << 9


def asked(kind: Any, classes: Any) -> Iterator[tuple[tuple[type, type], bool]]:
    """Which answers count, of whether a class is a subclass of one of others. Raises UnrecordableError."""
    for other in _flat(classes):
        meta = type(other)
        if not isinstance(other, type) or not isinstance(kind, type) or _is_plain(meta):
            continue
        own = [name for name in _DECIDING if not _is_released(getattr(meta, name))]
        if own:
            raise UnrecordableError(f"{other.__module__}.{other.__qualname__} decides by {own[0]} what is one of it")
        if isinstance(other, ABCMeta):
            if getattr(other, "_is_protocol", False) and not is_of_a_release(other.__module__):
                raise UnrecordableError(f"{other.__module__}.{other.__qualname__} is a protocol")
            yield (kind, other), issubclass(kind, other)


_DECIDING = ("__instancecheck__", "__subclasscheck__")


def _is_released(deciding: Any) -> bool:
    if isinstance(deciding, types.FunctionType):
        return is_of_a_release(deciding.__globals__.get("__name__"))
    return any(deciding is getattr(type, name) for name in _DECIDING)


def _is_plain(meta: type) -> bool:
    return all(getattr(meta, name) is getattr(type, name) for name in _DECIDING)


def _flat(classes: Any) -> Iterator[Any]:
    if isinstance(classes, (tuple, types.UnionType)):
        for other in classes if isinstance(classes, tuple) else classes.__args__:
            yield from _flat(other)
    else:
        yield classes


def named_checks(checks: dict[tuple[type, type], bool]) -> Checks:
    """The same by names that lead back to the classes. Raises UnrecordableError."""
    named = {}
    for kinds, answer in checks.items():
        names = tuple((kind.__module__, kind.__qualname__) for kind in kinds)
        for kind, name in zip(kinds, names, strict=True):
            try:
                found = object_named(*name)
            except ChangedError as error:
                found = error
            if found is not kind:
                if not kind.__flags__ & _HEAP_TYPE:  # nameless types of Python itself, such as that of None
                    break
                raise UnrecordableError(f"{'.'.join(name)} is no longer what its name stands for")
        else:
            named[names[0], names[1]] = answer
    return named


def compare_checks(checks: Checks) -> None:
    """Raises ChangedError at the first answer that differs in this process."""
    for (kind, other), was in checks.items():
        now = issubclass(object_named(*kind), object_named(*other))
        if now != was:
            raise ChangedError(f"{'.'.join(kind)} is {'now' if now else 'no longer'} a {'.'.join(other)}")
