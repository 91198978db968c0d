"""Puts traces in place that another process recorded."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import logging
import types
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
import torch._dynamo
from torch._C._dynamo.eval_frame import _load_precompile_entry
from torch._dynamo.output_graph import get_builtins_dict
from torch._dynamo.package import (
    SerializedCode,
    _compile_frame_context,
    _DynamoCodeCacheEntry,
)

from .code import CodeName
from .content import ChangedError
from .files import Trace, TraceFile, read
from .graphs import probing_in_this_process
from .guards import restored_manager
from .guards_state import load_guards
from .package import OURS, Package, names_in
from .process import STRICT, custom_passes, process_state, raw_state
from .refusals import Refusal
from .tally import Tally
from .values import Describer

logger = logging.getLogger(__name__)


@dataclasses.dataclass
class Found:
    """What the files of one key hold."""

    traces: list[TraceFile] = dataclasses.field(default_factory=list)
    refusals: list[Refusal] = dataclasses.field(default_factory=list)
    problems: list[str] = dataclasses.field(default_factory=list)
    """Why files could not be read."""


def read_all(files: Iterable[Path]) -> Found:
    found = Found()
    for file in files:
        try:
            content = read(file)
        except Exception as error:  # noqa: BLE001 - another version of the project may have written it
            found.problems.append(f"{file.name} cannot be read: {type(error).__name__}: {error}")
            continue
        if isinstance(content, TraceFile):
            found.traces.append(content)
        elif content is not None:
            found.refusals.append(content)
    return found


def restore(package: Package, found: Found) -> int:
    """Put in place what was written for a package's function; the number of traces. Raises whatever torch may raise.

    Everything is made ready before anything is put in place: a failure leaves the function as it was.
    """
    if passes := custom_passes():
        raise ChangedError(f"{passes[0]} is set")
    installs: list[Callable[[], object]] = []
    entries: list[Callable[[], object]] = []
    for problem in found.problems:
        package.note_refusal(problem)
    for frame in _joined(package, found.traces):
        context = _compile_frame_context(frame.target) if frame.entry.has_compile_id else contextlib.nullcontext()
        with context, torch._dynamo.config.patch(**STRICT), probing_in_this_process():
            _make_ready(package, frame, installs, entries)
    for install in [*installs, *entries]:
        install()
    return len(entries)


@dataclasses.dataclass
class _Frame:
    target: types.CodeType
    scope: dict[str, Any]
    entry: _DynamoCodeCacheEntry
    home: str
    traces: list[Trace]
    backends: dict[str, Any]


def _joined(package: Package, files: Iterable[TraceFile]) -> list[_Frame]:
    """The frames of several files, those of one code object joined, and where each belongs."""
    found: dict[object, _Frame] = {}
    for content in files:
        for number, saved in enumerate(content.frames):
            entry = saved.entry
            key = number and (entry.python_code, entry.python_module, entry.code_source, saved.home)
            if key not in found:
                target = package.main if number == 0 else _target(entry)
                scope = _scope(package, saved.home)
                found[key] = _Frame(target, scope, dataclasses.replace(entry), saved.home, [], {})
            frame = found[key]
            frame.traces.extend(saved.traces)
            frame.entry.import_sources.update(entry.import_sources)
            frame.backends.update((name, content.backends[name]) for trace in saved.traces for name in trace.backends)
    return list(found.values())


def _make_ready(
    package: Package, frame: _Frame, installs: list[Callable[[], object]], entries: list[Callable[[], object]]
) -> None:
    values: dict[str, Any] = {
        alias: importlib.import_module(module) for alias, module in frame.entry.import_sources.items()
    }
    if replaced := [alias for alias, module in values.items() if frame.scope.get(alias, module) is not module]:
        package.note_refusal(f"the module {frame.entry.import_sources[replaced[0]]} has been replaced")
        return
    accepted = []
    for trace in frame.traces:
        try:
            accepted.append((trace, _manager(frame, trace, values, package.tally)))
        except ChangedError as error:
            package.note_refusal(str(error))
    for name in {name for trace, _ in accepted for name in trace.backends}:
        graph = frame.backends[name].after_deserialization()
        values[name] = package.tally.noting_first_call(frame.scope, name, graph)
    if frame.entry.install_to_global:
        package.add_restored(frame.target, frame.entry, frame.home)
        for name in frame.entry.function_names:
            values[name] = _function(frame.target, frame.scope, name)
    for trace, manager in accepted:
        code = SerializedCode.to_code_object(trace.code)
        entries.append(lambda manager=manager, code=code: _load_precompile_entry(frame.target, manager, code))  # type: ignore[misc]
    if accepted or frame.entry.install_to_global:
        installs.append(lambda: frame.scope.update(values))


def _manager(frame: _Frame, trace: Trace, values: dict[str, Any], tally: Tally) -> Any:
    """The guards of a trace. Raises ChangedError."""
    state = load_guards(trace.guards_state)
    if builtins := state.output_graph.name_of_builtins_dict_key_in_fglobals:
        values[builtins] = get_builtins_dict(frame.scope)
        frame.scope[builtins] = values[builtins]
    describer = Describer()
    manager = restored_manager(state, frame.target, frame.scope, trace.expected, trace.hidden, describer)
    watch = _Watch(trace, list(describer.classes), frame.scope, tally)
    trace.depends.check(watch.met, frame.scope)
    manager.root.add_lambda_guard(watch, ["b10_transfer: what the trace depends on without a guard"], None)
    return manager


class _Watch:
    """A guard on what Dynamo does not guard: torch's state at every call, and everything at the first."""

    def __init__(self, trace: Trace, met: list[type], scope: dict[str, Any], tally: Tally) -> None:
        self.met = met
        self._tally = tally
        self._depends = trace.depends
        self._scope = scope
        self._needed = [name for name in names_in(trace.code) if name.startswith((*OURS, "___module_"))]
        self._state: tuple[object, ...] | None = None
        self._is_checked = False
        self._is_broken = False

    def __call__(self, _locals: object) -> bool:
        if self._is_broken:
            return False
        try:
            state = raw_state()
            if state == self._state:
                return True
            if not self._depends.has_state(process_state()):
                return False
            self._check_all()
            self._state = state
            return True
        except ChangedError as error:
            self._tally.reasons[str(error)] = None
            logger.info("instant start: %s: a restored trace is not used: %s", self._tally.name, error)
        except Exception as error:
            reason = f"a restored trace cannot be checked: {type(error).__name__}: {error}"
            self._tally.reasons[reason] = None
            logger.warning("instant start: %s: %s", self._tally.name, reason)
            logger.debug("instant start", exc_info=True)
        self._is_broken = True
        return False

    def _check_all(self) -> None:
        """What may have changed between torch.compile and the first call."""
        if self._is_checked:
            return
        self._depends.check(self.met, self._scope)
        missing = [name for name in self._needed if name not in self._scope]
        if missing:
            raise ChangedError(f"{missing[0]} is no longer among the globals")
        self._is_checked = True


def _scope(package: Package, home: str) -> dict[str, Any]:
    """The globals of a frame."""
    return vars(importlib.import_module(home)) if home else package.main_scope


def _target(entry: _DynamoCodeCacheEntry) -> types.CodeType:
    """The code object of this process that an entry is for. Raises UnresolvableError."""
    if entry.code_source is not None:
        module = entry.python_module
        return CodeName(module, entry.function_names[0], entry.code_source).resolve()
    code: types.CodeType = SerializedCode.to_code_object(entry.python_code)
    return code


def _function(code: types.CodeType, scope: dict[str, Any], name: str) -> object:
    """A resume function, or what makes one of its closure, as Dynamo puts it among the globals."""
    if code.co_freevars:
        return lambda closure: types.FunctionType(code, scope, name, None, closure)
    return types.FunctionType(code, scope, name)
