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

from collections.abc import Collection
from pathlib import Path

from ..config.reader import EnvReader, Variable, real_path
from .base import Unit, UnitKind, is_locked
from .layout import NAME, Layout, folder_shape, stem_shape
from .ninja import BUILD_FILES, NinjaAdapter, has_built_library

_BRIDGE = r"libtorch_c_dlpack_addon_[\w.+-]+\.so"


class TvmFfiAdapter(NinjaAdapter):
    """``TVM_FFI_CACHE_DIR`` or ``~/.cache/tvm-ffi``."""

    name = "tvm_ffi"
    title = "Libraries that tvm-ffi builds on load"
    units = "a library's folder"
    variables = (
        Variable(
            "TVM_FFI_CACHE_DIR",
            "`~/.cache/tvm-ffi`",
            "a path",
            "Where tvm-ffi builds libraries on load.",
        ),
    )

    layout = Layout(
        folder_shape(rf"{NAME}_[0-9a-f]{{6,64}}", BUILD_FILES),
        stem_shape(_BRIDGE),
        left_here=(rf"{NAME}/build\.ninja",),
    )

    def locate(self, env: EnvReader) -> Path:
        return env.path("TVM_FFI_CACHE_DIR") or real_path("~/.cache/tvm-ffi")

    def is_complete(self, root: Path, unit: Unit, files: Collection[str]) -> bool:
        if self.is_held(root, unit):
            return False
        return bool(files) if unit.kind is UnitKind.STEM else has_built_library(root / unit.path, files)

    def is_held(self, root: Path, unit: Unit) -> bool:
        return is_locked(root / (f"{unit.path}.lock" if unit.kind is UnitKind.STEM else f"{unit.path}/lock"))
