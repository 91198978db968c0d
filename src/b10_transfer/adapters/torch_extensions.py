"""PyTorch's C++ and CUDA extensions that are built when they are loaded.

Layout (torch 2.13, ``torch/utils/cpp_extension.py``, ``_get_build_directory``, ``_jit_compile``): below
``~/.cache/torch_extensions`` a folder ``py<version>_<cu<version>|rocm<version>|cpu>``, in it, or directly in
``TORCH_EXTENSIONS_DIR``, a folder for each extension's name: sources of inline ones, objects, the library, ninja's
state. Up to torch 2.13 ``lock`` is there while a process builds the folder, and the others wait until it is gone, for
ever: it never travels. From 2.14 on the file stays, and is locked (``flock``) meanwhile.

Each process runs ninja once for an extension, whose answer decides: see :mod:`.ninja` for when it hits and what a name
does not say. Programs (``is_standalone``) do not travel, only libraries do.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from pathlib import Path

from ..config.reader import EnvReader, Variable, resolve
from .base import Unit, is_locked
from .elf import is_whole_library
from .layout import NAME, Layout, folder_shape
from .ninja import BUILD_FILES, LOG, NinjaAdapter, has_built_library, is_newer

_BUILD = r"py\d+[a-z]*_(?:cpu|(?:cu|rocm)\d[\w.-]*)"
"""The folder for one Python and toolkit."""


class TorchExtensionsAdapter(NinjaAdapter):
    """``TORCH_EXTENSIONS_DIR`` or ``~/.cache/torch_extensions``."""

    name = "torch_extensions"
    title = "PyTorch's C++ and CUDA extensions built on load"
    units = "an extension's folder"
    variables = (
        Variable(
            "TORCH_EXTENSIONS_DIR",
            "`~/.cache/torch_extensions` (below `XDG_CACHE_HOME` if that is set)",
            "a path",
            "Where PyTorch builds extensions on load.",
        ),
    )

    layout = Layout(
        folder_shape(f"{_BUILD}/{NAME}", BUILD_FILES),
        folder_shape(rf"(?!(?:{_BUILD})$){NAME}", BUILD_FILES),
        left_here=(rf"(?:{_BUILD}/)?{NAME}/build\.ninja",),
    )

    def locate(self, env: EnvReader) -> Path:
        caches = env.text("XDG_CACHE_HOME") or os.path.join("~", ".cache")
        default = os.path.join(caches, "torch_extensions")
        return env.literal_path("TORCH_EXTENSIONS_DIR") or resolve("XDG_CACHE_HOME", default)

    def written(self, unit: Unit, files: Collection[str], *, is_mixed: bool = False) -> Collection[str]:
        name = unit.path.rpartition("/")[2]
        library = re.compile(rf"{re.escape(unit.path)}/{re.escape(name)}(?:_v\d+)?\.so")
        # Any build of ninja's has such files; PyTorch's has a library of its folder's name.
        return files if f"{unit.path}/.ninja_log" in files and any(map(library.fullmatch, files)) else ()

    def is_complete(self, root: Path, unit: Unit, files: Collection[str]) -> bool:
        folder = root / unit.path
        if self.is_held(root, unit) or not has_built_library(folder, files):
            return False
        # Up to torch 2.13 the file is the lock, from 2.14 on it stays: then the library itself must tell.
        return not os.path.lexists(folder / "lock") or all(
            is_whole_library(root / file) and not is_newer(root / file, folder / LOG)
            for file in files
            if file.endswith(".so")
        )

    def is_held(self, root: Path, unit: Unit) -> bool:
        return is_locked(root / unit.path / "lock")
