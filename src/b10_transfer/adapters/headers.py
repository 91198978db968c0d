"""Inductor's precompiled C++ headers.

Layout (torch 2.13, ``torch/_inductor/codecache.py``, ``_precompile_header``): ``<key>.h`` and ``<key>.h.gch``, compiled
straight to its name while ``locks/<key>.lock`` is held. The key covers the preprocessed header, the command line and
the compiler's version. They lie below torch's *default* cache directory wherever ``TORCHINDUCTOR_CACHE_DIR`` points.

A start that hits every graph builds a missing one all the same, for 5 s and more: see docs/decisions/005.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from ..config.reader import EnvReader
from .base import Adapter, Unit, UnitKind, is_being_built, is_locked, is_transient
from .inductor import default_inductor_dir


class HeadersAdapter(Adapter):
    """``<temporary directory>/torchinductor_<user>/precompiled_headers``."""

    name = "inductor_headers"
    title = "Inductor's precompiled C++ headers"
    units = "a header and its compiled form"

    def locate(self, env: EnvReader) -> Path:
        return default_inductor_dir() / "precompiled_headers"

    def skips_folder(self, path: str) -> bool:
        return True

    def unit_of(self, path: str) -> Unit | None:
        if "/" in path or path.startswith(".") or is_transient(path):
            return None
        return Unit(path.partition(".")[0], UnitKind.STEM)

    def is_complete(self, root: Path, unit: Unit, files: Collection[str]) -> bool:
        header = f"{unit.path}.h.gch"
        lock = root / "locks" / f"{unit.path}.lock"
        return header in files and not is_locked(lock) and not is_being_built(root / header)
