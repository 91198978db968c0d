"""The Python code of a program that runs while one of its frames is compiled.

Dynamo reads a program's code and does not run it. Where torch does run some (methods of enumeration members, kernels
that compute on tensors without data, compiler passes), the trace holds what that code returned, and no guard compares
what the code read.
"""

from __future__ import annotations

import cProfile
import gc
import os
import sys
import threading
import types
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from typing import Any

from torch._inductor.runtime.cache_dir_utils import cache_dir

from .recording import PassingError
from .releases import is_file_of_a_package, is_file_of_a_release, is_of_a_release

# fmt: off
_LIBRARIES = (
    "sympy", "mpmath", "networkx", "numpy", "filelock", "typing_extensions", "_distutils_hack", "setuptools",
    "jinja2", "markupsafe", "fsspec", "optree", "packaging", "psutil", "triton", "torchgen", "functorch", "tqdm",
    "tabulate", "cutlass", "cutlass_library", "ck4inductor", "b10_transfer",
)
"""What torch's compilers use beside Python's own modules."""
_GENERATED = frozenset((
    "<module>", "<lambda>", "guard", "___make_guard_fn", "__create_fn__", "__init__", "__new__", "__setattr__",
    "__delattr__", "__eq__", "__hash__", "__repr__", "__lt__", "__le__", "__gt__", "__ge__",
))
# fmt: on
"""Without a file: expressions that ``eval`` runs, guards, functions that dataclasses and named tuples generate."""
_SOURCES = ("<eval_with_key>", "<class 'networkx.", "<lambdifygenerated", "<template>")
"""Of graphs of torch.fx, and of what networkx, sympy and jinja2 generate."""


class RanError(Exception):
    """Code of the program has run."""


class UnwatchableError(PassingError):
    """It cannot be seen whether code of the program has run."""


class _Profiler:
    """The profiler in C. Before Python 3.12 it sees the thread that starts it."""

    def __init__(self) -> None:
        if sys.getprofile() is not None:
            raise UnwatchableError("another profiler is active")
        self._profiler = cProfile.Profile(subcalls=False, builtins=False)
        self._profiler.enable(subcalls=False, builtins=False)

    def stop(self) -> set[types.CodeType]:
        """The code that ran."""
        self._profiler.disable()
        return {entry.code for entry in self._profiler.getstats() if isinstance(entry.code, types.CodeType)}


class _Monitor:
    """``sys.monitoring``. From Python 3.12 on the profiler in C sees every thread."""

    def __init__(self) -> None:
        self._monitoring: Any = sys.monitoring  # type: ignore[attr-defined,unused-ignore]
        free = [number for number in range(6) if self._monitoring.get_tool(number) is None]
        if not free:
            raise UnwatchableError("other profilers use every tool of sys.monitoring")
        self._tool = free[-1]
        self._ran: set[types.CodeType] = set()
        self._thread = threading.get_ident()
        events = self._monitoring.events
        self._monitoring.use_tool_id(self._tool, "b10_transfer")
        for event in (events.PY_START, events.PY_RESUME):
            self._monitoring.register_callback(self._tool, event, self._note)
        self._monitoring.set_events(self._tool, events.PY_START | events.PY_RESUME)

    def _note(self, code: types.CodeType, _offset: int) -> None:
        if threading.get_ident() == self._thread:
            self._ran.add(code)

    def stop(self) -> set[types.CodeType]:
        """The code that ran."""
        self._monitoring.set_events(self._tool, 0)
        self._monitoring.free_tool_id(self._tool)
        return self._ran


_start: Callable[[], _Profiler | _Monitor] = _Monitor if sys.version_info >= (3, 12) else _Profiler
_current = threading.local()


class Watch:
    """Collects the code that runs in the thread that enters it."""

    def __init__(self) -> None:
        self._ran: set[types.CodeType] = set()
        self._modules: frozenset[str] = frozenset()
        self._problem = ""
        self._watcher: _Profiler | _Monitor | None = None
        self._outer: Watch | None = None

    def __enter__(self) -> Watch:
        self._outer = getattr(_current, "watch", None)
        if self._outer is not None:
            self._outer.pause()
        _current.watch = self
        self._modules = frozenset(sys.modules)
        self.resume()
        return self

    def __exit__(self, *_error: object) -> None:
        self.pause()
        _current.watch = self._outer
        if self._outer is not None:
            self._outer._ran |= self._ran
            self._outer._problem = self._outer._problem or self._problem
            self._outer.resume()

    def resume(self) -> None:
        try:
            self._watcher = _start()
        except Exception as error:  # noqa: BLE001 - the compilation must go on as if we were not there
            self._problem = str(error) or type(error).__name__

    def pause(self) -> None:
        if self._watcher is not None:
            self._ran |= self._watcher.stop()
            self._watcher = None

    def check(self, allowed: Container[types.CodeType] = ()) -> None:
        """Raises RanError if other code of the program has run since the watch began, UnwatchableError if unknown."""
        self.pause()
        if self._problem:
            raise UnwatchableError(f"the code that runs while it is traced cannot be watched: {self._problem}")
        ran = sorted(f"{code.co_name} ({code.co_filename})" for code in self.ran() if code not in allowed)
        self.resume()
        if ran:
            raise RanError(f"{ran[0]} ran while it was traced, and its result may be part of the trace")

    def ran(self) -> list[types.CodeType]:
        """The code of the program that has run before the watch was paused."""
        return _of_the_program(self._ran, self._imported())

    def _imported(self) -> frozenset[str]:
        """Files of the installed modules that were imported since the watch began.

        torch imports more while it compiles: what is installed decides which (tqdm, for example). The code of a module
        runs when it is imported.
        """
        names = sys.modules.keys() - self._modules
        files = (getattr(sys.modules.get(name), "__file__", None) for name in names)
        return frozenset(file for file in files if isinstance(file, str) and is_file_of_a_package(file))


@contextmanager
def unwatched() -> Iterator[None]:
    """Leave out code whose result no trace holds, or that is asked again before a trace is restored."""
    watch: Watch | None = getattr(_current, "watch", None)
    if watch is None or watch._watcher is None:
        yield
        return
    watch.pause()
    try:
        yield
    finally:
        watch.resume()


_of_libraries: dict[int, types.CodeType] = {}
"""By the object's id, with the object itself so that the id stays its own."""


def _of_finders() -> Iterator[types.CodeType]:
    """The code that finds modules. Which ones it has found is compared: restored guards import them again."""
    for finder in sys.meta_path:
        for function in (*getattr(finder, "__dict__", {}).values(), *vars(type(finder)).values()):
            if isinstance(function, types.FunctionType):
                yield function.__code__


def _of_the_program(ran: set[types.CodeType], imported: frozenset[str]) -> list[types.CodeType]:
    folders = (*_folders(), cache_dir() + os.sep)
    others = [
        code
        for code in ran.difference(_of_finders())
        if id(code) not in _of_libraries and code.co_filename not in imported and not _is_of_a_library(code, folders)
    ]
    generated = [code for code in others if code.co_filename.startswith("<")]
    for function in gc.get_referrers(*generated) if generated else ():
        if isinstance(function, types.FunctionType) and _is_generated_by_torch(function):
            _of_libraries[id(function.__code__)] = function.__code__
    return [code for code in others if id(code) not in _of_libraries]


def _is_generated_by_torch(function: types.FunctionType) -> bool:
    module = function.__module__ or function.__globals__.get("__name__")
    handler: Any = getattr(sys.modules.get("torch._inductor.ops_handler"), "DefaultHandler", None)
    return is_of_a_release(module) or vars(handler).get(function.__name__) is function


def _is_of_a_library(code: types.CodeType, folders: tuple[str, ...]) -> bool:
    file = code.co_filename
    if file == "<string>":
        return code.co_name in _GENERATED or code.co_name.startswith("monomial_")  # of sympy
    if code.co_name == "<module>" and is_file_of_a_package(file):
        return True  # an import, also if the module is gone again: setuptools removes some
    if file.startswith(_SOURCES) or code.co_name == "__del__":  # no result of a finalizer is part of a trace
        return True
    return is_file_of_a_release(file) or file.startswith(folders)


def _folders() -> list[str]:
    """Where the libraries of torch's compilers lie, of those that are imported."""
    modules = [module for name in _LIBRARIES if (module := sys.modules.get(name)) is not None]
    files = [str(getattr(module, "__file__", None) or "") for module in modules]
    return [file.removesuffix("__init__.py") for file in files if file]
