"""DeepGEMM's kernels, in the three places where it, vLLM and SGLang keep them."""

from __future__ import annotations

from pathlib import Path

import pytest

from b10_transfer.adapters import cache_roots
from b10_transfer.adapters.base import Unit, UnitKind
from b10_transfer.adapters.deep_gemm import DeepGemmAdapter
from b10_transfer.config import Config
from tests.conftest import IsolatedEnv

ADAPTER = DeepGemmAdapter()
FOLDER = "cache/kernel.sm90_fp8_gemm_1d2d.0123456789abcdef0123456789abcdef"
UNIT = Unit(FOLDER, UnitKind.FOLDER)


def roots() -> dict[str, Path]:
    return {root.name: root.path for root in cache_roots(Config.from_environment()) if "deep_gemm" in root.name}


@pytest.mark.parametrize("file", ["kernel.cu", "kernel.cubin", "kernel.sass", "kernel.ptx"])
def test_kernel_is_a_folder(file: str) -> None:
    assert ADAPTER.unit_of(f"{FOLDER}/{file}") == UNIT


@pytest.mark.parametrize(
    "path", ["tmp/6a0f/kernel.cu", FOLDER, "cache/notes/kernel.cu", "kernel.x.y/kernel.cu", f"{FOLDER}/x.tmp"]
)
def test_what_is_half_written_or_lies_elsewhere_belongs_to_no_unit(path: str) -> None:
    assert ADAPTER.unit_of(path) is None


def test_only_finished_kernels_are_looked_into() -> None:
    assert ADAPTER.skips_folder("tmp")
    assert not ADAPTER.skips_folder("cache")
    assert not ADAPTER.skips_folder(FOLDER)


def test_kernel_is_complete_with_source_and_binary(tmp_path: Path) -> None:
    """DeepGEMM ends the process over a folder with one of them."""
    source, binary = f"{FOLDER}/kernel.cu", f"{FOLDER}/kernel.cubin"
    assert ADAPTER.is_complete(tmp_path, UNIT, [source, binary])
    assert not ADAPTER.is_complete(tmp_path, UNIT, [source])
    assert not ADAPTER.is_complete(tmp_path, UNIT, [binary])


def test_each_server_has_a_place_of_its_own(isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    served = {
        "vllm_deep_gemm": isolated_env.home / ".cache" / "vllm" / "deep_gemm",
        "sglang_deep_gemm": isolated_env.home / ".cache" / "sglang" / "deep_gemm",
        "sglang_old_deep_gemm": isolated_env.home / ".cache" / "deep_gemm",
    }
    assert roots() == {**served, "deep_gemm": isolated_env.home / ".deep_gemm"}
    monkeypatch.setenv("DG_JIT_CACHE_DIR", str(isolated_env.home / "kernels"))
    assert roots() == {**served, "deep_gemm": isolated_env.home / "kernels"}


@pytest.mark.parametrize("server", ["vllm", "sglang"])
def test_place_has_one_name_whether_or_not_the_server_has_set_the_variable(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, server: str
) -> None:
    place = roots()[f"{server}_deep_gemm"]
    monkeypatch.setenv("DG_JIT_CACHE_DIR", str(place))
    assert roots()[f"{server}_deep_gemm"] == place
    assert "deep_gemm" not in roots()
