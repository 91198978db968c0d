"""Kernels that CuTe DSL (nvidia-cutlass-dsl) has compiled.

Layout (CUTLASS 4.7, ``python/CuTeDSL/cutlass/base_dsl/cache_helpers.py``): one file for each kernel,
``<dsl>_<hash>.mlir``, the compiled module with a checksum behind it; written in a folder ``tmp.pid_…`` and renamed, so
that it is there whole or not at all.

The hash covers the module before compilation, the compile options, the DSL's own sources and library (hence its
version) and every one of its settings, among them ``CUTE_DSL_CACHE_DIR`` and ``CUTE_DSL_DUMP_DIR``, by default the
working directory: **the server must run in the same directory and with the same cache directory on every pod**, else
nothing hits.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping
from pathlib import Path

from ..config.reader import EnvReader, Variable, resolve, temporary_directory
from .base import Adapter
from .layout import Layout, stem_shape


class CuteDslAdapter(Adapter):
    """``CUTE_DSL_CACHE_DIR`` or ``<temporary directory>/<user>/cutlass_python_cache``."""

    name = "cute_dsl"
    title = "CuTe DSL's kernels"
    units = "a kernel's file"
    variables = (
        Variable(
            "CUTE_DSL_CACHE_DIR",
            "`<temporary directory>/<username>/cutlass_python_cache`",
            "a path; the same on every pod, or nothing hits",
            "Where CuTe DSL keeps compiled kernels.",
        ),
    )

    layout = Layout(stem_shape(r"[A-Za-z][A-Za-z0-9_]*_[0-9a-f]{32,64}\.mlir"))

    def locate(self, env: EnvReader) -> Path:
        if path := env.literal_path("CUTE_DSL_CACHE_DIR"):
            return path
        temporary = env.text("TMPDIR") or temporary_directory()
        return resolve("CUTE_DSL_CACHE_DIR", os.path.join(temporary, user_name(env), "cutlass_python_cache"))

    def key_facts(self, env: EnvReader, root: Path) -> Mapping[str, str]:
        return {"path of the cache": str(root), "working directory": env.text("CUTE_DSL_DUMP_DIR") or os.getcwd()}


def user_name(env: EnvReader) -> str:
    """As the DSL finds it; empty where it finds none, and then leaves that folder out."""
    try:
        return env.text("USER") or env.text("USERNAME") or pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return ""
