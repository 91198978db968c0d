"""What a trace depends on without a guard: attributes of classes, functions that have no source, names that are free.

Dynamo guards on the type of an object and then takes what its class holds for constant, or guards on it only where it
has found it: a method that a subclass overrides in another process is not noticed. So every class that a trace has
met is compared, by those of its attributes that the traced code names.
"""

from __future__ import annotations

import builtins
import types
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from .messages import Description, difference
from .names import find
from .releases import is_file_of_a_release, is_of_a_release
from .values import Describer, UnrecordableError

_HEAP_TYPE = 1 << 9
_NOT_COMPARED = {
    *("__dict__", "__weakref__", "__doc__", "__module__", "__qualname__", "__annotations__", "__annotate__"),
    *("__firstlineno__", "__static_attributes__", "__orig_bases__", "__parameters__", "__type_params__"),
    *("__abstractmethods__", "_abc_impl", "__annotations_cache__", "__annotate_func__", "__classdictcell__"),
    "__slotnames__",  # where pickling remembers the names of slots
}
_DYNAMIC = {
    *("__dict__", "vars", "dir", "getmembers", "getattr", "hasattr", "getattr_static", "__getattribute__"),
    *("attrgetter", "methodcaller", "__getattr__"),
}
"""Code that names one of these may read an attribute whose name is not in the code."""


class ChangedError(Exception):
    """Something that a trace depends on differs in this process; the message names it."""


@dataclass(frozen=True)
class Names:
    """The names of attributes that traced code may read."""

    names: frozenset[str]
    every: bool
    """Code outside of torch and Python may read attributes by names that are not in it."""

    @classmethod
    def of(cls, codes: Iterable[types.CodeType]) -> Names:
        """Those in the bytecode, and the strings among the constants."""
        found: set[str] = set()
        every = False
        for code in codes:
            own = set(_names_in(code))
            every = every or bool(own & _DYNAMIC and not is_file_of_a_release(code.co_filename))
            found |= own
        return cls(frozenset(found), every)

    def may_include(self, name: str, of_a_release: bool) -> bool:
        if name in self.names:
            return True
        special = name.startswith("__") and name.endswith("__")
        return not of_a_release and name not in _NOT_COMPARED and (self.every or special)


def _names_in(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names_in(constant)
        elif isinstance(constant, str):
            yield constant
        elif isinstance(constant, (tuple, frozenset)):
            yield from (item for item in constant if isinstance(item, str))


def describe_classes(describer: Describer, names: Names) -> dict[str, Description]:
    """Every class that the describer has met or meets while it describes them. Raises UnrecordableError."""
    described: dict[str, Description] = {}
    number = 0
    while number < len(describer.classes):  # it grows
        kind = list(describer.classes)[number]
        number += 1
        described[f"{number} {kind.__module__}.{kind.__qualname__}"] = _class(describer, kind, names)
    return described


def _class(describer: Describer, kind: type, names: Names) -> Description:
    owners = [owner for owner in kind.__mro__ if owner.__flags__ & _HEAP_TYPE]
    order = tuple(f"{owner.__module__}.{owner.__qualname__}" for owner in kind.__mro__)
    return (describer.name_of_class(type(kind)), order, *(_own_attributes(describer, owner, names) for owner in owners))


def _own_attributes(describer: Describer, owner: type, names: Names) -> Description:
    """What one class holds itself, of what the trace may have read."""
    of_a_release = is_of_a_release(owner.__module__)
    describe = describer.lenient if of_a_release else describer.describe
    found = []
    for name, value in sorted(vars(owner).items(), key=lambda item: str(item[0])):
        if not names.may_include(name, of_a_release):
            continue
        try:
            found.append((name, describe(value)))
        except UnrecordableError as error:
            raise UnrecordableError(f"{owner.__qualname__}.{name}: {error}") from error
    return tuple(found)


def compare(where: str, was: Any, now: Any) -> None:
    """Raises ChangedError with the innermost difference of two descriptions of a class."""
    if was == now:
        return
    kind = where.partition(" ")[2] or where
    before, after = ({name: value for owner in part[2:] for name, value in owner} for part in (was, now))
    if was[:2] != now[:2]:
        raise ChangedError(f"{kind} has other bases")
    for name in {**before, **after}:
        if name not in before or name not in after:
            raise ChangedError(f"{kind}.{name} is {'new' if name in after else 'missing'}")
        if before[name] != after[name]:
            raise ChangedError(f"{kind}.{name} {difference(before[name], after[name])}")
    raise ChangedError(f"{kind} overrides others of its attributes")


def object_named(module: str, name: str) -> Any:
    """A class or function by its names. Raises ChangedError if there is none."""
    try:
        return find(module, name)
    except Exception as error:
        raise ChangedError(f"{module}.{name} is not found: {error}") from error


def free_names(scope: dict[str, Any], names: Iterable[str]) -> tuple[str, ...]:
    """Names of builtins that no global hides."""
    return tuple(sorted(name for name in names if name not in scope and hasattr(builtins, name)))


def own_builtins(names: Iterable[str]) -> list[str]:
    """Names of builtins that a program has set: Dynamo guards on functions among them, and on nothing else."""
    found = []
    for name in sorted(names):
        value = getattr(builtins, name, None)
        owner = getattr(value, "__module__", type(value).__module__)
        is_function = callable(value) and owner in _OF_BUILTINS
        if hasattr(builtins, name) and not name.startswith("__") and not is_function:
            found.append(name)
    return found


_OF_BUILTINS = ("builtins", "_sitebuiltins", "io", "_io")
