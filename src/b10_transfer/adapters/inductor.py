"""Inductor's cache directory.

Layout (torch 2.13; ``torch/_inductor/codecache.py``, ``runtime/autotune_cache.py``, ``_functorch/_aot_autograd``):

===============================  =====================================================================================
``xx/<key>.*``                   generated code (``.py``, ``.main.cpp``), libraries (``.so``), tuning
                                 (``.best_config``): a stem, because several keys share the folder ``xx``
``fxgraph/xx/<key>/``            compiled graphs: one file for each set of guards
``aotautograd/<key>/``           likewise
``triton/<device>/<key>/``       Triton kernels, as in Triton's own cache
``cache/<hash>``, ``dynamo/…``   autotuning results and the like: each file by itself
``locks/``                       lock files
``precompiled_headers/``         a cache of its own, see :mod:`.headers`
``gcc/``, ``bisect/``            of this machine, or for debugging
===============================  =====================================================================================

C++ is written as ``<key>.main.cpp`` and then linked straight to ``<key>.main.so`` while ``locks/<key>.lock`` is held
and the folder ``<key>.main_CxxBuild`` exists: a library that is there may be half written, and only these two tell.
"""

from __future__ import annotations

import getpass
import os
import re
from collections.abc import Collection
from pathlib import Path

from ..config.reader import EnvReader, Variable, is_below, real_path, resolve, temporary_directory
from ..errors import ConfigurationError
from .base import Adapter, Unit, UnitKind, is_being_built, is_locked, is_transient
from .triton import TritonAdapter
from .vllm_root import vllm_cache_root

_SKIPPED = {"locks", "precompiled_headers", "gcc", "bisect"}
_FOLDER_DEPTH = {"fxgraph": 3, "aotautograd": 2}
"""How many components name a unit of the kinds that are folders."""
_CODE_FOLDER = re.compile(r"[a-z0-9]{2}", re.ASCII)


class InductorAdapter(Adapter):
    """``TORCHINDUCTOR_CACHE_DIR``, with the Triton kernels inside it."""

    name = "inductor"
    title = "Inductor's: graphs, generated code, tuning, and the Triton kernels inside it"
    units = "a graph's folder, the files of one key, a kernel's folder"
    variables = (
        Variable(
            "TORCHINDUCTOR_CACHE_DIR",
            "`<temporary directory>/torchinductor_<username>`, as torch computes it",
            "a folder under `/tmp/`, `/cache/` or `~/.cache` (or torch's own default), links and `..` resolved",
            "Inductor's cache directory: what is saved from, and restored to.",
        ),
    )
    _triton = TritonAdapter()

    def locate(self, env: EnvReader) -> Path:
        return env.path("TORCHINDUCTOR_CACHE_DIR") or default_inductor_dir()

    def check_place(self, env: EnvReader, path: Path) -> None:
        allowed = [real_path("/tmp"), real_path("/cache"), real_path("~/.cache")]
        # torch sets the variable to its default once it has compiled: that default is fine wherever TMPDIR points.
        if is_below(path, allowed) or path == default_inductor_dir():
            return
        # vLLM and SGLang set it, in their own process, to a folder in their own cache directory.
        servers = [vllm_cache_root(env), env.path("SGLANG_CACHE_DIR") or real_path("~/.cache/sglang")]
        if not is_below(path, servers):
            raise ConfigurationError(
                "TORCHINDUCTOR_CACHE_DIR",
                env.text("TORCHINDUCTOR_CACHE_DIR") or str(path),
                f"it must be a folder under /tmp/, /cache/ or ~/.cache, but is {path}",
            )

    def skips_folder(self, path: str) -> bool:
        return path in _SKIPPED or path.endswith("_CxxBuild") or is_transient(path)

    def unit_of(self, path: str) -> Unit | None:
        parts = path.split("/")
        top = parts[0]
        if top in _SKIPPED or "_CxxBuild/" in path or is_transient(path):
            return None
        depth = _triton_depth(parts) if top == "triton" else _FOLDER_DEPTH.get(top)
        if depth is not None:
            return Unit("/".join(parts[:depth]), UnitKind.FOLDER) if len(parts) > depth else None
        if len(parts) == 2 and _CODE_FOLDER.fullmatch(top):
            return Unit(f"{top}/{parts[1].partition('.')[0]}", UnitKind.STEM) if parts[1][0] != "." else None
        return Unit(path, UnitKind.STEM)

    def is_complete(self, root: Path, unit: Unit, files: Collection[str]) -> bool:
        if unit.kind is UnitKind.FOLDER:
            return self._triton.is_complete(root, unit, files) if unit.path.startswith("triton/") else bool(files)
        binaries = [file for file in files if file.endswith((".so", ".o"))]
        if not binaries:
            return bool(files) and not any(file.endswith(".cpp") for file in files)
        lock = root / "locks" / f"{unit.path.rpartition('/')[2]}.lock"
        return not is_locked(lock) and not any(is_being_built(root / file) for file in binaries)

    def covers(self, root: str, other: str) -> bool:
        """Inductor points ``TRITON_CACHE_DIR`` at ``<its own>/triton/<device>``."""
        return other == root or f"{other}/".startswith(f"{root}/triton/")

    def is_rewritten(self, path: str) -> bool:
        return path.startswith("triton/") and self._triton.is_rewritten(path)

    def to_portable(self, path: str, data: bytes, files: Collection[str]) -> bytes:
        return self._triton.to_portable(path, data, files)

    def to_local(self, root: Path, path: str, data: bytes) -> bytes:
        return self._triton.to_local(root, path, data)


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


def _triton_depth(parts: list[str]) -> int:
    """``triton/<device>/<key>/…`` as Inductor lays it out, ``triton/<key>/…`` if Triton was pointed there directly."""
    return 3 if len(parts) > 1 and parts[1].isdigit() else 2
