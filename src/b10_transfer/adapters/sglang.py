"""SGLang's own kernels, and the other compilers' caches where SGLang moves them.

SGLang (0.5.23, ``srt/environ.py``) points other compilers at folders in its own cache directory, unless their variables
are set. It does so in its own process, and other processes cannot see that. So each of these compilers has a second
adapter here, before its first one. Thus a cache has the same name inside and outside of SGLang's process. (The CUDA
driver's cache is left alone there, see :mod:`.cuda`.)

Layout of its own caches (``sglang/kernels/jit``):

==============================================  ======================================================================
``jit/<target>/<module>/build-<key>/``          ``deps-<key>/``: ``<module>.so``, and ``sgl_deps.json`` that lists
                                                digests of all it was built from, headers included, by paths relative
                                                to where packages lie; renamed into place whole
``cute_aot/<fingerprint>/[<name>/]<key>.o``     a kernel; the fingerprint covers sources and versions, tvm-ffi's too;
                                                renamed into place while ``<key>.lock`` is held
``rust_extensions/artifacts/<crate>/<key>/``    an extension; the key covers the sources, the Rust toolchain, flags and
                                                Python (``rust_extensions/loader.py``); renamed into place. ``targets/``
                                                beside it holds what Cargo builds it from
==============================================  ======================================================================

According to their source, they depend on content alone, not on paths. (Not tried: the first two need a GPU.)
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from ..config.reader import EnvReader, Variable, real_path
from .base import Adapter, Unit
from .deep_gemm import DeepGemmAdapter
from .elf import is_whole_library
from .flashinfer import FlashInferAdapter
from .inductor import InductorAdapter
from .kernel_files import is_object_locked
from .layout import NAME, SHA256, Layout, folder_shape, stem_shape
from .ninja import BUILD_FILES
from .tilelang import TileLangAdapter
from .triton import TritonAdapter

SGLANG_CACHE_DIR = Variable(
    "SGLANG_CACHE_DIR", "`~/.cache/sglang`", "a path, `~` and links resolved", "SGLang's caches."
)


def sglang_cache_dir(env: EnvReader) -> Path:
    """``SGLANG_CACHE_DIR``, links resolved. Raises ConfigurationError."""
    return env.path(SGLANG_CACHE_DIR.name) or real_path("~/.cache/sglang")


class SglangJitAdapter(Adapter):
    """``SGLANG_JIT_CACHE_DIR`` or ``~/.cache/sglang/jit``, wherever ``SGLANG_CACHE_DIR`` points."""

    name = "sglang_jit"
    title = "SGLang's own kernels"
    units = "a build's folder"
    variables = (
        Variable(
            "SGLANG_JIT_CACHE_DIR", "`~/.cache/sglang/jit`", "a path, `~` and links resolved", "SGLang's kernels."
        ),
    )

    layout = Layout(
        folder_shape(rf"{NAME}/{NAME}/build-{NAME}/deps-{NAME}", rf"sgl_deps\.json|build\.ninja|{BUILD_FILES}"),
        left_here=(r"(?:[^/]+/)*\.staging-[^/]*",),
    )

    def locate(self, env: EnvReader) -> Path:
        return env.path("SGLANG_JIT_CACHE_DIR") or real_path("~/.cache/sglang/jit")

    def is_complete(self, root: Path, unit: Unit, files: Collection[str]) -> bool:
        return f"{unit.path}/sgl_deps.json" in files and f"{unit.path}/{unit.path.split('/')[1]}.so" in files


class SglangCuteAdapter(Adapter):
    """``SGLANG_CUTE_AOT_CACHE_DIR`` or ``cute_aot`` in SGLang's cache directory."""

    name = "sglang_cute"
    title = "CuTe DSL's kernels in SGLang"
    units = "a kernel's file"
    variables = (
        SGLANG_CACHE_DIR,
        Variable(
            "SGLANG_CUTE_AOT_CACHE_DIR",
            "`cute_aot` in `SGLANG_CACHE_DIR`",
            "a path, `~` and links resolved",
            "CuTe DSL's kernels in SGLang.",
        ),
    )

    layout = Layout(stem_shape(rf"{SHA256}/{SHA256}\.o"), stem_shape(rf"{SHA256}/{NAME}/{SHA256}\.o"))

    def locate(self, env: EnvReader) -> Path:
        return env.path("SGLANG_CUTE_AOT_CACHE_DIR") or sglang_cache_dir(env) / "cute_aot"

    def is_complete(self, root: Path, unit: Unit, files: Collection[str]) -> bool:
        is_whole = bool(files) and all(is_whole_library(root / file) for file in files)
        return is_whole and not self.is_held(root, unit)

    def is_held(self, root: Path, unit: Unit) -> bool:
        return is_object_locked(root / unit.path)


class SglangRustAdapter(Adapter):
    """``rust_extensions`` in SGLang's cache directory."""

    name = "sglang_rust"
    title = "SGLang's Rust extensions"
    units = "an extension's file"
    variables = (SGLANG_CACHE_DIR,)
    layout = Layout(
        stem_shape(rf"artifacts/{NAME}/{SHA256}/{NAME}\.so"),
        left_here=("targets|locks", rf"artifacts/{NAME}/{SHA256}/\.[^/]+"),
    )

    def locate(self, env: EnvReader) -> Path:
        return sglang_cache_dir(env) / "rust_extensions"

    def is_complete(self, root: Path, unit: Unit, files: Collection[str]) -> bool:
        return bool(files) and all(is_whole_library(root / file) for file in files)


class SglangDeepGemmAdapter(DeepGemmAdapter):
    """Where SGLang points ``DG_JIT_CACHE_DIR``, whatever it was before."""

    name = "sglang_deep_gemm"
    title = "DeepGEMM's kernels in SGLang"
    variables = (
        SGLANG_CACHE_DIR,
        Variable(
            "SGLANG_DG_CACHE_DIR",
            "`deep_gemm` in `SGLANG_CACHE_DIR`",
            "a path, `~` and links resolved",
            "DeepGEMM's cache directory in SGLang.",
        ),
    )

    def locate(self, env: EnvReader) -> Path:
        return env.path("SGLANG_DG_CACHE_DIR") or sglang_cache_dir(env) / "deep_gemm"


class SglangOldDeepGemmAdapter(DeepGemmAdapter):
    """``~/.cache/deep_gemm``, where SGLang up to 0.5.6 points ``DG_JIT_CACHE_DIR`` (``compile_utils.py``)."""

    name = "sglang_old_deep_gemm"
    title = "DeepGEMM's kernels in earlier versions of SGLang"
    variables = ()

    def locate(self, env: EnvReader) -> Path:
        return real_path("~/.cache/deep_gemm")


class SglangInductorAdapter(InductorAdapter):
    """``inductor`` in SGLang's cache directory."""

    name = "sglang_inductor"
    title = "Inductor's artifacts in SGLang"
    variables = (SGLANG_CACHE_DIR,)

    def locate(self, env: EnvReader) -> Path:
        return sglang_cache_dir(env) / "inductor"


class SglangTritonAdapter(TritonAdapter):
    """``triton`` in SGLang's cache directory."""

    name = "sglang_triton"
    title = "Triton's kernels in SGLang"
    variables = (SGLANG_CACHE_DIR,)

    def locate(self, env: EnvReader) -> Path:
        return sglang_cache_dir(env) / "triton"


class SglangTileLangAdapter(TileLangAdapter):
    """``tilelang`` in SGLang's cache directory."""

    name = "sglang_tilelang"
    title = "TileLang's kernels and tuning in SGLang"
    variables = (SGLANG_CACHE_DIR,)

    def locate(self, env: EnvReader) -> Path:
        return sglang_cache_dir(env) / "tilelang"


class SglangFlashInferAdapter(FlashInferAdapter):
    """``.cache/flashinfer`` in SGLang's cache directory."""

    name = "sglang_flashinfer"
    title = "FlashInfer's kernels in SGLang"
    variables = (SGLANG_CACHE_DIR,)

    def locate(self, env: EnvReader) -> Path:
        return sglang_cache_dir(env) / ".cache" / "flashinfer"
