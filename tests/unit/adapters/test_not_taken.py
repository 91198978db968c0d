"""Caches that are not taken, and values that a compiler reads otherwise than one expects, are named once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from b10_transfer import load, save
from b10_transfer.adapters import cache_roots
from b10_transfer.adapters.not_taken import UNTAKEN
from b10_transfer.config import Config
from b10_transfer.inspection.doctor import diagnose
from b10_transfer.notices import notices
from tests.conftest import IsolatedEnv
from tests.shapes import TRITON, TUNED, tree
from tests.unit.adapters.test_aiter import forget

SGLANG = {
    ".cache/sgl_diffusion/materialized_models/m/model.safetensors": b"",
    ".cache/sgl_diffusion/torch_compile_cache/triton/x": b"",
    ".cache/sglang/deep_gemm/proc_1/cache/x": b"",
}


@pytest.fixture(autouse=True)
def fresh_notices() -> None:
    notices.forget()


def roots() -> dict[str, Path]:
    return {root.name: root.path for root in cache_roots(Config.from_environment())}


def test_tilde_that_triton_takes_literally_is_a_folder_and_a_warning(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRITON_CACHE_DIR", "~/.triton/kernels")
    isolated_env.fill(tmp_path / "~/.triton/kernels", TRITON)
    assert save().units == 2
    assert roots()["triton"] == tmp_path.resolve() / "~/.triton/kernels"
    assert sum("does not expand" in record.getMessage() for record in caplog.records) == 1
    monkeypatch.chdir(isolated_env.home)
    assert load().units == 2
    assert (isolated_env.home / "~/.triton/kernels").is_dir()


@pytest.mark.parametrize("variable", ["TILELANG_CACHE_DIR", "DG_JIT_CACHE_DIR", "TORCH_EXTENSIONS_DIR"])
def test_other_compilers_take_it_literally_too(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variable: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(variable, "~/kernels")
    assert tmp_path.resolve() / "~/kernels" in roots().values()


def test_vllm_expands_it(isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_CACHE_ROOT", "~/vllm")
    assert roots()["vllm"] == isolated_env.home / "vllm/torch_compile_cache"


def test_cuda_cache_elsewhere_is_named(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("CUDA_CACHE_PATH", "/var/cache/cuda")
    monkeypatch.setenv("B10_CACHES", "cuda")
    save()
    save()
    assert [
        record.getMessage() for record in caplog.records if "CUDA_CACHE_PATH=/var/cache/cuda" in record.getMessage()
    ]
    assert sum("is not saved there" in record.getMessage() for record in caplog.records) == 1


def test_doctor_names_caches_that_are_left_alone(isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLYDSL_AUTOTUNE_CACHE_DIR", str(isolated_env.home / "flydsl"))
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(isolated_env.home / "empty"))
    isolated_env.fill(isolated_env.home, {"flydsl/moe.json": b"", ".aiter/jit/module_norm.so": b"", **SGLANG})
    (isolated_env.home / "empty").mkdir()
    seen = [check.seen for check in diagnose().checks if "neither saved nor restored" in check.seen]
    assert [text.partition(" is neither")[0] for text in seen] == [
        str(isolated_env.home / ".aiter" / "jit"),
        str(isolated_env.home / "flydsl"),
        str(isolated_env.home / ".cache" / "sgl_diffusion" / "materialized_models"),
        str(isolated_env.home / ".cache" / "sglang" / "deep_gemm" / "proc_1"),
    ]


def named() -> list[str]:
    seen = [check.seen for check in diagnose().checks if "neither saved nor restored" in check.seen]
    return [text.partition(" is neither")[0] for text in seen]


@pytest.fixture
def aiter_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """AITER that runs from its source tree."""
    monkeypatch.delenv("AITER_META_DIR", raising=False)
    source = tmp_path / "source"
    (source / "aiter" / "jit").mkdir(parents=True)
    (source / "aiter" / "__init__.py").touch()
    (source / "aiter" / "jit" / "core.py").touch()
    monkeypatch.syspath_prepend(source)
    forget()
    yield source / "aiter" / "jit"
    forget()


def test_doctor_names_libraries_in_aiters_source_tree(isolated_env: IsolatedEnv, aiter_source: Path) -> None:
    assert named() == []
    (aiter_source / "module_norm.so").touch()
    assert named() == [str(aiter_source)]


def test_doctor_names_aiters_template_kernels(
    isolated_env: IsolatedEnv, aiter_source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = isolated_env.home / "aiter"
    monkeypatch.setenv("AITER_ROOT_DIR", str(root))
    isolated_env.fill(root, {"build/pa/lib.so": b""})
    assert named() == [str(root / "build")]


def test_doctor_names_flashinfers_downloads(isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    base = isolated_env.home / "base"
    monkeypatch.setenv("FLASHINFER_WORKSPACE_BASE", str(base))
    downloads = base / ".cache" / "flashinfer" / "cubins"
    isolated_env.fill(downloads, {"kernel.cubin": b""})
    assert named() == [str(downloads)]
    monkeypatch.setenv("FLASHINFER_CUBIN_DIR", str(isolated_env.home / "downloads"))
    isolated_env.fill(isolated_env.home / "downloads", {"kernel.cubin": b""})
    assert named() == [str(isolated_env.home / "downloads")]


def test_doctor_names_results_of_tunableop_in_the_working_directory(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    results = [tmp_path / f"tunableop_results{device}.csv" for device in range(2)]
    for path in results:
        path.write_bytes(TUNED)
    assert named() == []
    monkeypatch.setenv("PYTORCH_TUNABLEOP_ENABLED", "1")
    assert named() == [str(path) for path in results]
    (tmp_path / "mine0.csv").write_bytes(TUNED)
    monkeypatch.setenv("PYTORCH_TUNABLEOP_FILENAME", str(tmp_path / "mine.csv"))
    assert named() == [str(tmp_path / "mine0.csv")]
    monkeypatch.setenv("PYTORCH_TUNABLEOP_FILENAME", str(tmp_path / "tunableop.csv"))
    assert named() == []


def test_doctor_names_xlas_caches(isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    place = isolated_env.home / "jax"
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(place))
    isolated_env.fill(place, tree("jax"))
    names = ("xla_gpu_per_fusion_autotune_cache_dir", "xla_gpu_kernel_cache_file")
    assert named() == [str(place / name) for name in names]
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "gs://bucket/x")
    assert named() == []


def test_list_of_what_is_left_alone_has_nothing_that_is_saved(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("FLYDSL_AUTOTUNE_CACHE_DIR", "NUMBA_CACHE_DIR", "TLLM_AUTOTUNER_CACHE_PATH"):
        monkeypatch.setenv(variable, str(isolated_env.home / variable))
    config = Config.from_environment()
    assert {path for cache in UNTAKEN for path in cache.find(config.reader)}.isdisjoint(roots().values())
