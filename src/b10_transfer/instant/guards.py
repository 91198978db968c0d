"""Guards that survive the way into another process, with the values they compare with.

PyTorch's own caching mode (``caching_precompile``) drops every guard that compares identities: which function, class or
module a name stands for. Here they all stay: such a guard is kept if its object is found by name in another process,
and its code is bound; otherwise the trace is not kept.

A restored guard takes the value it compares with from the objects that were saved. One that was saved by reference is
the *live* object of the restoring process, so that the guard would compare a value with itself. So a description of
every value that a guard compares with is saved beside the guards. A trace whose guards would compare with anything else
is not restored.

Whatever else serializes guards in this process, as vLLM does, gets torch's own behaviour.
"""

from __future__ import annotations

import functools
import re
import types
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any
from unittest.mock import patch

import torch
from torch._dynamo import utils as dynamo_utils
from torch._dynamo.guards import CheckFunctionManager, GuardsStatePickler, match_on_id_for_tensor
from torch._dynamo.output_graph import OutputGraphCommon

from .code import CodeName, UnresolvableError
from .content import ChangedError, object_named
from .guards_state import load_guards
from .hidden import Hidden, guard_on, hidden_state
from .messages import Description, difference, shown
from .names import name_of_function
from .recording import PassingError, recording
from .values import DESCRIPTORS, Describer, UnrecordableError
from .watching import unwatched

Expected = dict[tuple[str, ...], Description]
"""What guards compare with, by the guard's kind, source and arguments."""

_expecting: ContextVar[tuple[Expected, Hidden, Describer] | None] = ContextVar("expecting", default=None)
"""What the guards that this thread restores must compare with; the describer collects the classes they meet."""


def _code_of_name(name: CodeName) -> types.CodeType:
    return name.resolve()


def _function_of_code(name: CodeName) -> Any:
    return name.function_object()


def _function_of_name(module: str, name: str) -> Any:
    return object_named(module, name)


def _descriptor_of_class(owner: type, name: str) -> object:
    return vars(owner)[name]


def _place(descriptor: Any) -> tuple[type, str] | None:
    owner, name = descriptor.__objclass__, descriptor.__name__
    return (owner, name) if vars(owner).get(name) is descriptor else None


class Pickler(GuardsStatePickler):
    """Writes code objects, functions and descriptors as names, so that a restored guard compares with true ones."""

    def reducer_override(self, obj: Any) -> Any:
        if recording.get() is not None:
            try:
                if isinstance(obj, types.CodeType):
                    return _code_of_name, (CodeName.of(obj),)
                if isinstance(obj, DESCRIPTORS) and (place := _place(obj)):
                    return _descriptor_of_class, place
                if isinstance(obj, types.FunctionType):
                    if named := name_of_function(obj):
                        is_plain = named == (obj.__module__, obj.__qualname__)
                        return NotImplemented if is_plain else (_function_of_name, named)
                    if name := CodeName.of_function(obj):
                        return _function_of_code, (name,)
            except UnresolvableError:
                pass
        return super().reducer_override(obj)


class Manager(CheckFunctionManager):
    """Builds a frame's guards, all of them, and serializes them for a package of ours."""

    _nameless = ("DICT_VERSION", "NN_MODULE", "WEAKREF_ALIVE")

    def __init__(self, f_code: types.CodeType, *arguments: Any, **options: Any) -> None:
        self._code = f_code
        with unwatched():  # guards run what they compare, and what they compare with is recorded
            super().__init__(f_code, *arguments, **options)

    def build_guards(self, sorted_guards: Any, *arguments: Any, **options: Any) -> Any:
        """Raises ChangedError if restored guards would compare with other values than those that were saved."""
        if (expecting := _expecting.get()) is not None:
            expected, hidden, describer = expecting
            builder, _ = super().build_guards([], *arguments, **options)
            _compare(expected, describer, builder, sorted_guards)
            builder, manager = super().build_guards(sorted_guards, *arguments, **options)
            _guard_hidden_state(hidden, builder, sorted_guards)
            return builder, manager
        return super().build_guards(sorted_guards, *arguments, **options)

    def serialize_guards(self, builder: Any, sorted_guards: Any, output_graph: Any) -> bytes:
        """The guards, checked by restoring them; empty if they cannot be kept, which the package is told."""
        package = recording.get()
        if package is None:
            return super().serialize_guards(builder, sorted_guards, output_graph)
        try:
            for guard in sorted_guards:
                if "ID_MATCH" in (guard.guard_types or ()):
                    package.bind(builder.get(guard))
            self.used_builtin_vars.update(_builtins_in(sorted_guards, output_graph))
            with patch.object(Manager, "UNSUPPORTED_SERIALIZATION_GUARD_TYPES", self._nameless):
                state = super().serialize_guards(builder, sorted_guards, output_graph)
            describer = Describer()
            expected = {_key(guard): _described(describer, builder, guard) for guard in sorted_guards}
            of_types = [each for each in sorted_guards if each.create_fn_name() == "TYPE_MATCH"]
            hidden, accessors = hidden_state((each.name, builder.get(each)) for each in of_types)
            self._check(state, output_graph, expected, hidden)
            package.accept_guards(expected, describer, output_graph, hidden)
            package.accept_accessors(accessors)
        except Exception as error:  # noqa: BLE001 - pickling runs the objects' own code
            package.refuse(str(error) or type(error).__name__, is_lasting=not isinstance(error, PassingError))
            return b""
        return state

    def _check(self, state: bytes, output_graph: Any, expected: Expected, hidden: Hidden) -> None:
        scope = output_graph.global_scope
        twin = restored_manager(load_guards(state), self._code, scope, expected, hidden, Describer())
        if not twin.check(output_graph.local_scope):
            reason = twin.check_verbose(output_graph.local_scope)
            raise UnresolvableError(f"a guard on what has no name of its own: {reason.verbose_code_parts}")


def restored_manager(
    state: Any,
    code: types.CodeType,
    scope: dict[str, Any],
    expected: Expected,
    hidden: Hidden,
    describer: Describer,
) -> Any:
    """The guards of a saved state, for a code object and its globals. Raises ChangedError."""
    token = _expecting.set((expected, hidden, describer))
    try:
        graph, shapes = OutputGraphCommon(state.output_graph), state.shape_code_parts
        manager = Manager(code, graph, shape_code_parts=shapes, runtime_global_scope=scope)
    finally:
        _expecting.reset(token)
    return manager.guard_manager


def _builtins_in(guards: Any, output_graph: Any) -> list[Any]:
    """The names of builtins in the sources of guards: torch saves only those of one kind of guard."""
    dictionary = output_graph.name_of_builtins_dict_key_in_fglobals
    found = []
    for guard in guards:
        source = guard.originating_source
        while (base := getattr(source, "base", None)) is not None:
            if getattr(base, "global_name", None) == dictionary and hasattr(source, "index"):
                found.append(source.index)
            source = base
    return found


def _guard_hidden_state(hidden: Hidden, builder: Any, guards: Any) -> None:
    """Add a guard on each object of which state was recorded. Raises ChangedError."""
    of_types = [guard for guard in guards if guard.create_fn_name() == "TYPE_MATCH"]
    managers = {guard.name: builder.get_guard_manager(guard) for guard in of_types}
    for source, state in hidden.items():
        if source not in managers:
            raise ChangedError(f"its guards are not those that were saved: {_readable(source)}")
        managers[source].add_lambda_guard(guard_on(state), [f"b10_transfer: the state of {_readable(source)}"], None)


def _compare(expected: Expected, describer: Describer, builder: Any, guards: Any) -> None:
    if len(keys := {_key(guard): guard for guard in guards}) != len(expected):
        raise ChangedError("its guards are not those that were saved")
    for key, guard in keys.items():
        if key not in expected:
            raise ChangedError(f"its guards are not those that were saved: {_readable(key[1]) or key[0]}")
        try:
            now = _described(describer, builder, guard)
        except Exception as error:
            was = f"{_readable(key[1]) or key[0]} was {shown(expected[key])}"
            raise ChangedError(f"{was}, cannot be read now: {error}") from error
        if now != expected[key]:
            raise ChangedError(f"{_readable(key[1]) or key[0]} {difference(expected[key], now)}")


def _key(guard: Any) -> tuple[str, ...]:
    """A guard's kind, source and arguments."""
    arguments: list[str] = []
    if isinstance(guard.create_fn, functools.partial):
        given = [*guard.create_fn.args, *guard.create_fn.keywords.values()]
        arguments = [argument.name if hasattr(argument, "guard_source") else "" for argument in given]
        arguments += [repr(argument) for argument in given if isinstance(argument, (str, int))]
    return (guard.create_fn_name(), guard.name, *arguments)


def _readable(source: str) -> str:
    """A source as a person would write it."""
    source = re.sub(r"G\['__import_(\w+)'\]", lambda found: found[1].replace("_dot_", "."), source)
    return re.sub(r"[GL]\['(\w+)'\]", r"\1", source)


def _described(describer: Describer, builder: Any, guard: Any) -> Description:
    """What a guard compares with. Raises UnrecordableError."""
    kind = guard.create_fn_name()
    if kind not in _KINDS:
        raise UnrecordableError(f"{_readable(guard.name)}: guards of kind {kind} are not kept")
    try:
        return _KINDS[kind](describer, builder, guard)
    except UnrecordableError as error:
        # The arguments and the state of one call may differ from those of the next.
        refusal = UnrecordableError if guard.name.startswith(("L['self']", "G[")) else PassingError
        raise refusal(f"{_readable(guard.name) or kind} cannot be recorded: {error}") from error


def _value(describer: Describer, builder: Any, guard: Any) -> Description:
    return describer.describe(builder.get(guard))


def _nothing(_describer: Describer, _builder: Any, _guard: Any) -> Description:
    """What such a guard compares with is in its kind and arguments alone, or in what was saved by value."""
    return ()


def _class_of(value: Any) -> type:
    kind = getattr(value, "pytype", None) if isinstance(value, torch._subclasses.FakeTensor) else None
    return kind or type(value)


def _type(describer: Describer, builder: Any, guard: Any) -> Description:
    return describer.name_of_class(_class_of(builder.get(guard)))


def _length(describer: Describer, builder: Any, guard: Any) -> Description:
    value = builder.get(guard)
    return (*describer.name_of_class(type(value)), str(len(value)))


def _keys(describer: Describer, builder: Any, guard: Any) -> Description:
    value = builder.get(guard)
    keys = list(dict.keys(value) if isinstance(value, dict) else value.keys())
    return (*describer.name_of_class(type(value)), *describer.describe_all(keys))


def _arguments(describer: Describer, _builder: Any, guard: Any) -> Description:
    return describer.describe_all([*guard.create_fn.args, *guard.create_fn.keywords.values()])


def _attribute(_describer: Describer, builder: Any, guard: Any) -> Description:
    name = guard.create_fn.keywords["attr"]
    return (name, str(hasattr(builder.get(guard), name)))


def _tensor(describer: Describer, builder: Any, guard: Any) -> Description:
    """Sizes and strides are saved by value; the others are read from the tensor."""
    if match_on_id_for_tensor(guard):
        raise UnrecordableError("a tensor of which the very instance matters")
    value = builder.get(guard)
    if not isinstance(value, torch.Tensor):
        raise UnrecordableError(f"a {type(value).__module__}.{type(value).__qualname__} that becomes a tensor")
    keys = getattr(value, "dispatch_keys", None) or torch._C._dispatch_keys(value)
    marks = {name: mark for name, mark in vars(value).items() if name in _MARKS}
    facts = (value.dtype, value.device, value.requires_grad, value.layout, keys.raw_repr(), marks)
    return (*describer.name_of_class(_class_of(value)), *describer.describe_all(facts))


_MARKS = (
    *("_dynamo_dynamic_indices", "_dynamo_weak_dynamic_indices", "_dynamo_unbacked_indices"),
    *("_dynamo_strict_unbacked_indices", "_dynamo_static_indices", "_dynamo_shape_ids", "_dynamo_unbacked_bounds"),
)
"""Attributes by which a program marks dimensions of a tensor, on which Dynamo guards."""


def _iterator(describer: Describer, builder: Any, guard: Any) -> Description:
    value = builder.get(guard)
    read: dict[str, Callable[[Any], Any]] = {
        "TUPLE_ITERATOR_LEN": dynamo_utils.tuple_iterator_len,
        "RANGE_ITERATOR_MATCH": dynamo_utils.normalize_range_iter,
        "COUNT_ITERATOR_MATCH": dynamo_utils.normalize_count_iter,
    }
    return (*describer.name_of_class(type(value)), describer.describe(read[guard.create_fn_name()](value)))


def _global_state(_describer: Describer, builder: Any, _guard: Any) -> Description:
    return ("state", str(builder.check_fn_manager.output_graph.global_state_guard.__getstate__()))


def _default_device(describer: Describer, _builder: Any, _guard: Any) -> Description:
    """The guard compares with the device of the process that builds it."""
    return describer.describe(torch.utils._device.CURRENT_DEVICE)


def _no_modes(_describer: Describer, builder: Any, _guard: Any) -> Description:
    if builder.check_fn_manager.output_graph.torch_function_mode_stack:
        raise UnrecordableError("a torch function mode")
    return ()


def _dual_level(_describer: Describer, builder: Any, _guard: Any) -> Description:
    return ("level", str(builder.check_fn_manager.output_graph.dual_level))


def _no_layers(_describer: Describer, builder: Any, _guard: Any) -> Description:
    if builder.check_fn_manager.output_graph.functorch_layers:
        raise UnrecordableError("a functorch transform that is under way")
    return ()


def _no_hooks(_describer: Describer, _builder: Any, _guard: Any) -> Description:
    """The guard compares with the hooks of the process that builds it."""
    hooks: Any = torch._C._autograd._top_saved_tensors_default_hooks(True)
    if hooks:
        raise UnrecordableError("hooks on tensors that autograd saves")
    return ()


_KINDS: dict[str, Callable[[Describer, Any, Any], Description]] = {
    **dict.fromkeys(("CONSTANT_MATCH", "EQUALS_MATCH", "BOOL_MATCH", "NONE_MATCH", "CONSTANT_SUBCLASS_MATCH"), _value),
    **dict.fromkeys(("ID_MATCH", "FUNCTION_MATCH", "CLASS_MATCH", "MODULE_MATCH", "BUILTIN_MATCH"), _value),
    **dict.fromkeys(("CLOSURE_MATCH", "DISPATCH_KEY_SET_MATCH"), _value),
    **dict.fromkeys(("DICT_CONTAINS", "DICT_NOT_CONTAINS", "SET_CONTAINS", "SET_NOT_CONTAINS"), _arguments),
    **dict.fromkeys(("NOT_PRESENT_IN_GENERIC_DICT", "NOT_NONE_MATCH", "DUPLICATE_INPUT", "SHAPE_ENV"), _nothing),
    **dict.fromkeys(("GRAD_MODE", "DETERMINISTIC_ALGORITHMS", "FSDP_TRAINING_STATE"), _nothing),
    **dict.fromkeys(("TUPLE_ITERATOR_LEN", "RANGE_ITERATOR_MATCH", "COUNT_ITERATOR_MATCH"), _iterator),
    **dict.fromkeys(("SEQUENCE_LENGTH", "EMPTY_NN_MODULE_HOOKS_DICT"), _length),
    **dict.fromkeys(("DICT_KEYS_MATCH", "MAPPING_KEYS_CHECK"), _keys),
    "TYPE_MATCH": _type,
    "HASATTR": _attribute,
    "TENSOR_MATCH": _tensor,
    "GLOBAL_STATE": _global_state,
    "DEFAULT_DEVICE": _default_device,
    "TORCH_FUNCTION_STATE": _no_modes,
    "DUAL_LEVEL": _dual_level,
    "FUNCTORCH_STACK_MATCH": _no_layers,
    "AUTOGRAD_SAVED_TENSORS_HOOKS": _no_hooks,
}
"""How each kind of guard is described. A kind that is not here is not kept."""
