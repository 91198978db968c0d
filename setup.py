"""The module in C; all else about the package is in pyproject.toml."""

from __future__ import annotations

import sysconfig

from setuptools import Extension, setup

# Pythons without the interpreter's lock have no stable interface: there, as without a C compiler, it is left out.
is_stable = not sysconfig.get_config_var("Py_GIL_DISABLED")
native = Extension(
    "b10_transfer.local.bulk._native",
    ["src/b10_transfer/local/bulk/_native.c"],
    py_limited_api=True,
    optional=True,
)
setup(
    ext_modules=[native] if is_stable else [],
    options={"bdist_wheel": {"py_limited_api": "cp310"}} if is_stable else {},
)
