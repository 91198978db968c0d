"""TileLang's kernels and what its autotuner found.

Layout (TileLang 0.1.13, ``tilelang/cache``, ``tilelang/autotuner``); a key is a SHA-256 of the program, its target and
options, and TileLang's version:

====================================================  ================================================================
``<version>/<platform>/kernels/<key>/``               sources, a library (``.so``, ``.cubin`` or ``.py``) and
                                                      ``params.pkl``; renamed into place whole
``<version>/<platform>/autotuner/<key>/``             the best configuration and its kernel, likewise
``<version>/cuda-binaries/<key>.<format>``            device code, renamed into place
``<version>/<platform>/.staging/``, ``tmp/``          half written
``py-cache/``                                         generated Python, for debuggers; written anew every time
``<key>/``, ``autotuner/<key>/``                      up to 0.1.8, file by file, ``params.pkl`` last
====================================================  ================================================================

Keys hold no path. They hold no version of torch either (the environment's key does), nor of tvm-ffi, to which libraries
are linked: TileLang holds that to a few versions.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

from ..config.reader import EnvReader, Variable, real_path
from .base import Adapter, Unit, UnitKind, is_transient

_KEY = re.compile(r"[0-9a-f]{64}", re.ASCII)
_LAST = "params.pkl"


class TileLangAdapter(Adapter):
    """``TILELANG_CACHE_DIR`` or ``~/.tilelang/cache``."""

    name = "tilelang"
    title = "TileLang's kernels and tuning"
    units = "a kernel's folder"
    variables = (
        Variable(
            "TILELANG_CACHE_DIR",
            "`~/.tilelang/cache`",
            "a path",
            "TileLang's cache directory.",
        ),
    )

    def locate(self, env: EnvReader) -> Path:
        return env.path("TILELANG_CACHE_DIR") or real_path("~/.tilelang/cache")

    def skips_folder(self, path: str) -> bool:
        return path in ("tmp", "py-cache") or path.endswith("/.staging") or is_transient(path)

    def unit_of(self, path: str) -> Unit | None:
        if is_transient(path):
            return None
        match path.split("/"):
            case [key, _, *_] if _KEY.fullmatch(key):
                return Unit(key, UnitKind.FOLDER)
            case ["autotuner", key, _, *_] if _KEY.fullmatch(key):
                return Unit(f"autotuner/{key}", UnitKind.FOLDER)
            case [version, "cuda-binaries", name] if _KEY.fullmatch(name.partition(".")[0]):
                return Unit(f"{version}/cuda-binaries/{name}", UnitKind.STEM)
            case [version, platform, "kernels" | "autotuner" as kind, key, _, *_] if _KEY.fullmatch(key):
                return Unit(f"{version}/{platform}/{kind}/{key}", UnitKind.FOLDER)
            case _:
                return None

    def is_complete(self, root: Path, unit: Unit, files: Collection[str]) -> bool:
        return bool(files) if unit.kind is UnitKind.STEM else f"{unit.path}/{_LAST}" in files
