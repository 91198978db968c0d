"""vLLM's compile cache.

Layout (vLLM 0.32, ``vllm/compilation``: ``decorators.py``, ``backends.py``, ``compiler_interface.py``), below
``VLLM_CACHE_ROOT/torch_compile_cache``; a hash covers vLLM's configuration, some environment variables, the model's
path as given, and, but for ``torch_aot_compile``, the sources that were traced:

=============================================  =======================================================================
``torch_aot_compile/<hash>/rank_<i>_<j>/``     ``model``: all graphs of a rank in one file, written as
                                               ``model.<pid>.tmp`` and renamed
``torch_aot_compile/<hash>/inductor_cache/``   Inductor's directory, Triton's in it, for all ranks
``<hash>/rank_<i>_<j>/<prefix>/``              without such a ``model``: ``vllm_compile_cache.py``, an index that is
                                               written once all graphs are compiled, straight to its name; and what it
                                               names: ``artifact_…``, files or (Inductor-shaped) folders
``<hash>/rank_<i>_<j>/inductor_cache/``,       what the index names instead if ``VLLM_USE_STANDALONE_COMPILE=0``
``<hash>/rank_<i>_<j>/triton_cache/``
=============================================  =======================================================================

If the index names a graph that is missing, vLLM fails: that is no miss. So such a rank folder is one unit. A ``model``
contains everything it needs, so the Inductor directory beside it has Inductor's units.

``cache_key_factors.json`` and ``computation_graph.py`` are for people. vLLM writes them before it compiles and never
reads them. The first contains values of environment variables. They are not saved.

The index contains each artifact's absolute path, and earlier versions of vLLM read the artifact from there
(vllm-project/vllm#52154). A save removes these paths, and a load puts in this machine's. No other path below the cache
root decides on a hit. ``model`` and the libraries contain such paths, but hit elsewhere too, as the tests with the real
server show. Paths of *sources* and of the model are in the hash: they must be the same on every pod.
"""

from __future__ import annotations

import ast
import pprint
import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path, PurePosixPath

from ..config.reader import EnvReader, real_path
from .accumulation import Results
from .base import Adapter, Unit, UnitKind
from .inductor import InductorAdapter
from .layout import Layout, folder_shape
from .triton import TritonAdapter
from .vllm_root import VLLM_CACHE_ROOT, vllm_cache_root

_AOT = "torch_aot_compile"
_INDUCTOR = "inductor_cache"
_TRITON = "triton_cache"
_MODEL = "model"
_INDEX = "vllm_compile_cache.py"
_HASH = r"[A-Za-z0-9]{1,64}"
_RANK = r"rank(?:_\d+)+"
_PREFIX = r"(?!inductor_cache$|triton_cache$|artifact_)[A-Za-z0-9_.-]+"
_ARTIFACT = r"artifact_[\w.,()-]+"
_HERE = "{unit}/"
"""Stands for the unit's folder in the strings of an index that travels."""


class VllmAdapter(Adapter):
    """``VLLM_CACHE_ROOT/torch_compile_cache``."""

    name = "vllm"
    title = "vLLM's compiled graphs, with Inductor's and Triton's artifacts among them"
    units = "a rank's folder; below `torch_aot_compile/<hash>/inductor_cache` as Inductor's"
    variables = (VLLM_CACHE_ROOT,)
    layout = Layout(
        folder_shape(f"{_AOT}/{_HASH}/{_RANK}", _MODEL),
        folder_shape(f"(?!{_AOT}$){_HASH}/{_RANK}", rf"vllm_compile_cache\.py|{_ARTIFACT}"),
        folder_shape(f"(?!{_AOT}$){_HASH}/{_RANK}", rf"{_PREFIX}/(?:vllm_compile_cache\.py|{_ARTIFACT})"),
        left_here=(r"(?:[^/]+/)*(?:cache_key_factors\.json|computation_graph\.py|transformed_code\.py)",),
    )
    _artifact_folder = re.compile(rf"(?!{_AOT}/){_HASH}/{_RANK}/(?:{_PREFIX}/)?{_ARTIFACT}", re.ASCII)
    _inductor = InductorAdapter()
    _triton = TritonAdapter()

    def locate(self, env: EnvReader) -> Path:
        return vllm_cache_root(env) / "torch_compile_cache"

    def skips_folder(self, path: str) -> bool:
        _folder, adapter, below = self._inside(path)
        if adapter is None:
            return not self.layout.may_hold(path) and not self._artifact_folder.fullmatch(path)
        return bool(below) and adapter.skips_folder(below)

    def leaves_here(self, path: str) -> bool:
        _folder, adapter, below = self._inside(path)
        return adapter.leaves_here(below) if adapter else self.layout.is_left_here(path)

    def unit_of(self, path: str) -> Unit | None:
        folder, adapter, below = self._inside(path)
        if adapter is None:
            return self.layout.unit_of(path)
        found = adapter.unit_of(below)
        if found is None or folder.startswith(f"{_AOT}/"):
            return found and Unit(f"{folder}/{found.path}", found.kind)
        return Unit(_unit_of_index(path), UnitKind.FOLDER)

    def _inside(self, path: str) -> tuple[str, Adapter | None, str]:
        """Split a path at a folder that holds another compiler's cache: the folder, that adapter, what lies below."""
        folder, cache, below = _nested(path)
        if cache:
            return folder, self._inductor if cache == _INDUCTOR else self._triton, below
        parts = path.split("/")
        for depth in (3, 4):
            if len(parts) > depth and self._artifact_folder.fullmatch("/".join(parts[:depth])):
                return "/".join(parts[:depth]), self._inductor, "/".join(parts[depth:])
        return "", None, path

    def written(self, unit: Unit, files: Collection[str], *, is_mixed: bool = False) -> Collection[str]:
        kept = []
        of_kernels: dict[tuple[str, Adapter, Unit], list[str]] = {}
        for file in files:
            folder, adapter, below = self._inside(file)
            if adapter is not None and (found := adapter.unit_of(below)) is not None:
                of_kernels.setdefault((folder, adapter, found), []).append(below)
            else:
                kept.append(file)
        for (folder, adapter, found), inner in of_kernels.items():
            kept += [f"{folder}/{path}" for path in adapter.written(found, inner, is_mixed=is_mixed)]
        return kept

    def is_complete(self, root: Path, unit: Unit, files: Collection[str]) -> bool:
        prefix, cache, _below = _nested(unit.path)
        if cache == _INDUCTOR:
            return _all_complete(self._inductor, root, prefix, files)
        if unit.path.startswith(f"{_AOT}/"):
            return f"{unit.path}/{_MODEL}" in files
        indexed = {file.rpartition("/")[0] for file in files if _is_index(file)}
        own = [file for file in files if not _nested(file)[1]]
        return (
            bool(indexed)
            and all(any(file.startswith(f"{folder}/") for folder in indexed) for file in own)
            and _all_complete(self._inductor, root, f"{unit.path}/{_INDUCTOR}", files)
            and _all_complete(self._triton, root, f"{unit.path}/{_TRITON}", files)
        )

    def may_be_replaced(self, unit: Unit, files: Collection[str] = ()) -> bool:
        return unit.path.startswith(f"{_AOT}/") and unit.path.count("/") == 2  # sources are no part of its hash

    def covers(self, root: str, other: str, adapter: Adapter) -> bool:
        """vLLM points ``TORCHINDUCTOR_CACHE_DIR`` and ``TRITON_CACHE_DIR`` into its cache once it compiles."""
        if not other.startswith(f"{root}/"):
            return super().covers(root, other, adapter)
        return bool(_nested(other[len(root) + 1 :])[1])

    def depends_on_host(self, unit: Unit, files: Collection[str]) -> bool:
        prefix, cache, below = _nested(unit.path)
        if cache != _INDUCTOR or not prefix.startswith(f"{_AOT}/"):
            return True
        inner = [file[len(prefix) + 1 :] for file in files]
        return self._inductor.depends_on_host(Unit(below, unit.kind), inner)

    def key_facts(self, env: EnvReader, root: Path) -> Mapping[str, str]:
        # Up to 0.26 it hashes two paths in it (``vllm/envs.py``: VLLM_CONFIG_ROOT, VLLM_XLA_CACHE_PATH).
        return {**self._inductor.key_facts(env, root), "home directory (up to vLLM 0.26)": str(real_path("~"))}

    def results_of(self, path: str) -> Results | None:
        folder, adapter, below = self._inside(path)
        return adapter.results_of(below) if adapter and folder.startswith(f"{_AOT}/") else None

    def is_rewritten(self, path: str) -> bool:
        return _is_index(path) or self._triton.is_rewritten(path)

    def to_portable(self, root: Path, path: str, data: bytes, files: Collection[str]) -> bytes:
        if not _is_index(path):
            return self._triton.to_portable(root, path, data, files)
        unit = _unit_of_index(path)

        def without_place(text: str) -> str:
            _elsewhere, found, below = text.rpartition(f"/{unit}/")
            if not found:
                if text.startswith(_HERE):
                    raise ValueError(f"{path} holds {text!r}")
                return text
            if not any(file == f"{unit}/{below}" or file.startswith(f"{unit}/{below}/") for file in files):
                raise ValueError(f"{path} names {below}, which is not there")
            return _HERE + below

        return _rewrite(data, without_place)

    def to_local(self, root: Path, path: str, data: bytes) -> bytes:
        if not _is_index(path):
            return self._triton.to_local(root, path, data)
        unit = _unit_of_index(path)

        def with_place(text: str) -> str:
            if not text.startswith(_HERE):
                return text
            below = text[len(_HERE) :]
            if ".." in below.split("/"):
                raise ValueError("an index of vLLM's names files outside its folder")
            return f"{root}/{unit}/{below}"

        return _rewrite(data, with_place)


def _nested(path: str) -> tuple[str, str, str]:
    """Split a path at Inductor's or Triton's directory in a rank's (or an ahead-of-time artifact's) folder.

    What comes before and includes it, its name, what lies below it; the name is empty if the path leads to neither.
    """
    parts = path.split("/")
    if len(parts) > 2 and parts[2] in (_INDUCTOR, _TRITON) and (parts[0] != _AOT or parts[2] == _INDUCTOR):
        return "/".join(parts[:3]), parts[2], "/".join(parts[3:])
    return "", "", path


def _all_complete(adapter: Adapter, root: Path, prefix: str, files: Collection[str]) -> bool:
    """Whether each of the other adapter's units among the files below ``prefix`` is complete."""
    units: dict[Unit, list[str]] = {}
    for file in files:
        if file.startswith(f"{prefix}/"):
            below = file[len(prefix) + 1 :]
            if (unit := adapter.unit_of(below)) is not None:
                units.setdefault(unit, []).append(below)
    return all(adapter.is_complete(root / prefix, unit, found) for unit, found in units.items())


def _is_index(path: str) -> bool:
    return PurePosixPath(path).name == _INDEX and not path.startswith(f"{_AOT}/") and not _nested(path)[1]


def _unit_of_index(path: str) -> str:
    return "/".join(path.split("/")[:2])


def _rewrite(index: bytes, change: Callable[[str], str]) -> bytes:
    """An index with all strings in it changed. Raises ValueError if it is none, half written for example."""
    try:
        content = ast.literal_eval(index.decode())
        if not isinstance(content, dict):
            raise ValueError("not an index of vLLM's")
        return pprint.pformat(_changed(content, change), indent=4).encode()
    except (SyntaxError, RecursionError, MemoryError, TypeError) as error:
        raise ValueError("not an index of vLLM's") from error


def _changed(value: object, change: Callable[[str], str]) -> object:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, tuple):
        return tuple(_changed(item, change) for item in value)
    if isinstance(value, list):
        return [_changed(item, change) for item in value]
    if isinstance(value, dict):
        return {key: _changed(item, change) for key, item in value.items()}
    return value
