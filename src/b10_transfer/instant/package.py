"""Records what Dynamo compiles for one function."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import logging
import re
import sys
import types
from collections.abc import Iterable, Iterator
from typing import Any

import torch
import torch._dynamo
from torch._dynamo.package import CompilePackage, SerializedCode, _DynamoCodeCacheEntry, _FunctionId
from torch._dynamo.precompile_context import PrecompileContext

from .checks import asked
from .code import CodeName, UnresolvableError, digest_of
from .dependencies import Dependencies, limit, of_interest
from .files import Frame, Trace, TraceFile
from .guards import Expected
from .hidden import Hidden
from .messages import with_remedy
from .process import STRICT, configuration, custom_passes, home_of, process_state
from .recording import PassingError, recording
from .refusals import Attempt
from .releases import is_file_of_a_release
from .tally import Tally
from .values import Describer
from .watching import Watch

logger = logging.getLogger(__name__)


class Package(CompilePackage):
    """Records what Dynamo compiles for one function.

    Nothing here fails a compilation: what cannot be kept is refused, with its reason on the log.
    """

    def __init__(self, function: Any, key: str, tally: Tally) -> None:
        super().__init__(fn=None)
        self.key = key
        self.tally = tally
        self.refusals: list[str] = []
        self.attempt: Attempt | None = None
        """If nothing was restored: whether anything could be kept."""
        self._configuration = configuration()
        self._homes: dict[types.CodeType, str] = {}
        self._nameless: set[types.CodeType] = set()
        self._restored: dict[types.CodeType, _DynamoCodeCacheEntry] = {}
        self._new: dict[types.CodeType, list[Trace]] = {}
        self._begin()
        self.initialize(function)

    def _begin(self) -> None:
        """Forget the frame that was compiled before."""
        self._refused = False
        self._state = process_state()
        self._bound: dict[CodeName, str] = {}
        self._unnamed: dict[int, str] = {}
        self._noted: dict[int, object] = {}
        self._checks: dict[tuple[type, type], bool] = {}
        self._limits: dict[str, str] = {}
        self._resumed: list[types.CodeType] = []
        self._guards: tuple[Expected, Hidden, Describer, dict[str, Any], frozenset[str]] | None = None
        self._accessors: list[types.CodeType] = []
        self._guarded: tuple[bytes, SerializedCode] | None = None

    # Torch calls these while it compiles a frame, in this order.

    @contextlib.contextmanager
    def code_context(self, code: types.CodeType) -> Iterator[None]:
        self._begin()
        outer, self._current_entry = self._current_entry, None
        token = recording.set(self)
        try:
            with torch._dynamo.config.patch(**STRICT), super().code_context(code), Watch() as self._watch:
                if code in self._nameless:
                    self.refuse(f"{code.co_name} cannot be found by name")
                yield
        finally:
            if self.attempt is not None and self._refused:
                self.attempt.files.update(code.co_filename for code in self._watch.ran())
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
            self._codes.setdefault(code, _entry(code))

    def add_resume_function(self, python_code: types.CodeType, python_module: str, function_name: str) -> None:
        super().add_resume_function(python_code, python_module, function_name)
        self._resumed.append(python_code)

    def note(self, value: object) -> None:
        if isinstance(value, types.MethodType):
            self.note(value.__func__)
            self.note(value.__self__)
        elif of_interest(value):
            self._noted[id(value)] = value

    def note_check(self, kind: Any, classes: Any) -> None:
        self._checks.update(asked(kind, classes))

    def note_limit(self, name: str) -> None:
        self._limits[name] = limit(name)

    def bind(self, value: object) -> None:
        code = value if isinstance(value, types.CodeType) else getattr(value, "__code__", None)
        known = code in self._resume_codes or code in self._restored or code is self.main
        if isinstance(code, types.CodeType) and not known:
            try:
                self._bound[CodeName.of(code)] = digest_of(code)
            except UnresolvableError as error:
                if not is_file_of_a_release(code.co_filename):
                    self._unnamed[id(code)] = str(error)

    def refuse(self, reason: str, *, is_lasting: bool = True) -> None:
        if not self._refused:
            logger.info("instant start: %s: not kept: %s", self.tally.name, with_remedy([reason]))
            self.tally.reasons[reason] = None
            if self.attempt is not None:
                self.attempt.note(reason, is_lasting=is_lasting)
        self._refused = True

    def note_refusal(self, reason: str) -> None:
        """Remember why a trace is not restored or not kept."""
        self.refusals.append(reason)
        self.tally.reasons[reason] = None

    def bypass_current_entry(self) -> None:
        self.refuse("torch cannot serialize it")

    def accept_guards(self, expected: Expected, describer: Describer, output_graph: Any, hidden: Hidden) -> None:
        installed = frozenset(output_graph.installed_globals)
        self._guards = (expected, hidden, describer, output_graph.global_scope, installed)

    def accept_accessors(self, accessors: Iterable[types.FunctionType]) -> None:
        for accessor in accessors:
            self.bind(accessor)
            self._accessors.append(accessor.__code__)

    def add_guarded_code(self, guards_state: bytes, dynamo_code: types.CodeType) -> None:
        if not self._refused and guards_state:
            self._guarded = (guards_state, SerializedCode.from_code_object(dynamo_code))

    def add_inlined_source(self, sources: list[types.CodeType]) -> None:
        code = next((code for code, entry in self._codes.items() if entry is self._current_entry), None)
        if self.attempt is not None:
            self.attempt.files.update(source.co_filename for source in sources)
        if self._guarded is None or self._guards is None or code is None:
            return
        try:
            self._keep(code, sources)
            self.attempt = None
        except PassingError as error:
            self.refuse(str(error), is_lasting=False)
        except Exception as error:  # noqa: BLE001 - describing values runs the program's own code
            self.refuse(str(error) or type(error).__name__)

    def _keep(self, code: types.CodeType, sources: list[types.CodeType]) -> None:
        assert self._guarded is not None
        assert self._guards is not None
        (state, dynamo_code), (expected, hidden, describer, scope, installed) = self._guarded, self._guards
        self._watch.check(self._accessors)
        if self._configuration != configuration():
            raise PassingError("the configuration has changed since torch.compile was called")
        if passes := custom_passes():
            raise PassingError(f"{passes[0]} is set")
        self._settle(code, scope)
        sources = [*sources, *self._accessors]
        for source in sources:
            self.bind(source)
        depends = Dependencies.record(
            describer, self._bound, self._state, self._noted.values(), sources, scope, self._checks, self._limits
        )
        for unnamed in self._unnamed.keys() - describer.codes:
            raise UnresolvableError(self._unnamed[unnamed])
        used = names_in(dynamo_code)
        for name in sorted(used & installed):
            if not name.startswith(OURS):
                self._codes[code].import_sources[name] = _module_among(scope, name)
        backends = tuple(name for name in self._codes[code].backend_ids if name in used)
        what = (self.key, code.co_name, expected, hidden, depends, [_graph_key(backend) for backend in backends])
        name = hashlib.sha256(_UNIQUE.sub("", repr(what)).encode("utf-8", "surrogatepass")).hexdigest()
        self._new.setdefault(code, []).append(Trace(state, dynamo_code, expected, hidden, depends, backends, name))

    def _settle(self, code: types.CodeType, scope: dict[str, Any]) -> None:
        """Note to which module the globals of a frame belong, and of those in which it resumes."""
        function: Any = self._innermost_fn
        home = home_of(scope, function.__globals__)
        if home is None:
            raise UnresolvableError(f"the globals of {code.co_name} belong to no module")
        for each in (code, *self._resumed):
            if self._homes.setdefault(each, home) != home:
                raise UnresolvableError(f"{code.co_name} has the globals of two modules")

    @property
    def main(self) -> types.CodeType:
        function: Any = self._innermost_fn
        code: types.CodeType = function.__code__
        return code

    @property
    def main_scope(self) -> dict[str, Any]:
        function: Any = self._innermost_fn
        scope: dict[str, Any] = function.__globals__
        return scope

    def add_restored(self, code: types.CodeType, entry: _DynamoCodeCacheEntry, home: str) -> None:
        """Know a function in which a restored frame resumes."""
        self._resume_codes.add(code)
        self._restored[code] = entry
        self._homes[code] = home

    def uninstall(self) -> None:
        """Nothing: what others have put in place for the same code stays."""

    def new_traces(self) -> TraceFile | None:
        """What was recorded and not written yet; None if there is nothing."""
        backends: dict[str, Any] = {}
        kept: dict[types.CodeType, list[Trace]] = {}
        for code, traces in self._new.items():
            for trace in traces:
                artifacts = {name: PrecompileContext.serialize_artifact_by_key(name) for name in trace.backends}
                if None in artifacts.values():
                    self.note_refusal(
                        f"{code.co_name}: torch compiled a graph to nothing that can be saved (a graph that computes "
                        "nothing, or one with a backward pass)"
                    )
                    continue
                backends.update(artifacts)
                kept.setdefault(code, []).append(trace)
        if not kept:
            return None
        frames = []
        for code, entry in self._codes.items():
            if code in self._homes or code is self.main:
                frames.append(Frame(dataclasses.replace(entry), self._homes.get(code, ""), kept.get(code, [])))
        return TraceFile(frames, backends)

    def forget(self, written: TraceFile) -> None:
        """Drop what was written."""
        names = {trace.name for frame in written.frames for trace in frame.traces}
        for code, traces in list(self._new.items()):
            self._new[code] = [trace for trace in traces if trace.name not in names]


OURS = ("__compiled_fn_", "__resume_at_", "__import_", "__builtins_dict__")
"""How the names begin that torch puts among the globals of a frame and that are restored."""
_UNIQUE = re.compile(r"(?<=__builtins_dict__)\w+")


def _entry(code: types.CodeType) -> _DynamoCodeCacheEntry:
    return _DynamoCodeCacheEntry(
        python_code=SerializedCode.from_code_object(code),
        python_module="",
        function_names=[],
        guarded_codes=[],
        import_sources={},
        backend_ids=[],
        code_source=None,
        install_to_global=False,
    )


def _module_among(scope: dict[str, Any], name: str) -> str:
    """The name of a module that torch has put among the globals. Raises UnresolvableError if it is something else."""
    value = scope.get(name)
    if isinstance(value, types.ModuleType) and sys.modules.get(value.__name__) is value:
        return value.__name__
    raise UnresolvableError(f"torch has put {name} among the globals, which only this process has")


def names_in(code: Any) -> set[str]:
    """The names in bytecode and in that of functions inside."""
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, (types.CodeType, SerializedCode)):
            names |= names_in(constant)
    return names


def _graph_key(backend: str) -> str:
    """Inductor's own key of a graph, which is the same wherever the same graph is compiled."""
    artifact: Any = PrecompileContext.serialize_artifact_by_key(backend)
    forward = getattr(getattr(artifact, "content", None), "compiled_fw", None)
    return str(getattr(getattr(forward, "result", None), "_fx_graph_cache_key", ""))
