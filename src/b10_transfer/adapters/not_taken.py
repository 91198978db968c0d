"""Caches of compilers that are neither saved nor restored, and why. ``doctor`` names those on a pod."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..config.reader import EnvReader, real_path, temporary_directory
from ..errors import ConfigurationError
from .aiter import installed, package_folder
from .flashinfer import FlashInferAdapter
from .kernels import XLA_CACHES
from .sglang import SglangFlashInferAdapter, sglang_cache_dir
from .sglang_graphs import DIFFUSION_GRAPHS, diffusion_root
from .tunableop import TunableOpAdapter, results_name


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


def _diffusion_models(env: EnvReader) -> Sequence[Path]:
    return [path for path in sorted(diffusion_root(env).glob("*")) if path.name != DIFFUSION_GRAPHS]


def _aiter(env: EnvReader) -> Sequence[Path]:
    """AITER's libraries. The package's own folder has other files, too."""
    if installed().identity:
        return []
    if (modules := env.path("AITER_JIT_DIR")) is not None:
        found = [modules]
    else:
        own = package_folder()
        in_package = Path(own, "jit") if own else None
        found = [in_package] if in_package is not None and any(in_package.glob("*.so")) else []
        found.append(real_path("~/.aiter/jit"))
    return [*found, (env.path("AITER_ROOT_DIR") or real_path("~/.aiter")) / "build"]


def _cubins(env: EnvReader) -> Sequence[Path]:
    places = [FlashInferAdapter().locate(env), SglangFlashInferAdapter().locate(env)]
    given = env.literal_path("FLASHINFER_CUBIN_DIR")
    return [given] if given else [place / "cubins" for place in places]


def _tunableop(env: EnvReader) -> Sequence[Path]:
    """Results in the working directory, which is this command's: another process may have another."""
    if env.text("PYTORCH_TUNABLEOP_ENABLED") != "1" or TunableOpAdapter().locate(env) is not None:
        return []
    folder, name = os.path.split(results_name(env))
    return sorted(real_path(folder or os.curdir).glob(name))


def _xla(env: EnvReader) -> Sequence[Path]:
    place = env.path("JAX_COMPILATION_CACHE_DIR")
    return [place / name for name in XLA_CACHES] if place else []


_VERSIONED = "An engine is valid for one version of TensorRT, which the environment key does not hold"

UNTAKEN: tuple[UntakenCache, ...] = (
    UntakenCache(
        "AITER's libraries, if AITER runs from a source tree",
        "`AITER_JIT_DIR`, else `jit/` in the package or `~/.aiter/jit`; and `AITER_ROOT_DIR/build`, else "
        "`~/.aiter/build`",
        "The name of a library holds neither AITER's version nor its sources, and AITER loads what it finds. Only the "
        "installation of a wheel has a list of all sources. Also if `AITER_META_DIR`, `CK_DIR`, `HIP_KITTENS_DIR` or "
        "`AITER_CONFIG_…` names others",
        _aiter,
    ),
    UntakenCache(
        "FlyDSL's tuning",
        "`FLYDSL_AUTOTUNE_CACHE_DIR`, else `~/.flydsl/autotune`",
        "Its files have the names of functions, `config.json` for example, which other programs use, too",
        _at("FLYDSL_AUTOTUNE_CACHE_DIR", "~/.flydsl/autotune"),
    ),
    UntakenCache(
        "Numba",
        "`NUMBA_CACHE_DIR`, else `__pycache__` beside the source",
        "Its index compares the time and the size of a source, not its content (0.65). Another pod's source may have "
        "both",
        _at("NUMBA_CACHE_DIR"),
    ),
    UntakenCache(
        "Torch-TensorRT's engines",
        "`torch_tensorrt_engine_cache` in the temporary directory",
        f"{_VERSIONED}, nor does the engine's name (2.14)",
        lambda _env: [real_path(temporary_directory()) / "torch_tensorrt_engine_cache"],
    ),
    UntakenCache(
        "ONNX Runtime's TensorRT engines",
        "`ORT_TENSORRT_CACHE_PATH`, else an option of the session",
        f"{_VERSIONED}. Without the variable, the place is known to the program alone",
        _at("ORT_TENSORRT_CACHE_PATH"),
    ),
    UntakenCache(
        "TensorRT-LLM's autotuner",
        "`TLLM_AUTOTUNER_CACHE_PATH`",
        "TensorRT-LLM takes the file whatever version and device it names, and fails if it lacks a rank",
        _at("TLLM_AUTOTUNER_CACHE_PATH"),
    ),
    UntakenCache(
        "SGLang's diffusion models",
        "`SGLANG_DIFFUSION_CACHE_ROOT`, else `~/.cache/sgl_diffusion`, without `torch_compile_cache`",
        "They are models and converted weights",
        _diffusion_models,
    ),
    UntakenCache(
        "DeepGEMM's kernels of one process in SGLang",
        "`SGLANG_CACHE_DIR/deep_gemm/proc_*`",
        "Names hold the number of a process",
        lambda env: sorted((sglang_cache_dir(env) / "deep_gemm").glob("proc_*")),
    ),
    UntakenCache(
        "FlashInfer's downloads",
        "`FLASHINFER_CUBIN_DIR`, else `cubins/` in FlashInfer's cache",
        "They are not compiled here, and FlashInfer verifies them",
        _cubins,
    ),
    UntakenCache(
        "TunableOp's results without a place of their own",
        "`tunableop_results*.csv` in the working directory, or what `PYTORCH_TUNABLEOP_FILENAME` names if it is left "
        "alone",
        "The working directory of a server is not known to other processes, and holds other files. Set "
        "`PYTORCH_TUNABLEOP_FILENAME`",
        _tunableop,
    ),
    UntakenCache(
        "XLA's tuning and kernels in JAX's cache",
        "`xla_gpu_per_fusion_autotune_cache_dir` and `xla_gpu_kernel_cache_file` in `JAX_COMPILATION_CACHE_DIR`",
        "Keys hold the device and the computation, but not the versions of XLA and cuBLAS (JAX 0.10). JAX's programs, "
        "whose keys hold jaxlib's version, are saved",
        _xla,
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
