"""Where instant starts take hold of torch: its private parts, each looked for before it is touched."""

from __future__ import annotations

import functools
import inspect
import itertools
import logging
import secrets
import sys
import threading
import types
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import torch._dynamo
import torch._inductor.config as inductor_config
from torch._C._dynamo.eval_frame import _reset_precompile_entries
from torch._dynamo import bytecode_transformation, convert_frame, eval_frame
from torch._dynamo import guards as dynamo_guards
from torch._dynamo.guards import CheckFunctionManager
from torch._dynamo.mutation_guard import install_generation_tagging_init
from torch._inductor.runtime.cache_dir_utils import cache_dir

from . import arbitrary, graphs, notes, refusals
from .files import write_refusal
from .guards import Manager, Pickler
from .messages import with_remedy
from .package import Package
from .process import key_of
from .restoring import Found, read_all, restore
from .tally import Tally, lines

logger = logging.getLogger(__name__)

_lock = threading.RLock()
_installed = False
_packages: list[Package] = []
_tallies: list[Tally] = []
"""Of each function that was compiled, with a package or without."""
_keys: dict[types.CodeType, set[str]] = {}
"""Of each function that has been compiled: the ways in which it was."""
_files: set[Path] = set()
"""The files that may be unpickled."""
_optimize = torch._dynamo.optimize
_RECURSION = 2000
"""Inductor's own."""


def accept(files: Iterable[Path]) -> None:
    """Let later calls of torch.compile unpickle these files."""
    with _lock:
        _files.update(files)


def install() -> str:
    """Have every later torch.compile record and restore; empty, or why not. Harmless when called again."""
    global _installed
    with _lock:
        if _installed:
            return ""
        if reason := _lacking():
            return reason
        # Dynamo numbers the names it puts among a module's globals from 0 in every process: those of another process
        # would meet ours ("Name '__builtins_dict___0' already exists in scope", torch 2.13). From a random number on,
        # they do not.
        bytecode_transformation._unique_id_counter = itertools.count(secrets.randbits(48))
        for module in (dynamo_guards, convert_frame):
            module.CheckFunctionManager = Manager  # type: ignore[attr-defined]
        dynamo_guards.GuardsStatePickler = Pickler  # type: ignore[misc]
        graphs.install()
        notes.install()
        arbitrary.install()
        # Inductor does the same before it compiles. Traced code that reads the limit finds it equal from the start.
        sys.setrecursionlimit(max(sys.getrecursionlimit(), _RECURSION))
        install_generation_tagging_init()  # Dynamo replaces a method of nn.Module when it first compiles
        torch._dynamo.optimize = _instant_optimize
        _installed = True
        return ""


def _lacking() -> str:
    """What this torch lacks of what is touched here, or what is set that does not go with it."""
    if torch._dynamo.config.caching_precompile:
        return "torch's own caching_precompile is on, which drops guards"
    if "package" not in inspect.signature(eval_frame._optimize).parameters:
        return "this torch's Dynamo takes no package"
    if type(getattr(bytecode_transformation, "_unique_id_counter", None)) is not itertools.count:
        return "this torch's Dynamo names its globals in another way"
    parameters = inspect.signature(CheckFunctionManager).parameters
    if not {"save_guards", "runtime_global_scope", "shape_code_parts"} <= set(parameters):
        return "this torch's guards cannot be restored"
    return graphs.lacking() or notes.lacking() or arbitrary.lacking()


@functools.wraps(_optimize)
def _instant_optimize(*arguments: Any, **options: Any) -> Any:
    def compiled(function: Any) -> Any:
        package = None
        try:
            package = _package_for(function, arguments, options)
        except Exception as error:  # the compilation must go on as if we were not there
            name, kind = _name_of(function), type(error).__name__
            logger.warning("instant start: %s: warm, because of %s: %s", name, kind, error)
            logger.debug("instant start", exc_info=True)
        if package is None:
            return _optimize(*arguments, **options)(function)
        return _optimize(*arguments, package=package, **options)(function)

    return compiled


def _package_for(function: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> Package | None:
    target = function.forward if isinstance(function, torch.nn.Module) else function
    target = eval_frame.innermost_fn(target)
    code = getattr(target, "__code__", None)
    reason = _unsupported(options, arguments) if isinstance(code, types.CodeType) else "it is no Python function"
    with _lock:
        if reason:
            is_ours = not isinstance(options.get("backend"), str) and not options.get("disable")
            _compile_as_usual(Tally(_name_of(function)) if is_ours else None, code, [reason])
            return None
        assert isinstance(code, types.CodeType)
        backend = options["backend"]
        flags = ("nopython", "dynamic", "error_on_graph_break")
        how = (sorted(backend.config.items()), backend.dynamic, [options.get(flag) for flag in flags])
        owner = function if isinstance(function, torch.nn.Module) else getattr(target, "__self__", None)
        key = key_of(target, owner, how)
        tally = Tally(_name_of(function))
        package = Package(target, key, tally)
        known = _keys.setdefault(code, set())
        if key not in known:
            found = read_all(file for file in sorted(_files) if file.parent.name == key)
            if not _restore(package, found):
                if refusal := next((each for each in found.refusals if each.holds(owner)), None):
                    _compile_as_usual(tally, code, refusal.reasons)
                    return None
                if len(found.refusals) < refusals.MOST:
                    package.attempt = refusals.Attempt.begin(owner)
            known.add(key)
        _packages.append(package)
        _tallies.append(tally)
        return package


def _compile_as_usual(tally: Tally | None, code: Any, reasons: Iterable[str]) -> None:
    """Have a warm start of a function. ``tally`` is None if nobody asks why."""
    if code in _keys:  # what was restored for the function must not serve a way that we do not carry
        _reset_precompile_entries(code)
    if tally is not None:
        tally.reasons.update(dict.fromkeys(reasons))
        _tallies.append(tally)
        logger.info("instant start: %s", *lines([tally]))


def _restore(package: Package, found: Found) -> int:
    """The number of traces restored."""
    name = package.tally.name
    try:
        restored = restore(package, found)
    except Exception as error:
        package.tally.reasons[str(error)] = None
        logger.warning("instant start: what was traced of %s cannot be used: %s", name, error)
        logger.debug("instant start", exc_info=True)
        return 0
    reason = f" (not restored: {with_remedy(package.refusals)})" if package.refusals else ""
    package.refusals.clear()
    logger.info("instant start: %s: %d %s restored%s", name, restored, "trace" if restored == 1 else "traces", reason)
    return restored


def _unsupported(options: dict[str, Any], arguments: tuple[Any, ...]) -> str:
    """Why a way to compile has no instant start; empty if it has."""
    backend = options.get("backend")
    if arguments or type(backend) is not torch._TorchCompileInductorWrapper:
        return "only torch.compile with Inductor has an instant start"
    if options.get("disable"):
        return "it is not compiled"
    for option in ("guard_filter_fn", "isolate_recompiles", "shapes_spec", "package"):
        if options.get(option):
            return f"{option} is set"
    if backend.config.get("triton.cudagraphs", inductor_config.triton.cudagraphs):
        return "CUDA graphs (mode='reduce-overhead') are recorded anew in each process"
    if backend.config.get("freezing", inductor_config.freezing):
        return "freezing makes weights part of the code"
    return ""


def _name_of(function: Any) -> str:
    """The class of a model, with the method unless it is the usual one; the name of a function."""
    owner = getattr(function, "__self__", None)
    if isinstance(function, torch.nn.Module) or not isinstance(owner, torch.nn.Module):
        return str(getattr(function, "__qualname__", type(function).__qualname__))
    method = str(getattr(function, "__name__", ""))
    return type(owner).__qualname__ + ("" if method in ("_call_impl", "forward", "") else f".{method}")


def report() -> list[str]:
    """One line for each compiled class or function: whether it started instantly."""
    with _lock:
        return lines(_tallies)


def flush() -> int:
    """Write what was recorded; the number of files."""
    folder = Path(cache_dir()) / "dynamo"
    written = 0
    with _lock:
        for package in _packages:
            try:
                if (traces := package.new_traces()) is not None:
                    traces.write(folder / package.key)
                    package.forget(traces)
                    written += 1
                elif package.attempt and (refusal := package.attempt.refusal()):
                    written += write_refusal(refusal, folder / package.key)
            except Exception as error:  # noqa: BLE001 - one that cannot be written is no reason to leave the others
                logger.warning("instant start: traces cannot be written to %s: %s", folder / package.key, error)
            for reason in package.refusals:
                logger.info("instant start: %s: not kept: %s", package.tally.name, with_remedy([reason]))
            package.refusals.clear()
    return written
