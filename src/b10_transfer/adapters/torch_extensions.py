"""PyTorch's C++ and CUDA extensions that are built when they are loaded.

Layout (torch 2.13, ``torch/utils/cpp_extension.py``, ``_get_build_directory``, ``_jit_compile``): below
``~/.cache/torch_extensions`` a folder ``py<version>_<cu<version>|rocm<version>|cpu>``, in it, or directly in
``TORCH_EXTENSIONS_DIR``, a folder for each extension's name: sources of inline ones, objects, the library, ninja's
state. ``lock`` is there while the folder is built, by whichever process created it; the others wait until it is gone,
for ever: it never travels.

Each process runs ninja once for an extension, whose answer decides: see :mod:`.ninja` for when it hits and what a name
does not say. Programs (``is_standalone``) do not travel, only libraries do.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from pathlib import Path

from ..config.reader import EnvReader, Variable, resolve
from .base import Adapter, Unit, UnitKind, is_transient
from .ninja import has_built_library, is_build_file

_BUILD = re.compile(r"py\d+[a-z]*_(?:cpu|(?:cu|rocm)\d[\w.-]*)", re.ASCII)
"""The folder for one Python and toolkit."""


class TorchExtensionsAdapter(Adapter):
    """``TORCH_EXTENSIONS_DIR`` or ``~/.cache/torch_extensions``."""

    name = "torch_extensions"
    title = "PyTorch's C++ and CUDA extensions built on load"
    units = "an extension's folder"
    variables = (
        Variable(
            "TORCH_EXTENSIONS_DIR",
            "`~/.cache/torch_extensions` (below `XDG_CACHE_HOME` if that is set)",
            "a path; the same on every pod, or nothing hits",
            "Where PyTorch builds extensions on load.",
        ),
    )

    def locate(self, env: EnvReader) -> Path:
        caches = env.text("XDG_CACHE_HOME") or os.path.join("~", ".cache")
        default = os.path.join(caches, "torch_extensions")
        return env.path("TORCH_EXTENSIONS_DIR") or resolve("XDG_CACHE_HOME", default)

    def unit_of(self, path: str) -> Unit | None:
        parts = path.split("/")
        depth = 2 if _BUILD.fullmatch(parts[0]) else 1
        if len(parts) <= depth or is_transient(path) or is_build_file(path):
            return None
        return Unit("/".join(parts[:depth]), UnitKind.FOLDER)

    def may_be_replaced(self, unit: Unit) -> bool:
        return True  # ninja looks at more than a name says

    def is_complete(self, root: Path, unit: Unit, files: Collection[str]) -> bool:
        folder = root / unit.path
        return not os.path.lexists(folder / "lock") and has_built_library(folder, files)
