"""Caches of compilers that are neither saved nor restored, and why. ``doctor`` names those on a pod."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..config.reader import EnvReader, real_path, temporary_directory
from ..errors import ConfigurationError
from .sglang import sglang_cache_dir
from .vllm_root import vllm_cache_root


@dataclass(frozen=True)
class UntakenCache:
    """A cache that is left alone."""

    title: str
    place: str
    """Where it is, for docs/configuration.md."""
    why: str
    find: Callable[[EnvReader], Sequence[Path]]
    """Where it may be on this pod."""


def _at(variable: str, *defaults: str) -> Callable[[EnvReader], Sequence[Path]]:
    def find(env: EnvReader) -> Sequence[Path]:
        path = env.path(variable) if variable else None
        return [path] if path else [real_path(default) for default in defaults]

    return find


_UNBOUND = (
    "The name of a library holds neither AITER's version nor its sources, and AITER loads what it finds: an outdated "
    "one would be used"
)
_VERSIONED = "An engine is valid for one version of TensorRT, which the environment key does not hold"

UNTAKEN: tuple[UntakenCache, ...] = (
    UntakenCache(
        "AITER's modules",
        "`AITER_JIT_DIR`, else `jit/` in the package or `~/.aiter/jit`",
        _UNBOUND,
        _at("AITER_JIT_DIR", "~/.aiter/jit"),
    ),
    UntakenCache("AITER's template kernels", "`~/.aiter/build`", _UNBOUND, _at("", "~/.aiter/build")),
    UntakenCache(
        "FlyDSL's tuning",
        "`FLYDSL_AUTOTUNE_CACHE_DIR`, else `~/.flydsl/autotune`",
        "Its files have the names of functions, `config.json` for example, which other programs use, too",
        _at("FLYDSL_AUTOTUNE_CACHE_DIR", "~/.flydsl/autotune"),
    ),
    UntakenCache(
        "Numba",
        "`NUMBA_CACHE_DIR`, else `__pycache__` beside the source",
        "Its index compares the time and size of a source, not its content",
        _at("NUMBA_CACHE_DIR"),
    ),
    UntakenCache(
        "CuPy",
        "`CUPY_CACHE_DIR`, else `~/.cupy/kernel_cache`",
        "It has not been examined",
        _at("CUPY_CACHE_DIR", "~/.cupy/kernel_cache"),
    ),
    UntakenCache(
        "Torch-TensorRT's engines",
        "`torch_tensorrt_engine_cache` in the temporary directory",
        _VERSIONED,
        lambda _env: [real_path(temporary_directory()) / "torch_tensorrt_engine_cache"],
    ),
    UntakenCache(
        "ONNX Runtime's TensorRT engines",
        "an option of the session",
        f"{_VERSIONED}. The place is known to the program alone",
        lambda _env: [],
    ),
    UntakenCache(
        "TensorRT-LLM's autotuner",
        "`TLLM_AUTOTUNER_CACHE_PATH`",
        "It has not been examined",
        _at("TLLM_AUTOTUNER_CACHE_PATH"),
    ),
    UntakenCache(
        "vLLM's start-up plan",
        "`VLLM_CACHE_ROOT/startup_plan`",
        "It holds no compiled code",
        lambda env: [vllm_cache_root(env) / "startup_plan"],
    ),
    UntakenCache(
        "SGLang's compiled graphs before 0.5.23",
        "`SGLANG_CACHE_DIR/torch_compile_cache`",
        "Names hold the number of a process",
        lambda env: [sglang_cache_dir(env) / "torch_compile_cache"],
    ),
    UntakenCache(
        "SGLang's diffusion models",
        "`SGLANG_DIFFUSION_CACHE_ROOT`, else `~/.cache/sgl_diffusion`",
        "It holds models, too",
        _at("SGLANG_DIFFUSION_CACHE_ROOT", "~/.cache/sgl_diffusion"),
    ),
    UntakenCache(
        "DeepGEMM's kernels in SGLang before 0.5.23",
        "`~/.cache/deep_gemm`",
        "Set `SGLANG_DG_CACHE_DIR` to it, and it is saved",
        lambda env: [] if env.text("SGLANG_DG_CACHE_DIR") else [real_path("~/.cache/deep_gemm")],
    ),
    UntakenCache(
        "DeepGEMM's kernels of one process in SGLang",
        "`SGLANG_CACHE_DIR/deep_gemm/proc_*`",
        "Names hold the number of a process",
        lambda env: sorted((sglang_cache_dir(env) / "deep_gemm").glob("proc_*")),
    ),
    UntakenCache(
        "FlashInfer's downloads",
        "`cubins/` in FlashInfer's cache",
        "They are not compiled here, and FlashInfer verifies them",
        lambda _env: [],
    ),
)
"""Listed in docs/configuration.md in this order."""


def untaken_caches(env: EnvReader) -> Iterator[tuple[Path, UntakenCache]]:
    """The caches of this list that are on this pod and not empty."""
    for cache in UNTAKEN:
        try:
            for path in cache.find(env):
                if path.is_file() or (path.is_dir() and os.listdir(path)):
                    yield path, cache
        except (OSError, ConfigurationError):  # it is not for this list to complain
            continue
