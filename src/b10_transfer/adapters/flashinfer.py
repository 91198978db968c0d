"""FlashInfer's kernels, and what its autotuner found for vLLM.

Layout (FlashInfer 0.6.18, ``flashinfer/jit``), below ``<base>/.cache/flashinfer``:

================================================  ====================================================================
``<version>/<arch>/cached_ops/<op>/``             objects, ``<op>.so``, ninja's state: built while
                                                  ``cached_ops/tmp/<op>.lock`` is held (``flock``)
``<version>/<arch>/cached_ops/<op>_cute_dsl/``    a CuTe DSL family: an object for each kernel, renamed into place, and
                                                  ``meta.json``, without which they are wiped
``<version>/<arch>/generated/…``                  sources that the above were built from, some of them shared
``<version>/<arch>/autotune/*.json``              tuning
``<version>/<arch>/flashinfer_jit.log``,          of this machine
``<version>/<arch>/cached_ops/tmp/``
``cubins/``                                       downloads, which FlashInfer verifies; large, and not compiled here
================================================  ====================================================================

FlashInfer asks ninja about each op in every process: see :mod:`.ninja` for when it hits. A generated source is written
anew if its content differs, and an op newer than its source is current, so sources travel with their times, each by
itself. (Up to 0.6.0 all ops shared one state, ``cached_ops/.ninja_log``; it does not travel, and those never hit.)

``<arch>`` is what was compiled for, ``<version>`` FlashInfer's. Ninja goes by times, not by content: as on one machine,
an image in which the same version was built from other sources *before* the cache was made hits all the same.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from ..config.reader import EnvReader, Variable, real_path
from .base import Adapter, Unit, UnitKind, is_locked, is_transient
from .ninja import has_built_library, is_build_file
from .vllm_root import VLLM_CACHE_ROOT, vllm_cache_root

_OPS = "cached_ops"
_OWN = {"cubins", "tmp"}


class FlashInferAdapter(Adapter):
    """``<FLASHINFER_WORKSPACE_BASE or home>/.cache/flashinfer``."""

    name = "flashinfer"
    title = "FlashInfer's kernels"
    units = "an op's folder, a generated source"
    variables = (
        Variable(
            "FLASHINFER_WORKSPACE_BASE",
            "`~`",
            "a path; the same on every pod, or nothing hits",
            "FlashInfer's cache is `.cache/flashinfer` in it.",
        ),
    )

    def locate(self, env: EnvReader) -> Path:
        # Resolved once more, because what lies below the base may be links too.
        base = env.path("FLASHINFER_WORKSPACE_BASE") or real_path("~")
        return real_path(str(base / ".cache" / "flashinfer"))

    def skips_folder(self, path: str) -> bool:
        parts = path.split("/")
        return parts[0] in _OWN or parts[2:] == [_OPS, "tmp"] or is_transient(path)

    def unit_of(self, path: str) -> Unit | None:
        if is_transient(path) or ".tmp." in path or is_build_file(path):
            return None
        match path.split("/"):
            case [first, *_] if first in _OWN:
                return None
            case [version, arch, "cached_ops", op, _, *_] if op != "tmp":
                return Unit(f"{version}/{arch}/{_OPS}/{op}", UnitKind.FOLDER)
            case [_, _, "generated" | "autotune", *_, name] if not name.startswith("."):
                return Unit(path, UnitKind.STEM)
            case _:
                return None

    def may_be_replaced(self, unit: Unit) -> bool:
        return True  # ninja looks at more than a name says

    def is_complete(self, root: Path, unit: Unit, files: Collection[str]) -> bool:
        if not files:
            return False
        version, arch, kind, name = unit.path.split("/")[:4]
        ops = root / version / arch / _OPS
        if kind == _OPS:
            if f"{unit.path}/meta.json" in files:
                return not is_locked(ops / "tmp" / f"{name}.lock")
            return not is_locked(ops / "tmp" / f"{name}.lock") and has_built_library(ops / name, files)
        # With an op's source published before the op, another pod's op would come to lie beside it, older than it.
        return not os.path.isdir(ops / name) or os.path.exists(ops / name / f"{name}.so")


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
            "Where vLLM keeps what FlashInfer's autotuner found.",
        ),
    )

    def locate(self, env: EnvReader) -> Path:
        default = vllm_cache_root(env) / "flashinfer_autotune_cache"
        return env.path("VLLM_FLASHINFER_AUTOTUNE_CACHE_DIR") or default

    def unit_of(self, path: str) -> Unit | None:
        name = path.rpartition("/")[2]
        if not name.startswith("autotune_configs") or not name.endswith(".json") or is_transient(path):
            return None
        return Unit(path, UnitKind.STEM)
