"""FlashInfer's kernels, and what its autotuner found for vLLM.

Layout (FlashInfer 0.6.18, ``flashinfer/jit``), below ``<base>/.cache/flashinfer``:

================================================  ====================================================================
``<version>/<arch>/cached_ops/<op>/``             objects, ``<op>.so``, ninja's state: built while
                                                  ``cached_ops/tmp/<op>.lock`` is held (``flock``)
``<version>/<arch>/cached_ops/<op>_cute_dsl/``    a CuTe DSL family: an object for each kernel, renamed into place, and
                                                  ``meta.json``, without which they are wiped
``<version>/<arch>/generated/…``                  sources that the above were built from, some of them shared
``<version>/<arch>/autotune/``                    tuning: ``sparse_mla_….json``, ``pcie_ipc_….json``
``<version>/<arch>/cached_ops/kda_tirx_<key>/``   a kernel that TVM built (0.7.2, ``kda_kernels/tirx/cache.py``):
                                                  ``kernel.so``, and ``kernel.json`` with its digest, renamed into place
                                                  in this order; the key covers the sources, TVM and the compiler
``moe_ep_knob_cache.json``                        settings for mixtures of experts: a cache of its own
                                                  (:mod:`.flashinfer_knobs`), and a unit of this one in packs from
                                                  before 1.0.0
``autotune/v2/<environment>/``                    tuning (0.7): ``manifest.json``, ``entries/<operation>.json``
``<version>/<arch>/flashinfer_jit.log``,          of this machine
``<version>/<arch>/cached_ops/tmp/``
``cubins/``                                       downloads, which FlashInfer verifies; large, and not compiled here
================================================  ====================================================================

FlashInfer asks ninja about each op in every process: see :mod:`.ninja` for when it hits. A generated source is written
anew if its content differs. It is an input of its op, so it travels, too, by itself. (Up to 0.6.0 all ops shared one
state, ``cached_ops/.ninja_log``; it does not travel, and those never hit.)

``<arch>`` is what was compiled for, ``<version>`` FlashInfer's.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path

from ..config.reader import EnvReader, Variable, real_path
from .accumulation import Results
from .base import Adapter, Unit, is_locked, json_object
from .flashinfer_knobs import KNOBS, local_knobs, portable_knobs
from .key_facts import cuda_home, package
from .layout import ANY_DEPTH, NAME, SHA256, Layout, folder_shape, stem_shape
from .ninja import BUILD_FILES, NinjaAdapter, has_built_library
from .ninja.digests import facts
from .vllm_root import VLLM_CACHE_ROOT, vllm_cache_root

_OPS = "cached_ops"
_PLACE = r"\d[\w.+-]*/[\w.+-]+"
"""FlashInfer's version, and what was compiled for."""
_OP = rf"(?!tmp$){NAME}"
_TVM = rf"kda_tirx_{SHA256}"
_LIBRARY, _DIGEST = "kernel.so", "kernel.json"
"""What TVM builds, and the file that holds its digest."""
FLASHINFER_TUNING = Results("_metadata")
"""Files of results, each for one FlashInfer and device."""
_TUNED = r"autotune_configs(?:_\w+)?\.json"
_SOURCE = rf"{NAME}\.(?:cu|cuh|cc|cpp|h|hpp|inc)"


class FlashInferAdapter(NinjaAdapter):
    """``<FLASHINFER_WORKSPACE_BASE or home>/.cache/flashinfer``."""

    name = "flashinfer"
    title = "FlashInfer's kernels"
    units = "an op's folder, a generated source"
    variables = (
        Variable(
            "FLASHINFER_WORKSPACE_BASE",
            "`~`",
            "a path",
            "FlashInfer's cache is `.cache/flashinfer` in it.",
        ),
    )
    layout = Layout(
        folder_shape(f"{_PLACE}/{_OPS}/{_OP}", BUILD_FILES),
        folder_shape(f"{_PLACE}/{_OPS}/{_OP}", r"meta\.json"),
        folder_shape(f"{_PLACE}/{_OPS}/{_TVM}", re.escape(_DIGEST)),
        folder_shape(f"{_PLACE}/{_OPS}/{_OP}", f"{ANY_DEPTH}/{_SOURCE}"),
        stem_shape(f"{_PLACE}/generated/{ANY_DEPTH}/{_SOURCE}"),
        stem_shape(rf"{_PLACE}/autotune/(?:sparse_mla|pcie_ipc)_\w+\.json"),
        stem_shape(re.escape(KNOBS)),
        stem_shape(r"autotune/v2/[0-9a-f]{8,64}/manifest\.json"),
        stem_shape(r"autotune/v2/[0-9a-f]{8,64}/entries/[0-9a-f]{8,64}\.json"),
        left_here=(
            "cubins|tmp",
            rf"{_PLACE}/(?:flashinfer_jit\.log|{_OPS}/(?:tmp|\.ninja_log|\.ninja_deps))",
            rf"{_PLACE}/{_OPS}/{NAME}/(?:build\.ninja|[^/]+\.tmp\.\d+)",
        ),
    )

    def locate(self, env: EnvReader) -> Path:
        # Resolved once more, because what lies below the base may be links too.
        base = env.literal_path("FLASHINFER_WORKSPACE_BASE") or real_path("~")
        return real_path(str(base / ".cache" / "flashinfer"))

    def is_complete(self, root: Path, unit: Unit, files: Collection[str]) -> bool:
        if not files:
            return False
        if "/" not in unit.path:
            return True
        version, arch, kind, name = unit.path.split("/")[:4]
        ops = root / version / arch / _OPS
        if kind == _OPS:
            if re.fullmatch(_TVM, name):
                is_built = _has_digest(ops / name, files)
            else:
                is_built = f"{unit.path}/meta.json" in files or has_built_library(ops / name, files)
            return is_built and not self.is_held(root, unit)
        if kind != "generated":
            return True
        # With an op's source published before the op, another pod's op would come to lie beside it, older than it.
        return not os.path.isdir(ops / name) or os.path.exists(ops / name / f"{name}.so")

    def depends_on_host(self, unit: Unit, files: Collection[str]) -> bool:
        """Tuning does not. A source does not either, but beside an op that is built later it must not be newer."""
        parts = unit.path.split("/")
        return parts[0] not in ("autotune", KNOBS) and parts[2:3] != ["autotune"]

    def key_facts(self, env: EnvReader, root: Path) -> Mapping[str, str]:
        return {**package("flashinfer"), **cuda_home(env)}

    def results_of(self, path: str) -> Results | None:
        parts = path.split("/")
        return FLASHINFER_TUNING if parts[2:3] == ["autotune"] and len(parts) == 4 else None

    def is_rewritten(self, path: str) -> bool:
        return path == KNOBS or super().is_rewritten(path)

    def to_portable(self, root: Path, path: str, data: bytes, files: Collection[str]) -> bytes:
        return portable_knobs(data) if path == KNOBS else super().to_portable(root, path, data, files)

    def to_local(self, root: Path, path: str, data: bytes) -> bytes:
        return local_knobs(data) if path == KNOBS else super().to_local(root, path, data)

    def is_held(self, root: Path, unit: Unit) -> bool:
        ops, _, name = unit.path.rpartition("/")
        return ops.endswith(f"/{_OPS}") and is_locked(root / ops / "tmp" / f"{name}.lock")


def _has_digest(folder: Path, files: Collection[str]) -> bool:
    """Whether TVM has finished a library: another file holds its digest. FlashInfer makes the same check."""
    if not {_LIBRARY, _DIGEST} <= {file.rpartition("/")[2] for file in files}:
        return False
    try:
        digest = json_object((folder / _DIGEST).read_bytes(), "no digest").get("sha256")
        return bool(digest == facts(str(folder / _LIBRARY)).sha256)
    except (OSError, ValueError):
        return False


class FlashInferAutotuneAdapter(Adapter):
    """``VLLM_FLASHINFER_AUTOTUNE_CACHE_DIR`` or ``VLLM_CACHE_ROOT/flashinfer_autotune_cache``.

    Layout (vLLM 0.32, ``vllm/model_executor/warmup/flashinfer_autotune_cache.py``): ``autotune_configs.json``, one for
    each hash of vLLM's configuration, in a folder named so, and by default in two more, FlashInfer's version and arch;
    renamed into place. FlashInfer checks versions and device, which are in the file, when it reads one.
    """

    name = "flashinfer_autotune"
    title = "FlashInfer's tuning in vLLM"
    units = "a configuration's file"
    variables = (
        VLLM_CACHE_ROOT,
        Variable(
            "VLLM_FLASHINFER_AUTOTUNE_CACHE_DIR",
            "`VLLM_CACHE_ROOT/flashinfer_autotune_cache`",
            "a path, `~` and links resolved",
            "Where vLLM keeps the results of FlashInfer's autotuner.",
        ),
    )
    layout = Layout(
        stem_shape(rf"[0-9a-f]{{4,64}}/{_TUNED}"),
        stem_shape(rf"{_PLACE}/[0-9a-f]{{4,64}}/{_TUNED}"),
        left_here=(r"(?:[^/]+/)*\.?autotune\w*\.lock",),
    )

    def locate(self, env: EnvReader) -> Path:
        default = vllm_cache_root(env) / "flashinfer_autotune_cache"
        return env.path("VLLM_FLASHINFER_AUTOTUNE_CACHE_DIR") or default

    def depends_on_host(self, unit: Unit, files: Collection[str]) -> bool:
        return False

    def results_of(self, path: str) -> Results | None:
        return FLASHINFER_TUNING
