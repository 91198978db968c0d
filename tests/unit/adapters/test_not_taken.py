"""Caches that are not taken, and values that a compiler reads otherwise than one expects, are named once."""

from __future__ import annotations

from pathlib import Path

import pytest

from b10_transfer import load, save
from b10_transfer.adapters import cache_roots
from b10_transfer.adapters.not_taken import UNTAKEN
from b10_transfer.config import Config
from b10_transfer.inspection.doctor import diagnose
from b10_transfer.notices import notices
from tests.conftest import IsolatedEnv
from tests.shapes import TRITON

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


def test_list_of_what_is_left_alone_has_nothing_that_is_saved(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("FLYDSL_AUTOTUNE_CACHE_DIR", "NUMBA_CACHE_DIR", "TLLM_AUTOTUNER_CACHE_PATH"):
        monkeypatch.setenv(variable, str(isolated_env.home / variable))
    config = Config.from_environment()
    assert {path for cache in UNTAKEN for path in cache.find(config.reader)}.isdisjoint(roots().values())
