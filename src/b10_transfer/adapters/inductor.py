"""Inductor's cache directory.

Layout (torch 2.13; ``torch/_inductor/codecache.py``, ``runtime/autotune_cache.py``, ``_functorch/_aot_autograd``):

===============================  =====================================================================================
``xx/<key>.*``                   generated code (``.py``, ``.main.cpp``), libraries (``.so``), tuning
                                 (``.best_config``): a stem, because several keys share the folder ``xx``, which is
                                 named by the second and third character of the key
``fxgraph/xx/<key>/``            compiled graphs: one file for each set of guards
``aotautograd/<key>/``           likewise
``triton/<device>/<key>/``       Triton kernels, as in Triton's own cache
``cache/<hash of the system>``   results of max-autotune
``memoizer_cache.json``          results that Inductor memoizes
``dynamo/code_state_….pkl``      which shapes Dynamo takes for dynamic
``dynamo/<key>/entry``           what precompilation has traced; a digest as the name if instant starts have
``cutedsl_compile_cache/<key>.o``  kernels of CuTe DSL (torch 2.14)
``flydsl_compile_cache/…``       kernels of FlyDSL (torch 2.15): Inductor points FlyDSL's own variable there
``quack/<fingerprint>/<key>.o``  kernels of the QuACK in torch (after 2.13), written while ``<key>.lock`` is held
``locks/``                       lock files
``precompiled_headers/``         a cache of its own, see :mod:`.headers`
``gcc/``, ``bisect/`` …          of this machine, or for debugging
===============================  =====================================================================================

C++ is written as ``<key>.main.cpp`` and then linked straight to ``<key>.main.so`` while ``locks/<key>.lock`` is held
and the folder ``<key>.main_CxxBuild`` exists: a library that is there may be half written. torch 2.4 makes no such
folder, so the library itself is looked at, too (:mod:`.elf`).
"""

from __future__ import annotations

import getpass
import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path

from ..config.reader import EnvReader, Variable, is_below, real_path, resolve, temporary_directory
from ..errors import ConfigurationError
from .accumulation import Results
from .base import Adapter, Unit, UnitKind, is_being_built, is_locked
from .elf import is_whole_library
from .kernel_files import FLYDSL_LAYOUT, flydsl_shapes, is_object_locked, quack_shape
from .key_facts import host_code
from .layout import NAME, SHA256, Layout, folder_shape, stem_shape
from .triton import KERNEL, KERNEL_FILE, TritonAdapter
from .vllm_root import vllm_cache_root

_XX = r"[a-z0-9]{2}"
_KEY = r"[a-z0-9_]{3,64}"
_ENTRY = rf"[a-z2-7]{{51,52}}|{SHA256}|entry|graph"
"""The name of a graph's file: a digest of its content in base 32; in earlier versions ``entry`` or ``graph``."""
_CODE_ENDS = (
    r"(?:\.[a-z0-9_]+)*\.(?:py|cpp|cc|c|cu|h|hpp|so|o|cubin|hsaco|ptx|spv|amdgcn|metal|txt"
    r"|best_config|picked_kernel|load_ok)"
)
_KERNELS = "triton"
_FLYDSL, _QUACK = "flydsl_compile_cache", "quack"
_SYSTEM = re.compile(f"cache/{SHA256}")
_BINARIES = (".so", ".o")

_TUNING, _MEMOIZED = Results("system"), Results()


class InductorAdapter(Adapter):
    """``TORCHINDUCTOR_CACHE_DIR``, with the Triton kernels inside it."""

    name = "inductor"
    title = "Inductor's graphs, generated code and tuning, and the Triton kernels inside it"
    units = "a graph's folder, the files of one key, a kernel's folder"
    variables = (
        Variable(
            "TORCHINDUCTOR_CACHE_DIR",
            "`<temporary directory>/torchinductor_<username>`, as torch computes it",
            "a folder under `/tmp/`, `/cache/`, `/bdn/cache/` or `~/.cache` (or torch's own default, or where vLLM or "
            "SGLang put it), links and `..` resolved; elsewhere, this cache alone is left out",
            "Inductor's cache directory: what is saved from, and restored to.",
        ),
    )
    layout = Layout(
        stem_shape(rf"{_XX}/{_KEY}", _CODE_ENDS),
        folder_shape(rf"fxgraph/{_XX}/{_KEY}", _ENTRY),
        folder_shape(rf"aotautograd/{_KEY}", _ENTRY),
        folder_shape(rf"{_KERNELS}/(?:{KERNEL})", KERNEL_FILE),
        folder_shape(rf"{_KERNELS}/{NAME}/(?:{KERNEL})", KERNEL_FILE),
        stem_shape(f"cache/{SHA256}"),
        stem_shape(f"cache/inductor_on_disk_cache/{SHA256}"),
        stem_shape(r"memoizer_cache\.json"),
        stem_shape(r"dynamo/code_state_.+\.pkl"),
        stem_shape(rf"dynamo/{SHA256}/(?:entry|[0-9a-f]{{32}})"),
        stem_shape(rf"cutedsl_compile_cache/{SHA256}\.o"),
        *flydsl_shapes(f"{_FLYDSL}/"),
        quack_shape(f"{_QUACK}/"),
        left_here=(
            r"locks|precompiled_headers|gcc|bisect|autoheuristic|aoti_eager|torch_cutlass|unhashed_kernel_inputs",
            rf"{_XX}/[a-z0-9_.]+_CxxBuild",
            rf"{_XX}/{_KEY}\.halide",
        ),
    )
    _triton = TritonAdapter()

    def locate(self, env: EnvReader) -> Path:
        return env.literal_path("TORCHINDUCTOR_CACHE_DIR") or default_inductor_dir()

    def check_place(self, env: EnvReader, path: Path) -> None:
        allowed = [real_path(path) for path in ("/tmp", "/cache", "/bdn/cache", "~/.cache")]
        # torch sets the variable to its default once it has compiled: that default is fine wherever TMPDIR points.
        if is_below(path, allowed) or path == default_inductor_dir():
            return
        # vLLM and SGLang set it, in their own process, to a folder in their own cache directory.
        servers = [vllm_cache_root(env), env.path("SGLANG_CACHE_DIR") or real_path("~/.cache/sglang")]
        if not is_below(path, servers):
            raise ConfigurationError(
                "TORCHINDUCTOR_CACHE_DIR",
                env.text("TORCHINDUCTOR_CACHE_DIR") or str(path),
                f"it must be a folder under /tmp/, /cache/, /bdn/cache/ or ~/.cache, but is {path}",
            )

    def unit_of(self, path: str) -> Unit | None:
        unit = self.layout.unit_of(path)
        if unit is not None and unit.kind is UnitKind.STEM and path[2:3] == "/":
            return unit if path[4:6] == path[:2] else None
        if unit is not None and path.startswith("fxgraph/"):
            return unit if path[12:14] == path[8:10] else None
        return unit

    def written(self, unit: Unit, files: Collection[str], *, is_mixed: bool = False) -> Collection[str]:
        if unit.path.startswith(f"{_KERNELS}/"):
            return self._triton.written(unit, files, is_mixed=is_mixed)
        return files

    def is_complete(self, root: Path, unit: Unit, files: Collection[str]) -> bool:
        if unit.kind is UnitKind.FOLDER:
            return self._triton.is_complete(root, unit, files) if unit.path.startswith(f"{_KERNELS}/") else bool(files)
        binaries = [file for file in files if file.endswith(_BINARIES)]
        if not binaries:
            return bool(files) and not any(file.endswith(".cpp") for file in files)
        return (
            not self.is_held(root, unit)
            and not any(is_being_built(root / file) for file in binaries)
            and all(is_whole_library(root / file) for file in binaries)
        )

    def is_held(self, root: Path, unit: Unit) -> bool:
        if unit.kind is UnitKind.FOLDER:
            return False
        if unit.path.startswith(f"{_QUACK}/"):
            return is_object_locked(root / unit.path)
        return is_locked(root / "locks" / f"{unit.path.rpartition('/')[2]}.lock")

    def may_be_replaced(self, unit: Unit, files: Collection[str] = ()) -> bool:
        """Coordinate descent improves a ``.best_config``; Dynamo's profile, a pickle, grows and cannot be merged."""
        is_tuning = bool(files) and all(file.endswith(".best_config") for file in files)
        return is_tuning or unit.path.startswith("dynamo/code_state_")

    def may_follow(self, unit: Unit, files: Collection[str]) -> bool:
        """Kernels and generated code may; graphs, traces and results of tuning are needed at once."""
        is_code = unit.kind is UnitKind.STEM and unit.path[2:3] == "/"
        return unit.path.startswith(f"{_KERNELS}/") or (is_code and not any(map(_is_tuned, files)))

    def depends_on_host(self, unit: Unit, files: Collection[str]) -> bool:
        """Triton's kernels do not, nor tuning: Inductor takes a stored result only for a kernel that it makes here."""
        if unit.path.startswith(f"{_KERNELS}/"):
            return self._triton.depends_on_host(unit, files)
        return not _SYSTEM.fullmatch(unit.path) and not all(file.endswith(".best_config") for file in files)

    def key_facts(self, env: EnvReader, root: Path) -> Mapping[str, str]:
        return host_code(env)

    def results_of(self, path: str) -> Results | None:
        if path == "memoizer_cache.json":
            return _MEMOIZED
        return _TUNING if _SYSTEM.fullmatch(path) else None

    def covers(self, root: str, other: str, adapter: Adapter) -> bool:
        """Inductor points the variables of Triton and FlyDSL at folders in its own."""
        if adapter.layout is FLYDSL_LAYOUT:
            return other == f"{root}/{_FLYDSL}" and self.layout.may_hold(_FLYDSL)
        if adapter.layout is not self._triton.layout or not f"{other}/".startswith(f"{root}/{_KERNELS}/"):
            return super().covers(root, other, adapter)
        return other.count("/") <= root.count("/") + 2

    def is_rewritten(self, path: str) -> bool:
        return path.startswith("triton/") and self._triton.is_rewritten(path)

    def to_portable(self, root: Path, path: str, data: bytes, files: Collection[str]) -> bytes:
        return self._triton.to_portable(root, path, data, files)

    def to_local(self, root: Path, path: str, data: bytes) -> bytes:
        return self._triton.to_local(root, path, data)


def _is_tuned(file: str) -> bool:
    return file.endswith(".best_config")


def default_inductor_dir() -> Path:
    """Where torch keeps Inductor's cache when nothing is configured.

    Source: ``torch/_inductor/runtime/cache_dir_utils.py``, ``default_cache_dir`` (torch 2.13).
    """
    try:
        username = getpass.getuser()
    except (KeyError, ModuleNotFoundError, OSError):
        # A random UID without a passwd entry, as OpenShift gives.
        username = f"uid_{os.getuid()}"
    name = "torchinductor_" + re.sub(r'[\\/:*?"<>|]', "_", username)
    return resolve("TORCHINDUCTOR_CACHE_DIR", os.path.join(temporary_directory(), name))
