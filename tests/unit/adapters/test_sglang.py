"""SGLang's own kernels, and the places that it gives other compilers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from b10_transfer import OperationStatus, load, save
from b10_transfer.adapters import cache_roots
from b10_transfer.adapters.base import Unit, UnitKind
from b10_transfer.adapters.sglang import SglangCuteAdapter, SglangJitAdapter
from b10_transfer.adapters.sglang_graphs import SglangGraphsAdapter
from b10_transfer.config import Config
from tests.conftest import IsolatedEnv, ReadTree
from tests.shapes import ARTIFACTS, GRAPH, INDUCTOR_KEY, KERNEL, SHA256, tree

JIT = SglangJitAdapter()
CUTE = SglangCuteAdapter()
BUILD = "sm_90a/store_cache/build-0123456789abcdef/deps-fedcba9876543210"
KEY = "0f" * 32


def roots() -> dict[str, Path]:
    return {root.name: root.path for root in cache_roots(Config.from_environment())}


@pytest.mark.parametrize("file", ["store_cache.so", "sgl_deps.json", "build.ninja", "cuda_0.o"])
def test_build_is_a_folder(file: str) -> None:
    assert JIT.unit_of(f"{BUILD}/{file}") == Unit(BUILD, UnitKind.FOLDER)


@pytest.mark.parametrize(
    "path",
    [
        "sm_90a/store_cache/build-0123456789abcdef/.staging-6a0f/store_cache.so",
        "sm_90a/store_cache/build-0123456789abcdef/.lock",
        "sm_90a/store_cache/deps-fedcba9876543210/a/b.so",
        f"{BUILD}/x.lock",
        BUILD,
    ],
)
def test_build_in_progress_belongs_to_no_unit(path: str) -> None:
    assert JIT.unit_of(path) is None


def test_build_in_progress_is_not_looked_into() -> None:
    assert JIT.skips_folder("sm_90a/store_cache/build-0123456789abcdef/.staging-6a0f")
    assert not JIT.skips_folder(BUILD)


def test_build_is_complete_with_its_library_and_what_that_was_built_from(tmp_path: Path) -> None:
    unit, library, sources = Unit(BUILD, UnitKind.FOLDER), f"{BUILD}/store_cache.so", f"{BUILD}/sgl_deps.json"
    assert JIT.is_complete(tmp_path, unit, [library, sources])
    assert not JIT.is_complete(tmp_path, unit, [library])
    assert not JIT.is_complete(tmp_path, unit, [sources])


@pytest.mark.parametrize("path", [f"{KEY}/{KEY}.o", f"{KEY}/fused_norm/{KEY}.o"])
def test_kernel_of_cute_dsl_is_a_file(path: str) -> None:
    assert CUTE.unit_of(path) == Unit(path, UnitKind.STEM)


@pytest.mark.parametrize(
    "path", [f"{KEY}/.{KEY}.tmp.o", f"{KEY}/{KEY}.lock", f"{KEY}/notes.o", f"notes/{KEY}.o", f"{KEY}.o"]
)
def test_what_is_half_written_or_no_kernel_belongs_to_no_unit(path: str) -> None:
    assert CUTE.unit_of(path) is None


def test_places_follow_sglangs_variables(isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    caches = isolated_env.home / ".cache" / "sglang"
    expected = {
        "sglang_jit": caches / "jit",
        "sglang_cute": caches / "cute_aot",
        "sglang_inductor": caches / "inductor",
        "sglang_triton": caches / "triton",
        "sglang_flashinfer": caches / ".cache" / "flashinfer",
        "sglang_deep_gemm": caches / "deep_gemm",
        "sglang_tilelang": caches / "tilelang",
        "sglang_autotune": caches / "flashinfer" / "autotune",
        "sglang_rust": caches / "rust_extensions",
        "sglang_graphs": caches / "torch_compile_cache",
    }
    diffusion = isolated_env.home / ".cache" / "sgl_diffusion" / "torch_compile_cache"
    fixed = {
        "sglang_diffusion_inductor": diffusion / "inductor",
        "sglang_diffusion_triton": diffusion / "triton",
        "sglang_old_deep_gemm": isolated_env.home / ".cache" / "deep_gemm",
    }
    assert {name: path for name, path in roots().items() if name.startswith("sglang")} == expected | fixed
    elsewhere = isolated_env.home / "elsewhere"
    monkeypatch.setenv("SGLANG_CACHE_DIR", str(elsewhere))
    moved = {name: elsewhere / path.relative_to(caches) for name, path in expected.items()}
    moved["sglang_jit"] = expected["sglang_jit"]
    assert {name: path for name, path in roots().items() if name.startswith("sglang")} == moved | fixed
    for variable, name in [
        ("SGLANG_JIT_CACHE_DIR", "sglang_jit"),
        ("SGLANG_CUTE_AOT_CACHE_DIR", "sglang_cute"),
        ("SGLANG_DG_CACHE_DIR", "sglang_deep_gemm"),
    ]:
        monkeypatch.setenv(variable, str(isolated_env.home / name))
        assert roots()[name] == isolated_env.home / name


@pytest.mark.parametrize(
    ("variable", "compiler", "value"),
    [
        ("TORCHINDUCTOR_CACHE_DIR", "inductor", "inductor"),
        ("TRITON_CACHE_DIR", "triton", "triton"),
        ("FLASHINFER_WORKSPACE_BASE", "flashinfer", "."),
        ("TILELANG_CACHE_DIR", "tilelang", "tilelang"),
        ("TORCHINDUCTOR_CACHE_DIR", "diffusion_inductor", "../sgl_diffusion/torch_compile_cache/inductor"),
        ("TRITON_CACHE_DIR", "diffusion_triton", "../sgl_diffusion/torch_compile_cache/triton"),
    ],
)
def test_place_has_one_name_whether_or_not_sglang_has_set_the_variable(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, variable: str, compiler: str, value: str
) -> None:
    place = roots()[f"sglang_{compiler}"]
    monkeypatch.setenv(variable, str(isolated_env.home / ".cache" / "sglang" / value))
    assert roots()[f"sglang_{compiler}"] == place
    assert compiler.removeprefix("diffusion_") not in roots()


def test_graphs_are_grouped_as_inductor_and_triton_group_them() -> None:
    adapter = SglangGraphsAdapter()
    folder = "0123456789/rank_0_0/backbone"
    assert adapter.unit_of(f"{folder}/inductor_cache/fxgraph/gi/{GRAPH}/{INDUCTOR_KEY}") == Unit(
        f"{folder}/inductor_cache/fxgraph/gi/{GRAPH}", UnitKind.FOLDER
    )
    assert adapter.unit_of(f"{folder}/triton_cache/{KERNEL}/kernel.cubin") == Unit(
        f"{folder}/triton_cache/{KERNEL}", UnitKind.FOLDER
    )
    for path in ("token", f"{folder}/x.py", f"{folder}/inductor_cache/token", f"{folder}/inductor_cache/locks/k.lock"):
        assert adapter.unit_of(path) is None
    assert not adapter.skips_folder(folder)
    assert not adapter.skips_folder(f"{folder}/triton_cache")
    assert adapter.skips_folder(f"{folder}/notes")
    assert adapter.skips_folder(f"{folder}/inductor_cache/locks")


def test_graphs_are_restored_at_another_path(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, read_tree: ReadTree
) -> None:
    monkeypatch.setenv("SGLANG_CACHE_DIR", str(isolated_env.home / "first"))
    isolated_env.fill(isolated_env.home / "first" / "torch_compile_cache", tree("sglang_graphs"))
    assert save().status is OperationStatus.SUCCESS
    monkeypatch.setenv("SGLANG_CACHE_DIR", str(isolated_env.home / "second"))
    assert load().status is OperationStatus.SUCCESS
    restored = read_tree(isolated_env.home / "second" / "torch_compile_cache")
    assert restored.keys() == ARTIFACTS["sglang_graphs"].keys()
    group = json.loads(restored[f"{SHA256[:10]}/rank_0_0/backbone/triton_cache/{KERNEL}/__grp__kernel.json"])
    place = isolated_env.home / "second" / "torch_compile_cache" / SHA256[:10] / "rank_0_0" / "backbone"
    assert group["child_paths"]["kernel.cubin"] == str(place / "triton_cache" / KERNEL / "kernel.cubin")


@pytest.mark.parametrize(
    ("variable", "below"), [("TORCHINDUCTOR_CACHE_DIR", "inductor_cache"), ("TRITON_CACHE_DIR", "triton_cache")]
)
def test_graphs_have_one_name_whether_or_not_sglang_has_set_the_variables(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, variable: str, below: str
) -> None:
    place = roots()["sglang_graphs"] / "0123456789" / "rank_0_0" / "backbone" / below
    monkeypatch.setenv(variable, str(place))
    assert place not in roots().values()


def test_models_of_sglangs_diffusion_cache_are_left_alone(isolated_env: IsolatedEnv) -> None:
    isolated_env.fill(
        isolated_env.home / ".cache" / "sgl_diffusion",
        {"materialized_models/m/model.safetensors": b"weights", "decode_dtype_store/k.safetensors": b"weights"},
    )
    assert save().status is OperationStatus.SKIPPED
