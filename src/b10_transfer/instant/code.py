"""Code objects: the name by which another process finds one, and a digest of what one does."""

from __future__ import annotations

import hashlib
import inspect
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch._dynamo.package import _get_code_source

from .names import find, path_to_code


class UnresolvableError(Exception):
    """A function that another process could not find by any name."""


@dataclass(frozen=True)
class CodeName:
    """Where another process finds a code object: from a module's function or method, by attributes and indices."""

    module: str
    function: str
    path: str

    @classmethod
    def of(cls, code: types.CodeType) -> CodeName:
        """Raises UnresolvableError unless the name leads back to this very object."""
        try:
            module = inspect.getmodule(code)
            if module is None:
                raise UnresolvableError(f"{code.co_name} ({code.co_filename}) belongs to no module")
            name = cls(module.__name__, *(path_to_code(code, module.__name__) or _get_code_source(code)))
        except UnresolvableError:
            raise
        except Exception as error:
            raise UnresolvableError(f"{code.co_name} ({code.co_filename}): {error}") from error
        if name.resolve() is not code:
            raise UnresolvableError(f"{code.co_name} ({code.co_filename}) is no longer what its name stands for")
        return name

    @classmethod
    def of_function(cls, function: types.FunctionType) -> CodeName | None:
        """The name of a function's code if it leads over this very function; None if it does not."""
        name = cls.of(function.__code__)
        if not name.path.endswith("__code__"):
            return None
        return name if name.function_object() is function else None

    def function_object(self) -> Any:
        """The function that holds the code object of that name. Raises UnresolvableError."""
        return self._walk(self.path.removesuffix("__code__").rstrip("."))

    def _walk(self, path: str) -> Any:
        try:
            return find(self.module, f"{self.function}.{path}" if path else self.function)
        except Exception as error:
            raise UnresolvableError(f"{self.module}.{self.function} is not found: {error}") from error

    def resolve(self) -> types.CodeType:
        """The code object of that name in this process. Raises UnresolvableError."""
        found = self._walk(self.path)
        if not isinstance(found, types.CodeType):
            raise UnresolvableError(f"{self.module}.{self.function} has become something else")
        return found


_digests: dict[int, tuple[types.CodeType, str]] = {}
"""By the object's id, with the object itself so that the id stays its own: equal code objects need not do the same."""


def digest_of(code: types.CodeType) -> str:
    """Of what the code does: bytecode, constants and names, with those of functions inside; no lines and no paths."""
    known = _digests.get(id(code))
    if known is None:
        known = _digests[id(code)] = (code, digest_of_all([code]))
    return known[1]


def digest_of_all(values: object) -> str:
    """Of constants as code holds them, and containers of such; sets and dictionaries in an order of their own."""
    digest = hashlib.sha256()
    _feed(digest.update, values)
    return digest.hexdigest()


def _feed(update: Callable[[bytes], object], value: object) -> None:
    if isinstance(value, types.CodeType):
        counts = (value.co_argcount, value.co_posonlyargcount, value.co_kwonlyargcount, value.co_flags)
        names = (value.co_name, value.co_names, value.co_varnames, value.co_freevars, value.co_cellvars)
        exceptions = getattr(value, "co_exceptiontable", b"")
        update(repr((counts, names, value.co_code, exceptions, len(value.co_consts))).encode())
        for constant in value.co_consts:
            _feed(update, constant)
    elif isinstance(value, (tuple, list, frozenset, set, dict)):
        # Sets come in an order of each process's own.
        update(f"{type(value).__name__} {len(value)} ".encode())
        if isinstance(value, dict):
            value = sorted(value.items(), key=repr)
        for item in value if isinstance(value, (tuple, list)) else sorted(value, key=repr):
            _feed(update, item)
    else:
        update(f"{type(value).__name__} {value!r} ".encode("utf-8", "surrogatepass"))
