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

from collections.abc import Collection
from pathlib import Path

from ..config.reader import EnvReader, Variable, real_path
from .base import Adapter, Unit, UnitKind
from .layout import NAME, SHA256, Layout, folder_shape, stem_shape

_VERSION = rf"(?!(?:tmp|py-cache|autotuner)$){NAME}"
_FILE = (
    rf"{NAME}\.(?:pkl|so|cubin|hsaco|ptx|py|cu|cc|c|cpp|h|hip|mlir|metal|o)"
    r"|(?:best_config|function|latency|target|metadata|kernel|artifact)\.json"
)
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

    layout = Layout(
        folder_shape(SHA256, _FILE),
        folder_shape(f"autotuner/{SHA256}", _FILE),
        folder_shape(rf"{_VERSION}/{NAME}/(?:kernels|autotuner)/{SHA256}", _FILE),
        stem_shape(rf"{_VERSION}/cuda-binaries/{SHA256}\.(?:cubin|ptx|fatbin|hsaco)"),
        left_here=(r"tmp|py-cache", r"(?:[^/]+/)*\.staging"),
    )

    def locate(self, env: EnvReader) -> Path:
        return env.literal_path("TILELANG_CACHE_DIR") or real_path("~/.tilelang/cache")

    def depends_on_host(self, unit: Unit, files: Collection[str]) -> bool:
        """A kernel's folder has a library for the host; device code beside it does not depend on the host."""
        return unit.kind is not UnitKind.STEM

    def is_complete(self, root: Path, unit: Unit, files: Collection[str]) -> bool:
        return bool(files) if unit.kind is UnitKind.STEM else f"{unit.path}/{_LAST}" in files
