"""AITER's modules and template kernels, for AMD's GPUs.

Layout (AITER 0.1.16, ``aiter/jit/core.py``, ``csrc/cpp_itfs/utils.py``), below ``AITER_JIT_DIR``, else the package's
``jit/`` if it is writable, else ``~/.aiter/jit``:

=====================================  ===============================================================================
``<module>.so``                        a module, copied here from its build folder, straight to its name, while
                                       ``build/lock_<module>`` is there
``build/<module>/``                    sources, objects, ninja's state: AITER looks at them only if
                                       ``AITER_REBUILD`` is set
``build/<name>_<md5>/lib.so``          a template kernel, beside copies of headers, while ``lock`` is there
``build/<arch>/<name>_<md5>.hsaco``    a Triton kernel, and ``.json`` that describes it, while ``.lock`` is there
=====================================  ===============================================================================

Earlier versions keep template kernels in ``AITER_ROOT_DIR/build`` or ``~/.aiter/build``.

AITER loads a library of the right name if it is there. The name says nothing of AITER's version, its sources or its
flags. So a save files these units under a digest of what they were made from: the digests of all files of the installed
package, in its ``RECORD``, the results of tuning in it, the variables that change the flags, and ROCm's version. A pod
with another digest does not see them. A package that runs from its source tree has no such list, and sources that a
variable names are in none: then these caches are left alone.

Libraries that came with the package are not artifacts.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Collection
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from ..config.reader import EnvReader, Variable, real_path, resolve
from ..environment.interpreter import VARIABLE, interpreter
from ..errors import ConfigurationError
from .base import Adapter, Unit, is_locked
from .elf import is_whole_library
from .layout import NAME, Layout, folder_shape, stem_shape

_FLAGS = re.compile(
    r"AITER_\w+|OPUS_\w+|GPU_ARCHS|PYTORCH_ROCM_ARCH|CU_NUM|ENABLE_\w+|HIP_CLANG_PATH|CC|CXX|ROCM_HOME|ROCM_PATH"
)
"""Variables that may change how AITER compiles."""
_NO_FLAGS = re.compile(r"AITER_(?:JIT_DIR|ROOT_DIR|ASM_DIR|REBUILD|MAX_CACHE_SIZE|AOT_\w+|LOG_\w+|FLYDSL_CACHE_DIR)")
"""Those that do not."""
_SOURCES = re.compile(r"AITER_META_DIR|CK_DIR|HIP_KITTENS_DIR|AITER_CONFIG_\w+")
"""Variables that name sources, or results of tuning that become sources, outside of the package."""
_ROCM = ("ROCM_HOME", "ROCM_PATH")
_PACKAGES = ("aiter/", "aiter_meta/")
_MODULE = rf"(?!lock_){NAME}\.so"
_TEMPLATE = r"[a-z]\w*_[0-9a-f]{32}"
_ARCH = r"gfx[0-9a-f]+(?:[;,:+-][\w;,:+-]*)?"


class Installed(NamedTuple):
    """The installed package."""

    identity: str
    """A digest of what its libraries are made from; empty if that is not known."""
    modules: frozenset[str]
    """The libraries that came with it, by their names in ``jit/``."""


def installed() -> Installed:
    """The AITER of the server's Python, without importing it."""
    folder = package_folder()
    if not folder:
        return Installed("", frozenset())
    flags = []
    for name, value in sorted(os.environ.items()):
        if value and _SOURCES.fullmatch(name):
            return Installed("", frozenset())
        if _FLAGS.fullmatch(name) and not _NO_FLAGS.fullmatch(name):
            flags.append(f"{name}={value}")
    return _installed(folder, tuple(flags))


def package_folder() -> str:
    """The folder of the AITER of the server's Python; empty if there is none."""
    return _folder(os.environ.get(VARIABLE), tuple(sys.path))


@lru_cache(maxsize=4)
def _folder(_python: str | None, _path: tuple[str, ...]) -> str:
    """The package's folder. It is looked for once for each Python and path, because each file needs it."""
    try:
        return interpreter().package_folder("aiter")
    except ConfigurationError:  # a load has logged it
        return ""


@lru_cache(maxsize=4)
def _installed(folder: str, flags: tuple[str, ...]) -> Installed:
    records = [
        path
        for path in Path(folder).parent.glob("*aiter-*.dist-info/RECORD")
        if re.match(r"(?:amd_)?aiter-", path.parent.name)
    ]
    if len(records) != 1:
        return Installed("", frozenset())
    try:
        lines = records[0].read_text().splitlines()
        mode = Path(folder, "install_mode").read_text().strip()
    except (OSError, ValueError):
        return Installed("", frozenset())
    sources = sorted(line for line in lines if line.startswith(_PACKAGES) and "/__pycache__/" not in line)
    modules = frozenset(re.findall(r"^aiter/jit/([^/,\n]+\.so),", "\n".join(sources), re.MULTILINE))
    if mode != "install" or not any(line.startswith("aiter/jit/core.py,") for line in sources):
        return Installed("", frozenset())
    digest = hashlib.sha256("\n".join((*flags, _rocm_version(), *sources)).encode())
    # Tuning writes there, and modules are generated from it.
    for path in sorted(Path(folder, "configs").rglob("*.csv")):
        with suppress(OSError):
            digest.update(b"%d\n" % os.path.getsize(path) + path.read_bytes())
    return Installed(digest.hexdigest()[:10], modules)


def _rocm_version() -> str:
    home = next((found for name in _ROCM if (found := os.environ.get(name))), "/opt/rocm")
    try:
        return Path(home, ".info", "version").read_text().strip()
    except (OSError, ValueError):
        return ""


class AiterAdapter(Adapter):
    """``AITER_JIT_DIR``, the package's ``jit/``, or ``~/.aiter/jit``."""

    name = "aiter"
    title = "AITER's modules and template kernels"
    units = "a library"
    variables = (
        Variable(
            "AITER_JIT_DIR",
            "`jit/` in the package if that is writable, else `~/.aiter/jit`",
            "a path",
            "AITER's modules.",
        ),
    )
    layout = Layout(
        stem_shape(_MODULE),
        folder_shape(f"build/{_TEMPLATE}", r"lib\.so"),
        stem_shape(rf"build/{_ARCH}/{_TEMPLATE}", r"\.(?:hsaco|json)"),
        left_here=(
            rf"build/(?!{_TEMPLATE}(?:/|$)|gfx)[^/]+",
            rf"build/{_TEMPLATE}/(?!lib\.so$).+",
            rf"build/{_ARCH}/{_TEMPLATE}\.lock(?:\.steal)?",
            # Of the package.
            r"utils|__pycache__|flydsl_cache|optCompilerConfig\.json|\w+\.py",
        ),
    )
    _below = "build/"
    """Where the folders of template kernels are."""

    @property
    def root(self) -> str:
        identity = installed().identity
        return f"{self.name}_d{identity}" if identity else self.name

    def locate(self, env: EnvReader) -> Path | None:
        path = env.path("AITER_JIT_DIR")
        if path is not None or not installed().identity:
            return path if installed().identity else None
        own = os.path.join(package_folder(), "jit")
        return resolve("AITER_JIT_DIR", own) if os.access(own, os.W_OK) else real_path("~/.aiter/jit")

    def unit_of(self, path: str) -> Unit | None:
        return None if path in installed().modules else super().unit_of(path)

    def leaves_here(self, path: str) -> bool:
        return path in installed().modules or super().leaves_here(path)

    def is_complete(self, root: Path, unit: Unit, files: Collection[str]) -> bool:
        if self.is_held(root, unit):
            return False
        described = {file.rpartition(".")[2] for file in files} >= {"hsaco", "json"}
        libraries = [file for file in files if file.endswith(".so")]
        return described or (bool(libraries) and all(is_whole_library(root / file) for file in libraries))

    def is_held(self, root: Path, unit: Unit) -> bool:
        lock = root / _lock_of(unit.path, self._below)
        # Up to 0.1.10 it is not locked, and is removed at the end: of a killed process it stays.
        return is_locked(lock) or os.path.lexists(lock)


class AiterTemplatesAdapter(AiterAdapter):
    """``AITER_ROOT_DIR/build`` or ``~/.aiter/build``."""

    name = "aiter_templates"
    title = "AITER's template kernels"
    units = "a library"
    variables = (Variable("AITER_ROOT_DIR", "`~/.aiter`", "a path", "AITER's template kernels are in `build` in it."),)
    layout = Layout(
        folder_shape(_TEMPLATE, r"lib\.so"),
        stem_shape(rf"{_ARCH}/{_TEMPLATE}", r"\.(?:hsaco|json)"),
        left_here=(rf"{_TEMPLATE}/(?!lib\.so$).+", rf"{_ARCH}/{_TEMPLATE}\.lock(?:\.steal)?"),
    )
    _below = ""

    def locate(self, env: EnvReader) -> Path | None:
        folder = env.path("AITER_ROOT_DIR") or real_path("~/.aiter")
        return real_path(str(folder / "build")) if installed().identity else None


def _lock_of(unit: str, below: str) -> str:
    """The lock of a unit. ``below`` is the folder of those of template kernels, with a slash at the end."""
    if below and not unit.startswith(below):
        return f"{below}lock_{unit.removesuffix('.so')}"
    return f"{unit}/lock" if unit.count("/") == below.count("/") else f"{unit}.lock"
