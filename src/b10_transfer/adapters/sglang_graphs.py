"""Inductor's and Triton's directories where SGLang compiles graphs.

===================================================  =================================================================
``SGLANG_CACHE_DIR/torch_compile_cache/``            SGLang 0.5.6 to 0.5.23, ``srt/compilation/backend.py``:
                                                     ``<hash>/rank_0_0/<part>/inductor_cache`` and ``triton_cache``,
                                                     for all ranks; the hash covers torch and the device. It also
                                                     writes ``computation_graph.py``, for people
``SGLANG_DIFFUSION_CACHE_ROOT/torch_compile_cache``  0.5.20, ``multimodal_gen/runtime/managers/gpu_worker.py``:
                                                     ``inductor`` and ``triton``. Beside it lie models and weights
===================================================  =================================================================

SGLang sets Inductor's and Triton's variables to these places in its own process, so these adapters come before theirs.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

from ..config.reader import EnvReader, Variable, real_path
from .accumulation import Results
from .base import Adapter, Unit, UnitKind
from .inductor import InductorAdapter
from .layout import NAME, Layout, folder_shape
from .sglang import SGLANG_CACHE_DIR, sglang_cache_dir
from .triton import TritonAdapter

_DIFFUSION = Variable(
    "SGLANG_DIFFUSION_CACHE_ROOT",
    "`~/.cache/sgl_diffusion`",
    "a path, `~` and links resolved",
    "SGLang's cache for diffusion models. Only `torch_compile_cache` in it is saved.",
)
DIFFUSION_GRAPHS = "torch_compile_cache"
"""The folder in it that is saved."""
_PART = rf"[0-9a-f]{{10}}/rank_\d+_\d+/{NAME}"
_NESTED = re.compile(rf"({_PART}/(?:inductor_cache|triton_cache))(?:/(.+))?", re.ASCII)


class _Nested(NamedTuple):
    """A path in a directory of Inductor's or Triton's."""

    folder: str
    """The directory, relative to the root."""
    adapter: Adapter
    below: str
    """The path relative to the directory; empty for the directory itself."""

    def unit(self, kind: UnitKind) -> Unit:
        """The unit at this path, as the adapter knows it."""
        return Unit(self.below, kind)

    def without_folder(self, files: Collection[str]) -> list[str]:
        """The same files, relative to the directory."""
        return [file[len(self.folder) + 1 :] for file in files]


class SglangGraphsAdapter(Adapter):
    """``torch_compile_cache`` in SGLang's cache directory."""

    name = "sglang_graphs"
    title = "Inductor's and Triton's artifacts of SGLang's own backend"
    units = "as Inductor's and Triton's"
    variables = (SGLANG_CACHE_DIR,)
    # For the folders above. Every unit is Inductor's or Triton's.
    layout = Layout(
        folder_shape(f"{_PART}/(?:inductor_cache|triton_cache)", "(?!)"),
        left_here=(rf"{_PART}/(?:computation_graph|sglang_compile_cache)\.py",),
    )
    _adapters: Mapping[str, Adapter] = {"inductor_cache": InductorAdapter(), "triton_cache": TritonAdapter()}

    def locate(self, env: EnvReader) -> Path:
        return sglang_cache_dir(env) / "torch_compile_cache"

    def _nested(self, path: str) -> _Nested | None:
        found = _NESTED.fullmatch(path)
        return found and _Nested(found[1], self._adapters[found[1].rpartition("/")[2]], found[2] or "")

    def unit_of(self, path: str) -> Unit | None:
        nested = self._nested(path)
        unit = nested and nested.below and nested.adapter.unit_of(nested.below)
        return Unit(f"{nested.folder}/{unit.path}", unit.kind) if nested and unit else None

    def skips_folder(self, path: str) -> bool:
        nested = self._nested(path)
        if nested is None:
            return super().skips_folder(path)
        return bool(nested.below) and nested.adapter.skips_folder(nested.below)

    def leaves_here(self, path: str) -> bool:
        nested = self._nested(path)
        return nested.adapter.leaves_here(nested.below) if nested else super().leaves_here(path)

    def written(self, unit: Unit, files: Collection[str], *, is_mixed: bool = False) -> Collection[str]:
        nested = self._at(unit.path)
        kept = nested.adapter.written(nested.unit(unit.kind), nested.without_folder(files), is_mixed=is_mixed)
        return [f"{nested.folder}/{file}" for file in kept]

    def is_complete(self, root: Path, unit: Unit, files: Collection[str]) -> bool:
        nested = self._at(unit.path)
        return nested.adapter.is_complete(root / nested.folder, nested.unit(unit.kind), nested.without_folder(files))

    def is_held(self, root: Path, unit: Unit) -> bool:
        nested = self._at(unit.path)
        return nested.adapter.is_held(root / nested.folder, nested.unit(unit.kind))

    def may_be_replaced(self, unit: Unit, files: Collection[str] = ()) -> bool:
        nested = self._nested(unit.path)
        if nested is None:
            return False
        return nested.adapter.may_be_replaced(nested.unit(unit.kind), nested.without_folder(files))

    def depends_on_host(self, unit: Unit, files: Collection[str]) -> bool:
        nested = self._at(unit.path)
        return nested.adapter.depends_on_host(nested.unit(unit.kind), nested.without_folder(files))

    def results_of(self, path: str) -> Results | None:
        nested = self._nested(path)
        return nested.adapter.results_of(nested.below) if nested else None

    def covers(self, root: str, other: str, adapter: Adapter) -> bool:
        """SGLang points ``TORCHINDUCTOR_CACHE_DIR`` and ``TRITON_CACHE_DIR`` into its cache once it compiles."""
        if not other.startswith(f"{root}/"):
            return super().covers(root, other, adapter)
        return self._nested(other[len(root) + 1 :]) is not None

    def key_facts(self, env: EnvReader, root: Path) -> Mapping[str, str]:
        return self._adapters["inductor_cache"].key_facts(env, root)

    def is_rewritten(self, path: str) -> bool:
        nested = self._nested(path)
        return nested is not None and nested.adapter.is_rewritten(nested.below)

    def to_portable(self, root: Path, path: str, data: bytes, files: Collection[str]) -> bytes:
        nested = self._at(path)
        return nested.adapter.to_portable(root / nested.folder, nested.below, data, nested.without_folder(files))

    def to_local(self, root: Path, path: str, data: bytes) -> bytes:
        nested = self._at(path)
        return nested.adapter.to_local(root / nested.folder, nested.below, data)

    def _at(self, path: str) -> _Nested:
        nested = self._nested(path)
        if nested is None:
            raise ValueError(f"{path!a:.120} is not in a directory of Inductor's or Triton's")
        return nested


def diffusion_root(env: EnvReader) -> Path:
    """``SGLANG_DIFFUSION_CACHE_ROOT``, links resolved. Raises ConfigurationError."""
    return env.path(_DIFFUSION.name) or real_path("~/.cache/sgl_diffusion")


class SglangDiffusionInductorAdapter(InductorAdapter):
    """``torch_compile_cache/inductor`` in SGLang's cache for diffusion models."""

    name = "sglang_diffusion_inductor"
    title = "Inductor's artifacts of SGLang's diffusion models"
    variables = (_DIFFUSION,)

    def locate(self, env: EnvReader) -> Path:
        return diffusion_root(env) / DIFFUSION_GRAPHS / "inductor"

    def check_place(self, env: EnvReader, path: Path) -> None:
        return  # two folders below any place that SGLang is given


class SglangDiffusionTritonAdapter(TritonAdapter):
    """``torch_compile_cache/triton`` in SGLang's cache for diffusion models."""

    name = "sglang_diffusion_triton"
    title = "Triton's kernels of SGLang's diffusion models"
    variables = (_DIFFUSION,)

    def locate(self, env: EnvReader) -> Path:
        return diffusion_root(env) / DIFFUSION_GRAPHS / "triton"
