"""Compiled graphs: taken from AOTAutograd while it compiles, and put back without starting processes.

AOTAutograd keeps a graph in one of two forms: the ordinary one, which names an entry of Inductor's cache, and the
bundled one, which is whole in itself. Torch writes one *or* the other, and under keys that no other process computes
if a package is recorded. Here a recorded graph is looked up and written in the ordinary form under the ordinary key,
as without instant starts; the trace gets the bundled form.
"""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import inspect
import logging
import pickle
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from typing import Any
from unittest.mock import patch

import torch
import torch._functorch.config as functorch_config
from torch._dynamo.precompile_context import PrecompileContext
from torch._functorch._aot_autograd import autograd_cache
from torch._functorch._aot_autograd.aot_autograd_result import (
    BundledAOTAutogradCacheArtifact,
    BundledAOTAutogradResult,
    BundledCompiledForward,
)
from torch._functorch._aot_autograd.autograd_cache import AOTAutogradCache
from torch._inductor.cpu_vec_isa import VecISA
from torch.utils._python_dispatch import _disable_current_modes

from .recording import recording

logger = logging.getLogger(__name__)

_make_entry = AOTAutogradCache.make_entry
_look_up = AOTAutogradCache._lookup
_key: Callable[..., Any] = autograd_cache.autograd_cache_key


def install() -> None:
    """Take part in what AOTAutograd caches from now on, while a package records."""
    autograd_cache.autograd_cache_key = _ordinary_key
    AOTAutogradCache.make_entry = staticmethod(_entry)  # type: ignore[method-assign]
    AOTAutogradCache._lookup = staticmethod(_lookup)  # type: ignore[method-assign]


def lacking() -> str:
    """What this torch lacks of what is touched here."""
    needed = ((_make_entry, {"sanitized_aot_config"}), (_key, {"mod", "config"}), (_look_up, {"aot_config"}))
    for function, names in needed:
        if not names <= set(inspect.signature(function).parameters):
            return "this torch's AOTAutograd makes or names its cache entries in another way"
    return ""


@functools.wraps(_key)
def _ordinary_key(*arguments: Any, **options: Any) -> Any:
    """The key without the name by which a package finds the graph: it is new in every process.

    The name is in the configuration, and by its place among the attributes in the graph itself.
    """
    if recording.get() is None:
        return _key(*arguments, **options)
    given = inspect.signature(_key).bind(*arguments, **options).arguments
    config = dataclasses.replace(given.pop("config"), precompile_backend_id=None)
    graph = getattr(given["mod"], "gm", given["mod"])
    _is_looked_up.set(not _has_operators_of_others(graph))
    attributes = vars(graph)
    name = attributes.pop("_backend_id", None)
    try:
        return _key(**given, config=config)
    finally:
        attributes["_backend_id"] = name


_is_looked_up: ContextVar[bool] = ContextVar("is_looked_up", default=False)
"""Whether the key that this thread has computed names all that its graph does."""
_NAMESPACES = ("aten", "prim", "prims")


def _has_operators_of_others(graph: torch.nn.Module) -> bool:
    """Whether a graph calls operators that are not torch's own.

    AOTAutograd replaces some by what their Python code does, which is not in its key.
    """
    operators = (torch._ops.OpOverload, torch._ops.OpOverloadPacket)
    targets = (node.target for part in graph.modules() for node in getattr(getattr(part, "graph", None), "nodes", ()))
    names = (str(target) for target in targets if isinstance(target, operators))
    return any(name.partition(".")[0] not in _NAMESPACES for name in names)


@functools.wraps(_look_up)
def _lookup(*arguments: Any, **options: Any) -> Any:
    """The entry that a warm start finds; a package that records is given the graph when it is loaded."""
    if recording.get() is not None and not _is_looked_up.get():
        return None
    found = _look_up(*arguments, **options)
    config = inspect.signature(_look_up).bind(*arguments, **options).arguments["aot_config"]
    backend = getattr(config, "precompile_backend_id", None)
    if found is not None and recording.get() is not None and backend is not None:
        entry, content = found
        if entry.compiled_bw is None:
            entry.compiled_fw.load = functools.partial(_load, entry.compiled_fw.load, backend, content)
    return found


def _load(load: Callable[[Any], Any], backend: str, content: bytes, inputs: Any) -> Any:
    """The graph that an ordinary entry names, before torch prepares it for calls."""
    graph = load(inputs)
    try:
        entry = pickle.loads(content)
        graph._fx_graph_cache_key = entry.compiled_fw.fx_graph_cache_info[0]
        parts = {field.name: getattr(entry, field.name) for field in dataclasses.fields(entry)}
        parts["compiled_fw"] = BundledCompiledForward(graph)
        _record(backend, BundledAOTAutogradResult(**parts))
    except Exception:  # the trace is then not kept, and says so when it is written
        logger.debug("instant start: a graph cannot be bundled", exc_info=True)
    return graph


@functools.wraps(_make_entry)
def _entry(*arguments: Any, **options: Any) -> Any:
    """The ordinary entry; a package that records is given the bundled one as well."""
    given = inspect.signature(_make_entry).bind(*arguments, **options).arguments
    backend = given["sanitized_aot_config"].precompile_backend_id
    if recording.get() is None or backend is None:
        return _make_entry(**given)
    given["sanitized_aot_config"] = dataclasses.replace(given["sanitized_aot_config"], precompile_backend_id=None)
    try:
        with functorch_config.patch(bundled_autograd_cache=True):
            bundled = _make_entry(**given)
        _record(backend, bundled)
    except Exception:  # the trace is then not kept, and says so when it is written
        logger.debug("instant start: a graph cannot be bundled", exc_info=True)
    return _make_entry(**given)


def _record(backend: str, bundled: Any) -> None:
    """Give a graph to the package that records. Raises whatever pickling raises."""
    bundled.pre_save()
    with _disable_current_modes():
        pickle.dumps(bundled)  # what cannot be written refuses one trace now, and not all of them later
    PrecompileContext.record_artifact(BundledAOTAutogradCacheArtifact(backend, bundled))


def probing_in_this_process() -> AbstractContextManager[Any]:
    """Inductor's check that what it builds for this CPU can be loaded, without a Python process for each of its files.

    Torch starts one for each of up to four files, a second in all, to survive one that hangs. The kernels that are
    about to be restored are loaded into this process whatever comes of it, and were built with the same flags.
    """
    if not hasattr(VecISA, "_probe_load"):
        return nullcontext()
    return patch.object(VecISA, "_probe_load", _is_loadable)


def _is_loadable(_isa: VecISA, path: str) -> bool:
    try:
        ctypes.CDLL(path)
    except OSError:
        return False
    return True
