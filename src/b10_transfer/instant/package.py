"""What tracing one compiled function came to: recorded, written, and put in place in another process."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib
import logging
import os
import pickle
import sys
import tempfile
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch._dynamo
from torch._C._dynamo.eval_frame import _load_precompile_entry
from torch._dynamo.output_graph import get_builtins_dict
from torch._dynamo.package import (
    CompilePackage,
    SerializedCode,
    _compile_frame_context,
    _DynamoCodeCacheEntry,
    _FunctionId,
    load_guard_manager,
    load_guards_state,
)
from torch._dynamo.precompile_context import PrecompileContext

from .binding import CodeName, UnresolvableError, digest_of, process_state
from .graphs import probing_in_this_process
from .guards import recording

logger = logging.getLogger(__name__)

FORMAT = 1
_STRICT: Any = {"skip_nnmodule_hook_guards": False, "caching_precompile": False}
"""Dynamo's default is not to guard on whether a module has hooks. Between two processes that may well differ."""
_disable: Any = torch._dynamo.disable


@dataclasses.dataclass(frozen=True)
class Trace:
    """One frame as it was compiled once: its guards, its bytecode, and what both are bound to."""

    guarded: Any
    bound: dict[CodeName, str]
    backends: tuple[str, ...]
    name: str
    """A digest of what went into it, the same in every process that traced the same."""


class Package(CompilePackage):
    """Records what Dynamo compiles for one function, and puts back what another process recorded.

    Nothing here fails a compilation: what cannot be kept is refused, with its reason on the log.
    """

    def __init__(self, function: Any, key: str) -> None:
        super().__init__(fn=None)
        self.key = key
        self.guards_seen: list[tuple[str, str]] = []
        self.refusals: list[str] = []
        self._state = process_state()
        self._refused = False
        self._bound: dict[CodeName, str] = {}
        self._nameless: set[types.CodeType] = set()
        self._guarded: Any = None
        self._restored: dict[types.CodeType, _DynamoCodeCacheEntry] = {}
        self._new: dict[types.CodeType, list[Trace]] = {}
        self.initialize(function)

    # Recording: torch calls these while it compiles a frame, in this order.

    @contextlib.contextmanager
    def code_context(self, code: types.CodeType) -> Iterator[None]:
        self._refused, self._bound, self._guarded, self.guards_seen = False, {}, None, []
        outer, self._current_entry = self._current_entry, None
        token = recording.set(self)
        try:
            with torch._dynamo.config.patch(**_STRICT), super().code_context(code):
                if code in self._nameless:
                    self.refuse(f"{code.co_name} cannot be found by name")
                yield
        finally:
            recording.reset(token)
            self._current_entry = outer

    def _add_user_function(self, code: types.CodeType) -> None:
        if code in self._restored:
            self._codes[code] = dataclasses.replace(self._restored[code], guarded_codes=[], backend_ids=[])
            return
        try:
            name = CodeName.of(code)
            self._add_function(code, name.module, function_name=_FunctionId(name.function), code_source=name.path)
        except Exception:  # noqa: BLE001 - it may be anything that Python can call
            self._nameless.add(code)
            self._codes.setdefault(code, _entry(code, ""))

    def bind(self, value: object) -> None:
        """Bind the frame that is being compiled to a function's code. Raises UnresolvableError."""
        code = value if isinstance(value, types.CodeType) else getattr(value, "__code__", None)
        known = code in self._resume_codes or code in self._restored or code is self._main
        if isinstance(code, types.CodeType) and not known:
            self._bound[CodeName.of(code)] = digest_of(code)

    def refuse(self, reason: str) -> None:
        """Do not keep the frame that is being compiled."""
        if not self._refused:
            logger.debug("instant start: not kept: %s", reason)
            self.refusals.append(reason)
        self._refused = True

    def bypass_current_entry(self) -> None:
        self.refuse("torch cannot serialize it")

    def add_guarded_code(self, guards_state: bytes, dynamo_code: types.CodeType) -> None:
        if process_state() != self._state:
            self.refuse("threads, devices or ranks have changed since torch.compile was called")
        if not self._refused and guards_state:
            guarded = {"guards_state": guards_state, "dynamo_code": SerializedCode.from_code_object(dynamo_code)}
            self._guarded = _Guarded(**guarded)

    def add_inlined_source(self, sources: list[types.CodeType]) -> None:
        code = next((code for code, entry in self._codes.items() if entry is self._current_entry), None)
        if self._guarded is None or code is None:
            return
        try:
            for source in sources:
                self.bind(source)
        except UnresolvableError as error:
            self.refuse(str(error))
            return
        used = _names_in(self._guarded.dynamo_code)
        backends = tuple(name for name in self._codes[code].backend_ids if name in used)
        graphs = [_graph_key(backend) for backend in backends]
        what = repr((self.key, code.co_name, self.guards_seen, sorted(map(repr, self._bound.items())), graphs))
        name = hashlib.sha256(what.encode("utf-8", "surrogatepass")).hexdigest()
        self._new.setdefault(code, []).append(Trace(self._guarded, self._bound, backends, name))

    @property
    def _main(self) -> types.CodeType:
        function: Any = self._innermost_fn
        code: types.CodeType = function.__code__
        return code

    def uninstall(self) -> None:
        """Nothing: what others have put in place for the same code stays."""

    # Writing.

    def write(self, folder: Path) -> bool:
        """Write what was recorded and not written yet; whether there was anything. Raises OSError, PickleError."""
        codes, bound, backends, names = [], {}, {}, []
        for code, entry in self._codes.items():
            kept = []
            for trace in self._new.pop(code, []):
                artifacts = {name: PrecompileContext.serialize_artifact_by_key(name) for name in trace.backends}
                if None in artifacts.values():
                    self.refusals.append("torch's compiler did not hand a graph over")
                    continue
                kept.append(trace)
                backends.update(artifacts)
                bound.update(trace.bound)
                names.append(trace.name)
            used = [name for trace in kept for name in trace.backends]
            guarded = [trace.guarded for trace in kept]
            codes.append(dataclasses.replace(entry, guarded_codes=guarded, backend_ids=used))  # type: ignore[arg-type]
        if not names:
            return False
        codes = [entry for entry in codes if entry.python_module]
        body = pickle.dumps((codes, backends))
        content = pickle.dumps({"format": FORMAT, "bound": bound, "body": body})
        name = hashlib.sha256("".join(sorted(names)).encode()).hexdigest()[:32]
        _write(folder / self.key / name, content)
        return True

    # Putting back.

    def restore(self, folder: Path) -> int:
        """Put in place what was written for this function; the number of traces. Raises whatever torch may raise.

        Everything is made ready before anything is put in place: a failure leaves the function as it was.
        """
        merged = self._read(folder / self.key)
        installs: list[Callable[[], object]] = []
        entries: list[Callable[[], object]] = []
        for target, entry, backends in merged:
            context = _compile_frame_context(target) if entry.has_compile_id else contextlib.nullcontext()
            with context, torch._dynamo.config.patch(**_STRICT), probing_in_this_process():
                self._make_ready(target, entry, backends, installs, entries)
        for install in [*installs, *entries]:
            install()
        return len(entries)

    def _read(self, folder: Path) -> list[tuple[types.CodeType, _DynamoCodeCacheEntry, dict[str, Any]]]:
        """What the files of this function hold, those of one code object joined, and where each belongs."""
        found: dict[object, tuple[types.CodeType, _DynamoCodeCacheEntry, dict[str, Any]]] = {}
        for file in sorted(folder.iterdir()) if folder.is_dir() else []:
            content = pickle.loads(file.read_bytes())
            if content["format"] != FORMAT or not self._is_bound_to(content["bound"], file):
                continue
            codes, backends = pickle.loads(content["body"])
            for number, entry in enumerate(codes):
                key = number and (entry.python_code, entry.python_module, entry.code_source)
                if key not in found:
                    target = self._main if number == 0 else _target(entry)
                    found[key] = (target, dataclasses.replace(entry, guarded_codes=[], backend_ids=[]), {})
                target, joined, artifacts = found[key]
                joined.guarded_codes.extend(entry.guarded_codes)
                joined.import_sources.update(entry.import_sources)
                artifacts.update((name, backends[name]) for name in entry.backend_ids)
        return list(found.values())

    def _is_bound_to(self, bound: dict[CodeName, str], file: Path) -> bool:
        """Whether all code that was traced is, in this process, what it was."""
        for name, digest in bound.items():
            try:
                same = digest_of(name.resolve()) == digest
            except UnresolvableError as error:
                self.refusals.append(str(error))
                return False
            if not same:
                self.refusals.append(f"{name.module}.{name.function} has changed")
                return False
        logger.debug("instant start: %s is bound to %d functions, all unchanged", file, len(bound))
        return True

    def _make_ready(
        self,
        target: types.CodeType,
        entry: _DynamoCodeCacheEntry,
        backends: dict[str, Any],
        installs: list[Callable[[], object]],
        entries: list[Callable[[], object]],
    ) -> None:
        scope = sys.modules[entry.python_module].__dict__
        values: dict[str, Any] = {
            alias: importlib.import_module(module) for alias, module in entry.import_sources.items()
        }
        for name, artifact in backends.items():
            values[name] = _disable(artifact.after_deserialization())
        if entry.install_to_global:
            self._resume_codes.add(target)
            self._restored[target] = entry
            for name in entry.function_names:
                values[name] = _function(target, scope, name)
        for guarded in entry.guarded_codes:
            state = load_guards_state(guarded.guards_state)
            if builtins := state.output_graph.name_of_builtins_dict_key_in_fglobals:
                values[builtins] = get_builtins_dict(scope)
                scope[builtins] = values[builtins]
            manager: Any = load_guard_manager(state, target, scope)
            manager.root.add_lambda_guard(self._is_same_process_state, ["b10_transfer: threads, devices, ranks"], None)
            code = SerializedCode.to_code_object(guarded.dynamo_code)
            entries.append(lambda manager=manager, code=code: _load_precompile_entry(target, manager, code))  # type: ignore[misc]
        installs.append(lambda: scope.update(values))

    def _is_same_process_state(self, _locals: object) -> bool:
        return process_state() == self._state


_Guarded = torch._dynamo.package._GuardedCodeCacheEntry


def _entry(code: types.CodeType, module: str) -> _DynamoCodeCacheEntry:
    return _DynamoCodeCacheEntry(
        python_code=SerializedCode.from_code_object(code),
        python_module=module,
        function_names=[],
        guarded_codes=[],
        import_sources={},
        backend_ids=[],
        code_source=None,
        install_to_global=False,
    )


def _target(entry: _DynamoCodeCacheEntry) -> types.CodeType:
    """The code object of this process that an entry is for. Raises UnresolvableError."""
    if entry.code_source is not None:
        return CodeName(entry.python_module, entry.function_names[0], entry.code_source).resolve()
    code: types.CodeType = SerializedCode.to_code_object(entry.python_code)
    return code


def _function(code: types.CodeType, scope: dict[str, Any], name: str) -> object:
    """A resume function, or what makes one of its closure, as Dynamo puts it among the globals."""
    if code.co_freevars:
        return lambda closure: types.FunctionType(code, scope, name, None, closure)
    return types.FunctionType(code, scope, name)


def _names_in(code: Any) -> set[str]:
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, (types.CodeType, SerializedCode)):
            names |= _names_in(constant)
    return names


def _graph_key(backend: str) -> str:
    """Inductor's own key of a graph, which is the same wherever the same graph is compiled."""
    artifact: Any = PrecompileContext.serialize_artifact_by_key(backend)
    forward = getattr(getattr(artifact, "content", None), "compiled_fw", None)
    return str(getattr(getattr(forward, "result", None), "_fx_graph_cache_key", ""))


def _write(path: Path, content: bytes) -> None:
    """Whole or not at all, and never over another."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        return
    handle, temporary = tempfile.mkstemp(prefix=".b10-", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
