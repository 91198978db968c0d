"""Inductor's precompiled C++ headers.

Layout (torch 2.13, ``torch/_inductor/codecache.py``, ``_precompile_header``): ``<key>.h`` and ``<key>.h.gch``, compiled
straight to its name while ``locks/<key>.lock`` is held. The key covers the preprocessed header, the command line and
the compiler's version. They lie below torch's *default* cache directory wherever ``TORCHINDUCTOR_CACHE_DIR`` points.

A start that hits every graph only looks whether they are there, but builds a missing one, for 5 s and more: see
docs/decisions/005.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from ..config.reader import EnvReader
from .base import Adapter, Unit, is_being_built, is_locked
from .inductor import default_inductor_dir
from .layout import Layout, stem_shape


class HeadersAdapter(Adapter):
    """``<temporary directory>/torchinductor_<user>/precompiled_headers``."""

    name = "inductor_headers"
    title = "Inductor's precompiled C++ headers"
    units = "a header and its compiled form"
    is_deferred = True
    layout = Layout(
        stem_shape(r"[a-z0-9_]{3,64}", r"\.h(?:\.gch|\.pch)?"), left_here=("locks", r"[a-z0-9_.]+_CxxBuild")
    )

    def locate(self, env: EnvReader) -> Path:
        return default_inductor_dir() / "precompiled_headers"

    def is_complete(self, root: Path, unit: Unit, files: Collection[str]) -> bool:
        header = f"{unit.path}.h.gch"
        return header in files and not self.is_held(root, unit) and not is_being_built(root / header)

    def lock_of(self, root: Path, unit: Unit) -> Path:
        return root / "locks" / f"{unit.path}.lock"

    def is_held(self, root: Path, unit: Unit) -> bool:
        return is_locked(self.lock_of(root, unit))
