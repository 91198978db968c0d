"""Caches that their place and the names of their files describe: kernels and tuning of smaller compilers.

=====================  ================================================================================================
cache                  layout and key
=====================  ================================================================================================
``quack``              QuACK 0.6.5, ``quack/cache/jit.py``: ``<fingerprint>/<key>.o``; the fingerprint covers QuACK's
                       sources, Python, CUTLASS and tvm-ffi. Written while ``<key>.lock`` is held (``flock``), and
                       renamed into place; earlier versions write straight to the final name
``quack_autotune``     the same, ``quack/autotuner.py``: ``<key>/<function>.autotune.json``; the key covers QuACK's
                       version. Without ``QUACK_CACHE_DIR`` it has a directory of its own
``torch_quack``        the QuACK in torch (2.13, ``torch/_vendor/quack``), which writes straight to the final name. It
                       follows ``QUACK_CACHE_DIR``, too: then its kernels are among QuACK's. Its tuning, the cache
                       ``torch_quack_autotune``, has variables of its own
``flash_attention``    FlashAttention 4.0.0b36, ``flash_attn/cute/cache_utils.py``: ``<fingerprint>/[<name>/]<key>.o``;
                       the fingerprint and the lock as QuACK's. Renamed into place
``flydsl``             FlyDSL 0.5.0, ``flydsl/compiler/jit_function.py``: ``<function>/<key>.pkl``; the key covers the
                       compiler's files. Renamed into place (:mod:`.kernel_files`)
``b12x``               the b12x in FlashInfer 0.7.2, ``b12x/_lib/compiler.py``: ``<xx>/<key>.o``, and ``<key>.json``
                       with the digest of the object, without which b12x ignores it; the key covers the sources, the
                       toolchain, the device's architecture and the options. Both are renamed into place
``sglang_autotune``    FlashInfer's tuning in SGLang (0.5.23, ``flashinfer_autotune.py``): ``v2/<environment>/``,
                       or for each model a folder with a file or folder for each rank. The ranks must agree on their
                       kernels, so all of them are one unit
``flashinfer_entries`` FlashInfer's tuning (0.7.4, ``flashinfer/autotune_cache.py``) where its variable points:
                       ``v2/<environment>/entries/<operation>.json``, each published by itself; ``manifest.json``
                       beside them says what the environment is, and FlashInfer does not read it
``flashinfer_v2``      the same in packs from before 1.0.0, an environment as one unit. A pod with one entry of an
                       environment got none of the others. These units are not restored
``flashinfer_tuning``  FlashInfer's constants (0.7.4, ``comm/pcie_ipc_tuning.py``) where its variable points
``miopen``             MIOpen 3.5, ``~/.config/miopen``: ``[<operation>_]<device>.HIP.<version>.udb.txt`` and
                       ``<device>.HIP.<version>[.fusion].ufdb.txt``, which solver is fastest; the version is MIOpen's
                       (``execution_context.hpp``, ``find_db.cpp``)
``miopen_kernels``     the same, ``~/.cache/miopen/<version>/<device>.ukdb``: an SQLite database of kernels, by
                       source and options
``jax``                JAX 0.10, ``jax/_src/lru_cache.py``: ``<name>-<key>-cache``; the key covers the program, the
                       options, the devices, jaxlib, and **the path of the cache**. ``-atime`` files belong to its
                       eviction
``cupy``               CuPy 14.2, ``cupy/cuda/compiler.py``: ``<SHA-1>.cubin``, ``.ltoir`` or ``.hsaco``, in earlier
                       versions ``<MD5>_2.cubin``; the key covers the source, options, device, NVRTC's version and
                       CuPy's headers. A digest in the file is checked. Renamed into place
=====================  ================================================================================================

No other key holds the path of the cache.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from ..config.reader import EnvReader, Variable, real_path, resolve, temporary_directory
from .accumulation import Results
from .base import Adapter, Unit
from .cute_dsl import user_name
from .elf import is_whole_library
from .flashinfer import FLASHINFER_TUNING
from .kernel_files import FLYDSL_LAYOUT, is_object_locked, quack_shape
from .layout import NAME, SHA256, Layout, folder_shape, stem_shape
from .sglang import SGLANG_CACHE_DIR, sglang_cache_dir

Place = Callable[[EnvReader], "Path | None"]

_ENVIRONMENT = r"v2/[0-9a-f]{8,64}"
_ENTRY = r"entries/[0-9a-f]{8,64}\.json"
_RANK = r"rank_tp\d+_pp\d+_dp\d+"
_DEVICE = r"gfx[0-9a-f]+(?:_\d+)?[0-9a-z_-]*"
_TUNED_ON = rf"(?:[a-z]+_)?{_DEVICE}\.HIP\.[0-9a-z_-]+(?:\.[a-z]+)?\.uf?db\.txt"
XLA_CACHES = ("xla_gpu_per_fusion_autotune_cache_dir", "xla_gpu_kernel_cache_file")
"""XLA's own caches in JAX's."""
_SQLITE = b"SQLite format 3\0"


class PlainAdapter(Adapter):
    """A cache without paths in its files.

    Args:
        name: Its name in packs (:class:`Adapter` describes this and the next four).
        title: Its contents in a few words.
        units: Its units in a few words.
        variables: The variables that decide where it is.
        layout: The paths that the compiler writes.
        place: Finds the root; None if it has none.
        tunes: Whether it holds results of tuning a GPU. They do not depend on the host, and may be replaced.
        results: The format of its files, if they collect results.
        is_whole: Whether a file is finished; the path is absolute.
        keeps_place: Whether its keys hold the path of the cache.
        for_gpu: Whether it holds code for a GPU, which does not depend on the host.
        has_locks: Whether the compiler holds ``<key>.lock`` while it writes ``<key>.<ending>``.
    """

    def __init__(
        self,
        name: str,
        title: str,
        units: str,
        variables: tuple[Variable, ...],
        layout: Layout,
        place: Place,
        *,
        tunes: bool = False,
        results: Results | None = None,
        is_whole: Callable[[Path], bool] = bool,
        keeps_place: bool = False,
        for_gpu: bool = False,
        has_locks: bool = False,
    ) -> None:
        self.name, self.title, self.units, self.variables, self.layout = name, title, units, variables, layout
        self._place, self._tunes, self._results, self._is_whole = place, tunes, results, is_whole
        self._keeps_place, self._for_gpu, self._has_locks = keeps_place, for_gpu or tunes, has_locks

    def locate(self, env: EnvReader) -> Path | None:
        return self._place(env)

    def is_complete(self, root: Path, unit: Unit, files: Collection[str]) -> bool:
        return bool(files) and not self.is_held(root, unit) and all(self._is_whole(root / file) for file in files)

    def is_held(self, root: Path, unit: Unit) -> bool:
        return self._has_locks and is_object_locked(root / unit.path)

    def may_be_replaced(self, unit: Unit, files: Collection[str] = ()) -> bool:
        return self._tunes

    def depends_on_host(self, unit: Unit, files: Collection[str]) -> bool:
        return not self._for_gpu

    def results_of(self, path: str) -> Results | None:
        return self._results

    def key_facts(self, env: EnvReader, root: Path) -> Mapping[str, str]:
        return {"path of the cache": str(root)} if self._keeps_place else {}


def is_whole_database(path: Path) -> bool:
    """Whether an SQLite file is there whole: nothing of it is in a journal."""
    try:
        with open(path, "rb") as file:
            begins_right = file.read(len(_SQLITE)) == _SQLITE
    except OSError:
        return False
    return begins_right and not any(os.path.lexists(f"{path}{end}") for end in ("-journal", "-wal"))


def _ends_a_line(path: Path) -> bool:
    try:
        with open(path, "rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"
    except OSError:
        return False


def _at(variable: str, *default: str) -> Place:
    """The folder that a variable names, or one below the home directory; none without a default."""
    return lambda env: env.path(variable) or (real_path(os.path.join("~", *default)) if default else None)


def _temporary(variable: str, name: str) -> Place:
    """The folder that a variable names, or one in the user's folder for temporary files."""

    def place(env: EnvReader) -> Path:
        folder = env.text("TMPDIR") or temporary_directory()
        return env.literal_path(variable) or resolve(variable, os.path.join(folder, _login_name(env), name))

    return place


def _login_name(env: EnvReader) -> str:
    """As ``getpass.getuser`` finds it."""
    return env.text("LOGNAME") or env.text("USER") or env.text("LNAME") or user_name(env)


def _below_home(variable: str, home: str, *folders: str) -> Place:
    """The folder that a variable names, or one in the directory that another variable names instead of the home."""

    def place(env: EnvReader) -> Path:
        return env.literal_path(variable) or real_path(
            str((env.literal_path(home) or real_path("~")).joinpath(*folders))
        )

    return place


def _b12x(env: EnvReader) -> Path:
    caches = env.text("XDG_CACHE_HOME") or os.path.join("~", ".cache")
    return env.literal_path("B12X_COMPILE_CACHE_DIR") or resolve(
        "XDG_CACHE_HOME", os.path.join(caches, "b12x", "compile")
    )


class B12xAdapter(PlainAdapter):
    """``B12X_COMPILE_CACHE_DIR`` or ``~/.cache/b12x/compile``."""

    def is_complete(self, root: Path, unit: Unit, files: Collection[str]) -> bool:
        return f"{unit.path}.json" in files and f"{unit.path}.o" in files and super().is_complete(root, unit, files)


def _variable(name: str, default: str, meaning: str, rule: str = "a path") -> Variable:
    return Variable(name, default, rule, meaning)


_QUACK = _variable(
    "QUACK_CACHE_DIR",
    "`<temporary directory>/<username>/quack_cache`, and `~/.quack/cache` for tuning",
    "QuACK's kernels and tuning, and the kernels of the QuACK in torch.",
)
_QUACK_HOME = _variable(
    "QUACK_HOME", "`~`", "QuACK's tuning is in `.quack/cache` in it, unless `QUACK_CACHE_DIR` is set."
)
_TORCH_QUACK_HOME = _variable(
    "TORCH_VENDOR_QUACK_HOME",
    "`~`",
    "The tuning of the QuACK in torch is in `.torch_vendor_quack/cache` in it.",
)
_TORCH_QUACK = _variable(
    "TORCH_VENDOR_QUACK_CACHE_DIR",
    "`.torch_vendor_quack/cache` in `TORCH_VENDOR_QUACK_HOME`",
    "The tuning of the QuACK in torch.",
)
_QUACK_KERNELS = Layout(quack_shape(), left_here=(rf"{SHA256}/{SHA256}\.o\.tmp\.\d+",))
_QUACK_TUNING = Layout(folder_shape(r"[A-Z2-7]{52}", rf"{NAME}\.autotune\.json"))

KERNEL_ADAPTERS: tuple[Adapter, ...] = (
    PlainAdapter(
        "quack",
        "QuACK's kernels",
        "a kernel's file",
        (_QUACK,),
        _QUACK_KERNELS,
        _temporary("QUACK_CACHE_DIR", "quack_cache"),
        is_whole=is_whole_library,
        has_locks=True,
    ),
    PlainAdapter(
        "quack_autotune",
        "QuACK's tuning",
        "a key's folder",
        (_QUACK_HOME, _QUACK),
        _QUACK_TUNING,
        _below_home("QUACK_CACHE_DIR", "QUACK_HOME", ".quack", "cache"),
        tunes=True,
    ),
    PlainAdapter(
        "torch_quack",
        "Kernels of the QuACK in torch",
        "a kernel's file",
        (_QUACK,),
        _QUACK_KERNELS,
        _temporary("QUACK_CACHE_DIR", "torch_vendor_quack_cache"),
        is_whole=is_whole_library,
        has_locks=True,
    ),
    PlainAdapter(
        "torch_quack_autotune",
        "Tuning of the QuACK in torch",
        "a key's folder",
        (_TORCH_QUACK_HOME, _TORCH_QUACK),
        _QUACK_TUNING,
        _below_home("TORCH_VENDOR_QUACK_CACHE_DIR", "TORCH_VENDOR_QUACK_HOME", ".torch_vendor_quack", "cache"),
        tunes=True,
    ),
    PlainAdapter(
        "flash_attention",
        "FlashAttention 4's kernels",
        "a kernel's file",
        (
            _variable(
                "FLASH_ATTENTION_CUTE_DSL_CACHE_DIR",
                "`<temporary directory>/<username>/flash_attention_cute_dsl_cache`",
                "FlashAttention 4's kernels, if `FLASH_ATTENTION_CUTE_DSL_CACHE_ENABLED=1`.",
            ),
        ),
        Layout(
            stem_shape(rf"{SHA256}/{SHA256}\.o"),
            stem_shape(rf"{SHA256}/{NAME}/{SHA256}\.o"),
            left_here=(rf"{SHA256}/(?:{NAME}/)?\.[^/]+\.tmp\.o",),
        ),
        _temporary("FLASH_ATTENTION_CUTE_DSL_CACHE_DIR", "flash_attention_cute_dsl_cache"),
        is_whole=is_whole_library,
        has_locks=True,
    ),
    PlainAdapter(
        "flydsl",
        "FlyDSL's kernels",
        "a kernel's file",
        (_variable("FLYDSL_RUNTIME_CACHE_DIR", "`~/.flydsl/cache`", "FlyDSL's kernels."),),
        FLYDSL_LAYOUT,
        _at("FLYDSL_RUNTIME_CACHE_DIR", ".flydsl", "cache"),
    ),
    B12xAdapter(
        "b12x",
        "Kernels of the b12x in FlashInfer",
        "a kernel's object, and its description",
        (
            _variable(
                "B12X_COMPILE_CACHE_DIR",
                "`~/.cache/b12x/compile` (below `XDG_CACHE_HOME` if that is set)",
                "Kernels of the b12x in FlashInfer.",
            ),
        ),
        Layout(stem_shape(rf"[0-9a-f]{{2}}/{SHA256}", r"\.(?:o|json)")),
        _b12x,
        is_whole=is_whole_library,
        has_locks=True,
    ),
    PlainAdapter(
        "sglang_autotune",
        "FlashInfer's tuning in SGLang",
        "an environment's folder, all ranks of a model",
        (SGLANG_CACHE_DIR,),
        Layout(
            folder_shape(_ENVIRONMENT, r"manifest\.json"),
            folder_shape(_ENVIRONMENT, _ENTRY),
            folder_shape(r"managed/[0-9a-f]{16}", rf"{_RANK}/{_ENVIRONMENT}/manifest\.json"),
            folder_shape(r"managed/[0-9a-f]{16}", rf"{_RANK}/{_ENVIRONMENT}/{_ENTRY}"),
            folder_shape(r"\d[\w.+-]*/[\w.+-]+/[0-9a-f]{16}", rf"{_RANK}\.json"),
            folder_shape(rf"flux3_prims_ts/{NAME}/[0-9a-f]{{16}}", r"rank\d+\.json"),
            left_here=("(?:managed/)?runs",),
        ),
        lambda env: sglang_cache_dir(env) / "flashinfer" / "autotune",
        tunes=True,
    ),
    PlainAdapter(
        "flashinfer_entries",
        "FlashInfer's tuning",
        "an operation's file",
        (_variable("FLASHINFER_AUTOTUNE_CACHE_DIR", "in FlashInfer's cache", "FlashInfer's tuning."),),
        Layout(stem_shape(rf"{_ENVIRONMENT}/manifest\.json"), stem_shape(f"{_ENVIRONMENT}/{_ENTRY}")),
        _at("FLASHINFER_AUTOTUNE_CACHE_DIR"),
        tunes=True,
    ),
    PlainAdapter(
        "flashinfer_v2",
        "FlashInfer's tuning in packs from before 1.0.0, which is not restored",
        "an environment's folder",
        (),
        Layout(folder_shape(_ENVIRONMENT, r"manifest\.json"), folder_shape(_ENVIRONMENT, _ENTRY)),
        lambda _env: None,
        tunes=True,
    ),
    PlainAdapter(
        "flashinfer_tuning",
        "Constants that FlashInfer has measured",
        "a file",
        (_variable("FLASHINFER_AUTOTUNE_DIR", "in FlashInfer's cache", "Constants that FlashInfer has measured."),),
        Layout(stem_shape(r"(?:sparse_mla|pcie_ipc)_\w+\.json")),
        _at("FLASHINFER_AUTOTUNE_DIR"),
        tunes=True,
        results=FLASHINFER_TUNING,
    ),
    PlainAdapter(
        "miopen",
        "MIOpen's tuning",
        "a device's file",
        (_variable("MIOPEN_USER_DB_PATH", "`~/.config/miopen`", "MIOpen's tuning."),),
        Layout(stem_shape(_TUNED_ON), left_here=(rf"{_TUNED_ON}\.time",)),
        _at("MIOPEN_USER_DB_PATH", ".config", "miopen"),
        tunes=True,
        is_whole=_ends_a_line,
    ),
    PlainAdapter(
        "miopen_kernels",
        "MIOpen's kernels",
        "a device's database",
        (_variable("MIOPEN_CUSTOM_CACHE_DIR", "`~/.cache/miopen`", "MIOpen's kernels."),),
        Layout(
            stem_shape(rf"(?:\d[\w.+-]*)/{_DEVICE}\.ukdb"),
            stem_shape(rf"{_DEVICE}\.ukdb"),
            left_here=(r"(?:[^/]+/)?[^/]+\.ukdb-(?:journal|wal|shm)",),
        ),
        _at("MIOPEN_CUSTOM_CACHE_DIR", ".cache", "miopen"),
        tunes=True,
        is_whole=is_whole_database,
    ),
    PlainAdapter(
        "jax",
        "JAX's compiled programs",
        "a program's file",
        (
            _variable(
                "JAX_COMPILATION_CACHE_DIR",
                "unset: JAX keeps nothing",
                "JAX's compiled programs. JAX shares a cache in a bucket (`gs://…`) itself: it is left alone.",
                "a path; the same on every pod, or nothing hits",
            ),
        ),
        Layout(
            stem_shape(rf"{NAME}-{SHA256}-cache"),
            left_here=(rf"{NAME}-{SHA256}-atime", r"\.lockfile", "|".join(map(re.escape, XLA_CACHES))),
        ),
        _at("JAX_COMPILATION_CACHE_DIR"),
        keeps_place=True,
    ),
    PlainAdapter(
        "cupy",
        "CuPy's kernels",
        "a kernel's file",
        (_variable("CUPY_CACHE_DIR", "`~/.cupy/kernel_cache`", "CuPy's kernels."),),
        Layout(
            stem_shape(r"[0-9a-f]{40}\.(?:cubin|ltoir|hsaco)|[0-9a-f]{32}_2\.(?:cubin|hsaco)"),
            # Sources, if CUPY_CACHE_SAVE_CUDA_SOURCE is set, and half files.
            left_here=(r"[0-9a-f]{32,40}(?:_2)?\.\w+\.cu|tmp\w{8}",),
        ),
        _at("CUPY_CACHE_DIR", ".cupy", "kernel_cache"),
        for_gpu=True,
    ),
)
"""The adapters of this module."""
