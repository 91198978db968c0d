"""Guards that survive the way into another process.

PyTorch's own caching mode (``caching_precompile``) drops every guard that compares identities: which function, class or
module a name stands for. A model whose activation was exchanged would then run the old one. Here they all stay: such a
guard is kept if its object is found by name in another process, and its code is bound; otherwise the trace is not kept.

Whatever else serializes guards in this process, as vLLM does, gets torch's own behaviour.
"""

from __future__ import annotations

import types
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from torch._dynamo.guards import CheckFunctionManager, GuardsStatePickler
from torch._dynamo.output_graph import OutputGraphCommon
from torch._dynamo.package import load_guards_state

from .binding import CodeName, UnresolvableError

if TYPE_CHECKING:
    from .package import Package

recording: ContextVar[Package | None] = ContextVar("recording", default=None)
"""The package for which this thread compiles a frame."""


def _code_of_name(name: CodeName) -> types.CodeType:
    return name.resolve()


class Pickler(GuardsStatePickler):
    """Writes a code object as its name where it has one, so that the restored guard compares with the true one."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, types.CodeType) and recording.get() is not None:
            try:
                return _code_of_name, (CodeName.of(obj),)
            except UnresolvableError:
                pass
        return super().reducer_override(obj)


class Manager(CheckFunctionManager):
    """Builds a frame's guards, all of them, and serializes them for a package of ours."""

    _nameless = ("DICT_VERSION", "NN_MODULE", "WEAKREF_ALIVE")

    def __init__(self, f_code: types.CodeType, *arguments: Any, **options: Any) -> None:
        self._code = f_code
        super().__init__(f_code, *arguments, **options)

    def serialize_guards(self, builder: Any, sorted_guards: Any, output_graph: Any) -> bytes:
        """The guards, checked by restoring them; empty if they cannot be kept, which the package is told."""
        package = recording.get()
        if package is None:
            return super().serialize_guards(builder, sorted_guards, output_graph)
        try:
            for guard in sorted_guards:
                if "ID_MATCH" in (guard.guard_types or ()):
                    package.bind(builder.get(guard))
            with patch.object(Manager, "UNSUPPORTED_SERIALIZATION_GUARD_TYPES", self._nameless):
                state = super().serialize_guards(builder, sorted_guards, output_graph)
            self._check(state, output_graph)
        except Exception as error:  # noqa: BLE001 - pickling runs the objects' own code
            package.refuse(str(error) or type(error).__name__)
            return b""
        package.guards_seen = [(guard.create_fn_name(), guard.name) for guard in sorted_guards]
        return state

    def _check(self, state: bytes, output_graph: Any) -> None:
        restored = load_guards_state(state)
        twin: Any = Manager(
            self._code,
            OutputGraphCommon(restored.output_graph),
            shape_code_parts=restored.shape_code_parts,
            runtime_global_scope=output_graph.global_scope,
        )
        if not twin.guard_manager.check(output_graph.local_scope):
            reason = twin.guard_manager.check_verbose(output_graph.local_scope)
            raise UnresolvableError(f"a guard on what has no name of its own: {reason.verbose_code_parts}")
