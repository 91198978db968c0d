"""The module in C; all else about the package is in pyproject.toml."""

from __future__ import annotations

import os
import sysconfig

from setuptools import Extension, setup

# Pythons without the interpreter's lock have no stable interface: there, as without a C compiler, it is left out.
# B10_BUILD_PURE=1 leaves it out of the wheel for machines that no other wheel fits (tools/build_dist.py).
has_native = not sysconfig.get_config_var("Py_GIL_DISABLED") and os.environ.get("B10_BUILD_PURE") != "1"
native = Extension(
    "b10_transfer.local.bulk._native",
    ["src/b10_transfer/local/bulk/_native.c"],
    py_limited_api=True,
    optional=True,
)
setup(
    ext_modules=[native] if has_native else [],
    options={"bdist_wheel": {"py_limited_api": "cp310"}} if has_native else {},
)
