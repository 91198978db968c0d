"""What a restored trace is bound to: the code it was made from, and what tracing takes for constant in a process."""

from __future__ import annotations

import ast
import hashlib
import importlib
import inspect
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch._dynamo.config as dynamo_config
import torch._functorch.config as functorch_config
import torch._inductor.config as inductor_config
from torch._dynamo.package import _get_code_source

_OF_THIS_MACHINE = {"base_dir", "debug_dir_root"}
"""Settings of Dynamo that are paths, and change nothing that is compiled."""


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
            name = cls(module.__name__, *_get_code_source(code))
        except UnresolvableError:
            raise
        except Exception as error:
            raise UnresolvableError(f"{code.co_name} ({code.co_filename}): {error}") from error
        if name.resolve() is not code:
            raise UnresolvableError(f"{code.co_name} ({code.co_filename}) is no longer what its name stands for")
        return name

    def resolve(self) -> types.CodeType:
        """The code object of that name in this process. Raises UnresolvableError."""
        try:
            found: Any = importlib.import_module(self.module)
            for part in [*self.function.split("."), *self.path.split(".")]:
                attribute, bracket, index = part.partition("[")
                found = getattr(found, attribute)
                if bracket:
                    found = found[ast.literal_eval(index.removesuffix("]"))]
        except Exception as error:
            raise UnresolvableError(f"{self.module}.{self.function} is not found: {error}") from error
        if not isinstance(found, types.CodeType):
            raise UnresolvableError(f"{self.module}.{self.function} has become something else")
        return found


def digest_of(code: types.CodeType) -> str:
    """Of what the code does: bytecode, constants and names, with those of functions inside; no lines and no paths."""
    digest = hashlib.sha256()
    _feed(digest.update, code)
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


def process_state() -> tuple[object, ...]:
    """What Dynamo takes for constant within a process, without a guard: rank, world size, threads, devices."""
    distributed: Any = torch.distributed
    group: tuple[object, ...] = ()
    if distributed.is_available() and distributed.is_initialized():
        group = (distributed.get_rank(), distributed.get_world_size(), distributed.get_backend())
    cuda: Any = torch.cuda
    devices = (cuda.device_count(), cuda.current_device()) if cuda.is_initialized() else ()
    return (group, torch.get_num_threads(), devices)


def key_of(function: Callable[..., Any], owner: object, how: object) -> str:
    """Names what may be exchanged for one another: one function, compiled in one way under one configuration."""
    code: types.CodeType = function.__code__
    parts: list[object] = [
        1,  # the key's own version
        (function.__module__, function.__qualname__, digest_of(code)),
        _shape_of(owner),
        how,
        (sys.version, sys.flags.optimize, torch.__version__, torch.version.cuda, torch.version.hip),
        sorted(inductor_config.save_config_portable().items()),
        sorted(functorch_config.save_config_portable().items()),
        sorted((k, v) for k, v in dynamo_config.save_config_portable().items() if k not in _OF_THIS_MACHINE),
    ]
    digest = hashlib.sha256()
    _feed(digest.update, parts)
    return digest.hexdigest()


def _shape_of(owner: object) -> object:
    """The types a module is built of: guards tell models apart as well, but each would be tried for each."""
    if isinstance(owner, torch.nn.Module):
        return [(name, type(part).__module__, type(part).__qualname__) for name, part in owner.named_modules()]
    return (type(owner).__module__, type(owner).__qualname__)
