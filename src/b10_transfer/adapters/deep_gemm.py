"""DeepGEMM's kernels.

Layout (DeepGEMM 2.6, ``csrc/jit/compiler.hpp``): ``cache/kernel.<name>.<hash>/`` with ``kernel.cu`` and
``kernel.cubin``, compiled in ``tmp/<uuid>/`` and renamed into place whole. If a folder has only one of the two,
DeepGEMM ends the process. So a unit must never be incomplete.

The hash covers the generated code, the content of DeepGEMM's headers that it includes (hence its version), the
compiler's version and its flags, among them the paths of those headers and of CUDA's: with a package at another path
nothing hits. (Later versions leave the path of their own headers out.)

vLLM and SGLang each point DeepGEMM at a folder of their own, and other processes cannot see that. The adapters of these
places come before DeepGEMM's own, so that each place has the same name in every process (:mod:`.sglang`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from ..config.reader import EnvReader, Variable, real_path
from .base import Adapter, Unit
from .key_facts import cuda_home, package
from .layout import Layout, folder_shape
from .vllm_root import VLLM_CACHE_ROOT, vllm_cache_root

_CACHE_DIR = "DG_JIT_CACHE_DIR"


class DeepGemmAdapter(Adapter):
    """``DG_JIT_CACHE_DIR`` or ``~/.deep_gemm``."""

    name = "deep_gemm"
    title = "DeepGEMM's kernels"
    units = "a kernel's folder"
    variables: tuple[Variable, ...] = (
        Variable(
            _CACHE_DIR,
            "`~/.deep_gemm`; for vLLM `VLLM_CACHE_ROOT/deep_gemm`",
            "a path",
            "DeepGEMM's cache directory. vLLM follows it; SGLang sets it, to `SGLANG_DG_CACHE_DIR`.",
        ),
    )

    layout = Layout(folder_shape(r"cache/kernel\.[\w.-]+", r"kernel\.(?:cu|cubin|sass|ptx)"), left_here=("tmp|locks",))

    def locate(self, env: EnvReader) -> Path:
        return env.literal_path(_CACHE_DIR) or real_path("~/.deep_gemm")

    def is_complete(self, root: Path, unit: Unit, files: Collection[str]) -> bool:
        return {f"{unit.path}/kernel.cu", f"{unit.path}/kernel.cubin"} <= set(files)

    def depends_on_host(self, unit: Unit, files: Collection[str]) -> bool:
        return False

    def key_facts(self, env: EnvReader, root: Path) -> Mapping[str, str]:
        # vLLM brings its own, and uses it if there is no other.
        return {**(package("deep_gemm") or package("vllm", "third_party/deep_gemm")), **cuda_home(env)}


class VllmDeepGemmAdapter(DeepGemmAdapter):
    """Where vLLM points ``DG_JIT_CACHE_DIR`` unless it is set (vLLM 0.32, ``vllm/utils/deep_gemm.py``)."""

    name = "vllm_deep_gemm"
    title = "DeepGEMM's kernels in vLLM"
    variables = (VLLM_CACHE_ROOT,)

    def locate(self, env: EnvReader) -> Path:
        return vllm_cache_root(env) / "deep_gemm"
