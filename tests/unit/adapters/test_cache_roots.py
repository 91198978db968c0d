"""Which directories are looked at, and that no file belongs to two of them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from b10_transfer import OperationStatus, load, save
from b10_transfer.adapters import ADAPTERS, CacheRoot, LocatedCaches, cache_roots, locate_caches
from b10_transfer.adapters.inductor import default_inductor_dir
from b10_transfer.concurrency.deadline import Deadline
from b10_transfer.config import Config
from b10_transfer.local.snapshot import take
from tests.shapes import ARTIFACTS, SHA256

if TYPE_CHECKING:
    from tests.conftest import IsolatedEnv


def roots(isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, triton: Path, inductor: Path) -> list[CacheRoot]:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(triton))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(inductor))
    return [root for root in cache_roots(Config.from_environment()) if root.name in ("inductor", "triton")]


def test_caches_side_by_side_are_both_roots(isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    found = roots(isolated_env, monkeypatch, isolated_env.triton, isolated_env.inductor)
    assert [(root.name, root.path, root.nested) for root in found] == [
        ("inductor", isolated_env.inductor, ()),
        ("triton", isolated_env.triton, ()),
    ]


@pytest.mark.parametrize("inside", ["triton", "triton/0", "triton/3", "triton/mine"])
def test_triton_cache_where_inductor_puts_it_is_left_to_inductor(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, inside: str
) -> None:
    found = roots(isolated_env, monkeypatch, isolated_env.inductor / inside, isolated_env.inductor)
    assert [(root.name, root.nested) for root in found] == [("inductor", ())]


@pytest.mark.parametrize("inside", ["kernels", "aa/kernels", "tritons", "triton/0/deeper", "."])
def test_triton_cache_elsewhere_in_inductors_is_its_own(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, inside: str
) -> None:
    triton = isolated_env.inductor / inside
    found = roots(isolated_env, monkeypatch, triton, isolated_env.inductor)
    assert [(root.name, root.path) for root in found] == [("inductor", isolated_env.inductor), ("triton", triton)]


def test_flydsls_cache_where_inductor_puts_it_is_left_to_inductor(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Inductor sets the variable in its own process alone, and other processes must know the kernels by one name."""
    variable = "FLYDSL_RUNTIME_CACHE_DIR"
    for inductor in (isolated_env.inductor, isolated_env.home / ".cache" / "sglang" / "inductor"):
        monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(inductor))
        monkeypatch.setenv(variable, str(inductor / "flydsl_compile_cache"))
        assert "flydsl" not in {root.name for root in located().roots}
    graphs = isolated_env.home / ".cache/vllm/torch_compile_cache/torch_aot_compile" / ("0a" * 32) / "inductor_cache"
    monkeypatch.setenv(variable, str(graphs / "flydsl_compile_cache"))
    assert "flydsl" not in {root.name for root in located().roots}
    for place in (isolated_env.inductor / "other", isolated_env.inductor / "helion" / "flydsl_compile_cache"):
        monkeypatch.setenv(variable, str(place))
        assert place in {root.path for root in located().roots if root.name == "flydsl"}


@pytest.mark.parametrize("kernel", [f"gemm/{SHA256}.pkl", f"gemm_{SHA256[:32]}/{SHA256[:16]}.pkl"])
@pytest.mark.parametrize("is_set", [False, True])
def test_flydsls_kernels_are_restored_where_inductor_looks(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, kernel: str, is_set: bool
) -> None:
    path = isolated_env.inductor / "flydsl_compile_cache" / kernel
    isolated_env.fill(path.parent, {path.name: b"kernel"})
    if is_set:
        monkeypatch.setenv("FLYDSL_RUNTIME_CACHE_DIR", str(isolated_env.inductor / "flydsl_compile_cache"))
    assert save().units == 1
    shutil.rmtree(isolated_env.inductor)
    monkeypatch.delenv("FLYDSL_RUNTIME_CACHE_DIR", raising=False)
    assert load().restored == (f"inductor/flydsl_compile_cache/{kernel}",)
    assert path.read_bytes() == b"kernel"


def test_inductors_cache_in_tritons_is_its_own(isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    inductor = isolated_env.home / ".cache" / "triton" / "inductor"
    found = roots(isolated_env, monkeypatch, inductor.parent, inductor)
    assert [(root.name, root.path) for root in found] == [("inductor", inductor), ("triton", inductor.parent)]


@pytest.mark.parametrize(
    ("triton", "inductor"),
    [
        ("caches/triton", "caches/inductor"),
        ("caches/triton/0", "caches"),
        ("caches/kernels", "caches"),
        ("caches", "caches/inductor"),
        ("caches", "caches"),
        ("caches/triton/mine", "caches"),
        ("caches/triton/0/deeper", "caches"),
        ("caches/ey", "caches"),
    ],
)
def test_every_file_is_saved_once_however_roots_are_nested(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, triton: str, inductor: str
) -> None:
    home = isolated_env.home / ".cache"
    isolated_env.fill(home / triton, {"KERNEL/launcher.so": b"binary"})
    isolated_env.fill(home / inductor, {"ey/key.py": b"source"})
    found = take(roots(isolated_env, monkeypatch, home / triton, home / inductor), Deadline("test", 60))
    paths = [unit.root.path / file.path for unit in found.units for file in unit.files]
    assert sorted(paths) == sorted([home / triton / "KERNEL/launcher.so", home / inductor / "ey/key.py"])


def test_names_of_adapters_are_those_that_packs_were_written_with() -> None:
    """They never change: a pack's members are filed under them."""
    assert [adapter.name for adapter in ADAPTERS] == [
        "vllm",
        "vllm_modelinfos",
        "vllm_startup_plan",
        "vllm_deep_gemm",
        "flashinfer_autotune",
        "sglang_jit",
        "sglang_cute",
        "sglang_inductor",
        "sglang_triton",
        "sglang_flashinfer",
        "sglang_deep_gemm",
        "sglang_tilelang",
        "sglang_graphs",
        "sglang_diffusion_inductor",
        "sglang_diffusion_triton",
        "sglang_old_deep_gemm",
        "sglang_rust",
        "helion",
        "inductor",
        "inductor_headers",
        "triton",
        "flashinfer_knobs",
        "flashinfer",
        "deep_gemm",
        "tilelang",
        "cute_dsl",
        "tvm_ffi",
        "torch_extensions",
        "cuda",
        "tunableop",
        "quack",
        "quack_autotune",
        "torch_quack",
        "torch_quack_autotune",
        "flash_attention",
        "flydsl",
        "b12x",
        "sglang_autotune",
        "flashinfer_entries",
        "flashinfer_v2",
        "flashinfer_tuning",
        "miopen",
        "miopen_kernels",
        "jax",
        "cupy",
        "aiter",
        "aiter_templates",
    ]


def test_staging_of_a_nested_root_lies_beside_the_outermost(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise it would make the outer root look in use."""
    triton = isolated_env.inductor / "kernels"
    outer, nested = roots(isolated_env, monkeypatch, triton, isolated_env.inductor)
    assert (outer.outermost, nested.outermost) == (isolated_env.inductor, isolated_env.inductor)


def test_precompiled_headers_lie_below_inductors_default_directory(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    for inductor in (isolated_env.inductor, default_inductor_dir()):
        monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(inductor))
        [headers] = [root for root in cache_roots(Config.from_environment()) if root.name == "inductor_headers"]
        assert headers.path == default_inductor_dir() / "precompiled_headers"


# Where a cache may be


@pytest.mark.parametrize("variable", ["JAX_COMPILATION_CACHE_DIR", "TILELANG_CACHE_DIR", "SGLANG_CUTE_AOT_CACHE_DIR"])
@pytest.mark.parametrize("url", ["gs://bucket/x", "s3://bucket/x", "file:///tmp/x"])
def test_cache_at_a_url_is_left_out_and_no_folder_is_made(
    isolated_env: IsolatedEnv,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    variable: str,
    url: str,
) -> None:
    """JAX reads and writes a bucket itself. As a path, a URL would be a folder in the working directory."""
    folder = isolated_env.home / "local"
    folder.mkdir()
    monkeypatch.setenv(variable, str(folder))
    [name] = [root.name for root in located().roots if root.path == folder]
    for path in ARTIFACTS[name]:
        isolated_env.fill(folder, {path: ARTIFACTS[name][path]})
    assert save().status is OperationStatus.SUCCESS
    working = isolated_env.home / "working"
    working.mkdir()
    monkeypatch.chdir(working)
    monkeypatch.setenv(variable, url)
    caches = located()
    assert name not in {root.name for root in caches.roots}
    assert not caches.refused
    assert load().status is not OperationStatus.ERROR
    assert list(working.iterdir()) == []
    [record] = [record for record in caplog.records if f"{variable}={url} is a URL" in record.getMessage()]
    assert record.levelname == "WARNING"


def located() -> LocatedCaches:
    return locate_caches(Config.from_environment())


def test_wrong_variable_affects_only_its_own_cache(isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", "kernels")
    caches = located()
    assert list(caches.refused) == ["triton"]
    assert {"inductor", "vllm"} <= {root.name for root in caches.roots}


@pytest.mark.parametrize("variable", ["VLLM_CACHE_ROOT", "SGLANG_CACHE_DIR"])
def test_inductor_may_be_where_a_server_put_it(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    """vLLM and SGLang set the variable in their own process, below a directory that may be anywhere."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/srv/server/one/inductor_cache")
    assert "TORCHINDUCTOR_CACHE_DIR" in str(located().refused["inductor"])
    monkeypatch.setenv(variable, "/srv/server")
    assert "inductor" not in located().refused


@pytest.mark.parametrize("below", ["", "cache"])
def test_cache_at_the_null_device_is_switched_off(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, below: str
) -> None:
    link = isolated_env.home / "off"
    link.symlink_to("/dev/null")
    for name in ("TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR"):
        monkeypatch.setenv(name, str(link / below))
    caches = located()
    assert not caches.refused
    assert not {"triton", "inductor"} & {root.name for root in caches.roots}


def test_links_of_this_user_are_followed_up_to_the_last_part(isolated_env: IsolatedEnv, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    cache = isolated_env.home / ".cache" / "vllm" / "torch_compile_cache"
    cache.parent.mkdir(parents=True)
    cache.symlink_to(scratch)
    assert {root.name: root.path for root in located().roots}["vllm"] == scratch.resolve()
