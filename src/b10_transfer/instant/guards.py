"""Guards that survive the way into another process.

PyTorch's own caching mode (``caching_precompile``) drops every guard that compares identities: which function, class or
module a name stands for. A model whose activation was exchanged would then run the old one. Here they all stay: such a
guard is kept if its object is found by name in another process, and its code is bound; otherwise the trace is not kept.
"""

from __future__ import annotations

import types
from typing import Any

import torch
from torch._dynamo import guards as dynamo_guards
from torch._dynamo.output_graph import OutputGraphCommon
from torch._dynamo.package import load_guards_state

from .binding import CodeName, Unresolvable

_Manager: type[Any] = dynamo_guards.CheckFunctionManager
_Pickler: type[Any] = dynamo_guards.GuardsStatePickler


def _code_of_name(name: CodeName) -> types.CodeType:
    return name.resolve()


class Pickler(_Pickler):
    """Writes a code object as its name where it has one, so that the restored guard compares with the true one."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, types.CodeType):
            try:
                return _code_of_name, (CodeName.of(obj),)
            except Unresolvable:
                pass
        return super().reducer_override(obj)


class Manager(_Manager):
    """Builds a frame's guards, all of them, and serializes them for a package of ours."""

    UNSUPPORTED_SERIALIZATION_GUARD_TYPES = ("DICT_VERSION", "NN_MODULE", "WEAKREF_ALIVE")

    def __init__(self, f_code: types.CodeType, *arguments: Any, **options: Any) -> None:
        self._code = f_code
        with torch._dynamo.config.patch(caching_precompile=False):
            super().__init__(f_code, *arguments, **options)

    def serialize_guards(self, builder: Any, sorted_guards: Any, output_graph: Any) -> bytes:
        """The guards, checked by restoring them; empty if they cannot be kept, which the package is told. No raise."""
        package = getattr(output_graph, "package", None)
        if package is None:
            return b""
        try:
            for guard in sorted_guards:
                if "ID_MATCH" in (guard.guard_types or ()):
                    package.bind(builder.get(guard))
            state: bytes = super().serialize_guards(builder, sorted_guards, output_graph)
            self._check(state, output_graph)
        except Exception as error:  # noqa: BLE001 - pickling runs the objects' own code
            package.refuse(str(error) or type(error).__name__)
            return b""
        package.guards_seen = [(guard.create_fn_name(), guard.name) for guard in sorted_guards]
        return state

    def _check(self, state: bytes, output_graph: Any) -> None:
        restored = load_guards_state(state)
        twin = Manager(
            self._code,
            OutputGraphCommon(restored.output_graph),
            shape_code_parts=restored.shape_code_parts,
            runtime_global_scope=output_graph.global_scope,
        )
        if not twin.guard_manager.check(output_graph.local_scope):
            reason = twin.guard_manager.check_verbose(output_graph.local_scope)
            raise Unresolvable(f"a guard on what has no name of its own: {reason.verbose_code_parts}")


