"""What one trace depends on beside its guards, recorded and compared."""

from __future__ import annotations

import builtins
import contextlib
import enum
import sys
import types
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from .checks import Checks, compare_checks, named_checks
from .code import CodeName, UnresolvableError, digest_of
from .content import ChangedError, Names, compare, describe_classes, free_names, object_named, own_builtins
from .messages import Description, difference
from .names import name_of_function
from .process import configuration
from .releases import is_of_a_release
from .values import Describer, UnrecordableError

_HEAP_TYPE = 1 << 9


@dataclass(frozen=True)
class Dependencies:
    """Everything of the process in which a trace was made that no guard compares, by name and description."""

    bound: dict[CodeName, str]
    """The digest of every function's code that was traced or compared."""
    state: dict[str, str]
    configuration: str
    names: Names
    classes: dict[str, Description]
    objects: dict[tuple[str, str], Description]
    """Functions, classes and enumeration members that tracing read without a guard, by module and name, and builtins
    that a program has set."""
    free: dict[str, tuple[str, ...]]
    """By module, the names of builtins that no global of it hides."""
    checks: Checks
    """Whether one class was a subclass of another that decides so itself, both by module and name."""
    limits: dict[str, str]
    """What functions of ``sys`` returned while it was traced, by their names."""

    @classmethod
    def record(
        cls,
        describer: Describer,
        bound: dict[CodeName, str],
        state: dict[str, str],
        noted: Iterable[object],
        traced: list[types.CodeType],
        scope: dict[str, Any],
        checks: dict[tuple[type, type], bool],
        limits: dict[str, str],
    ) -> Dependencies:
        """Raises UnrecordableError.

        The describer has met what guards compare with; ``scope`` are the globals of the frame.
        """
        names = Names.of(traced)
        objects = {name: describer.describe(value) for name, value in _named(noted)}
        classes = describe_classes(describer, names)
        free = {name.module: free_names(vars(sys.modules[name.module]), names.names) for name in bound}
        free[""] = free_names(scope, names.names)
        for name in own_builtins(set().union(*free.values())):
            objects["builtins", name] = describer.describe(getattr(builtins, name))
        return cls(bound, state, configuration(), names, classes, objects, free, named_checks(checks), limits)

    def check(self, met: Iterable[type], scope: dict[str, Any]) -> None:
        """Raise ChangedError if anything but torch's state differs in this process.

        ``met`` are the classes that the restored guards met, ``scope`` the globals of the frame.
        """
        self._check_code()
        if configuration() != self.configuration:
            raise ChangedError("the configuration of torch's compilers has changed")
        compare_checks(self.checks)
        self._check_limits()
        describer = Describer(met)
        try:
            for name, was in self.objects.items():
                now = describer.describe(object_named(*name))
                if now != was:
                    raise ChangedError(f"{'.'.join(name)} {difference(was, now)}")
            classes = describe_classes(describer, self.names)
        except UnrecordableError as error:
            raise ChangedError(str(error)) from error
        if list(classes) != list(self.classes):
            raise ChangedError("it meets other classes")
        for kind, description in self.classes.items():
            compare(kind, description, classes[kind])
        for module, names in self.free.items():
            hidden = set(names).intersection(vars(sys.modules[module]) if module else scope)
            if hidden:
                raise ChangedError(f"the global {module}.{min(hidden)} is new")

    def has_state(self, state: dict[str, str]) -> bool:
        """Whether torch's state is the one in which the trace was made."""
        return state == self.state

    def _check_limits(self) -> None:
        for name, was in self.limits.items():
            if (now := limit(name)) != was:
                raise ChangedError(f"sys.{name}() was {was}, is {now}")

    def _check_code(self) -> None:
        for name, digest in self.bound.items():
            try:
                same = digest_of(name.resolve()) == digest
            except UnresolvableError as error:
                raise ChangedError(str(error)) from error
            if not same:
                raise ChangedError(f"{name.module}.{name.function} has changed")


def _named(noted: Iterable[object]) -> Iterable[tuple[tuple[str, str], object]]:
    """The objects of a program among those noted, by a name that leads back. Raises UnrecordableError."""
    for value in noted:
        if (name := _name_of(value)) is not None:
            yield _leading_to(value, *name), value


def _leading_to(value: object, module: str, name: str) -> tuple[str, str]:
    """The name if it leads to this very object, or another that does. Raises UnrecordableError."""
    with contextlib.suppress(ChangedError):
        if object_named(module, name) is value:
            return module, name
    if isinstance(value, types.FunctionType) and (found := name_of_function(value)):
        return found
    raise UnrecordableError(f"{module}.{name} is not found, or is no longer what its name stands for")


def _name_of(value: Any) -> tuple[str, str] | None:
    """Where to find an object; None if a trace is bound to it in another way, or it holds nothing of its own."""
    if isinstance(value, enum.Enum):
        return (type(value).__module__, f"{type(value).__qualname__}.{value.name}")
    if isinstance(value, type):
        if not value.__flags__ & _HEAP_TYPE or is_of_a_release(value.__module__):
            return None
    elif isinstance(value, types.FunctionType):
        if is_of_a_release(value.__globals__.get("__name__")):
            return None
        if not (value.__defaults__ or value.__kwdefaults__ or value.__closure__ or vars(value)):
            return None
    return (value.__module__, value.__qualname__)


def limit(name: str) -> str:
    """What a function of ``sys`` returns, as text."""
    return repr(getattr(sys, name)())


def of_interest(value: object) -> bool:
    """Whether an object that tracing reads without a guard may hold anything that differs in another process."""
    return isinstance(value, (types.FunctionType, types.MethodType, type, enum.Enum))
