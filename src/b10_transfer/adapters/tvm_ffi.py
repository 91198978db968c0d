"""Libraries that tvm-ffi builds when they are loaded: SGLang's kernels, among others.

Layout (tvm-ffi 0.1.13, ``python/tvm_ffi/cpp/extension.py``, ``_optional_torch_c_dlpack.py``):

=====================================  ===============================================================================
``<name>_<hash>/``                     sources of inline libraries, objects, ``<name>.so``, ninja's state; ``lock`` is
                                       held (``flock``) while it is built
``libtorch_c_dlpack_addon_….so``       tvm-ffi's own bridge to torch, built elsewhere and moved here while
                                       ``<library>.lock`` is held; used if it is there
=====================================  ===============================================================================

The hash covers sources or their paths, names and flags, not the version of tvm-ffi, whose headers ninja looks at: see
:mod:`.ninja` for when it hits. The bridge's name covers torch's version; tvm-ffi's is in neither, nor in the
environment's key: after it was updated in an image, a bridge of before is used, as it would be on one machine.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

from ..config.reader import EnvReader, Variable, real_path
from .base import Adapter, Unit, UnitKind, is_locked, is_transient
from .ninja import has_built_library, is_build_file

_BRIDGE = re.compile(r"libtorch_c_dlpack_addon_[\w.+-]+\.so", re.ASCII)


class TvmFfiAdapter(Adapter):
    """``TVM_FFI_CACHE_DIR`` or ``~/.cache/tvm-ffi``."""

    name = "tvm_ffi"
    title = "Libraries that tvm-ffi builds on load"
    units = "a library's folder"
    variables = (
        Variable(
            "TVM_FFI_CACHE_DIR",
            "`~/.cache/tvm-ffi`",
            "a path; the same on every pod, or nothing hits",
            "Where tvm-ffi builds libraries on load.",
        ),
    )

    def locate(self, env: EnvReader) -> Path:
        return env.path("TVM_FFI_CACHE_DIR") or real_path("~/.cache/tvm-ffi")

    def unit_of(self, path: str) -> Unit | None:
        if is_transient(path) or is_build_file(path):
            return None
        folder, slash, _ = path.partition("/")
        if slash:
            return Unit(folder, UnitKind.FOLDER)
        return Unit(path, UnitKind.STEM) if _BRIDGE.fullmatch(path) else None

    def may_be_replaced(self, unit: Unit) -> bool:
        return True  # ninja looks at more than a name says

    def is_complete(self, root: Path, unit: Unit, files: Collection[str]) -> bool:
        if unit.kind is UnitKind.STEM:
            return bool(files) and not is_locked(root / f"{unit.path}.lock")
        folder = root / unit.path
        return not is_locked(folder / "lock") and has_built_library(folder, files)
