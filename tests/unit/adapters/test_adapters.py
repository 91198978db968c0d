"""What holds for every adapter: a pack is refused whose units are not those that the adapter makes of its files."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from b10_transfer.adapters import ADAPTERS, Adapter, UnitKind, cache_roots, named
from b10_transfer.adapters.base import is_transient
from b10_transfer.concurrency.deadline import Deadline
from b10_transfer.config import Config
from b10_transfer.local.snapshot import take
from b10_transfer.pack.rules import storable
from tests.conftest import FillTree, IsolatedEnv

KEY = "0f" * 32
# Components that mean something to one adapter or another, and some that mean something to nobody.
COMPONENTS = st.sampled_from(
    [
        *("cached_ops", "generated", "autotune", "cubins", "tmp", "cache", "kernels", "autotuner", "cuda-binaries"),
        *(
            "ComputeCache",
            "index",
            "0",
            "py311_cu130",
            "triton",
            "fxgraph",
            "aotautograd",
            "torch_aot_compile",
            "locks",
        ),
        *(KEY, KEY[:10], "rank_0_0", "kernel.gemm.0f0f", "ab", "mod", "0.6.18", "90a", ".staging", "lock", "x.lock"),
        *(
            "mod.so",
            "main.o",
            ".ninja_log",
            "build.ninja",
            "x.mlir",
            "autotune_configs.json",
            ".hidden",
            "a.b.c",
            "p.o.tmp.1",
        ),
        *("quack", "flydsl_compile_cache", f"{KEY}.o", f"{KEY}.pkl", "artifacts", "v2", "entries", "kernel.json"),
        *("knobs.json", f"kda_tirx_{KEY}", "gfx942130.HIP.3_5_0_0a.fusion.ufdb.txt", "flux3_prims_ts", "rank0.json"),
        *("meta.json", "params.pkl", "kernel.cubin", f"{KEY}.cubin", "libtorch_c_dlpack_addon_torch213-cpu-00.so"),
    ]
)
NAMES = st.one_of(COMPONENTS, st.text("ab.-_ /~$\u00e9", min_size=1, max_size=6))
PATHS = st.lists(NAMES, min_size=1, max_size=7).map("/".join).filter(storable)

each = pytest.mark.parametrize("adapter", ADAPTERS, ids=lambda adapter: adapter.name)


@each
@given(path=PATHS)
def test_unit_holds_the_file_it_was_found_by(adapter: Adapter, path: str) -> None:
    unit = adapter.unit_of(path)
    if unit is None:
        return
    assert storable(unit.path)
    if unit.kind is UnitKind.FOLDER:
        assert path.startswith(f"{unit.path}/")
    else:
        assert path == unit.path or path.startswith(f"{unit.path}.")


@each
@given(path=PATHS, sibling=PATHS)
def test_files_of_a_folder_belong_to_no_other_unit(adapter: Adapter, path: str, sibling: str) -> None:
    unit = adapter.unit_of(path)
    if unit is not None and unit.kind is UnitKind.FOLDER:
        assert adapter.unit_of(f"{unit.path}/{sibling}") in (unit, None)


@each
@given(path=PATHS)
def test_nothing_transient_is_an_artifact(adapter: Adapter, path: str) -> None:
    if is_transient(path):
        assert adapter.unit_of(path) is None


@each
@given(path=PATHS)
def test_folders_of_artifacts_are_looked_into(adapter: Adapter, path: str) -> None:
    parts = path.split("/")
    if adapter.unit_of(path) is not None:
        assert not any(adapter.skips_folder("/".join(parts[:depth])) for depth in range(1, len(parts)))


@each
def test_unit_without_files_is_incomplete(adapter: Adapter, tmp_path: Path) -> None:
    for path in (
        f"cache/kernel.x.{KEY}/kernel.cu",
        f"{KEY}/a.so",
        "0.6.18/90a/generated/a.cu",
        "x.mlir",
        "ComputeCache/a",
    ):
        if unit := adapter.unit_of(path):
            assert not adapter.is_complete(tmp_path, unit, [])


@each
def test_adapter_says_what_it_is(adapter: Adapter) -> None:
    assert adapter.title
    assert adapter.units
    assert all(variable.rule and variable.meaning for variable in adapter.variables)


def test_roots_of_one_pod_are_apart(isolated_env: IsolatedEnv) -> None:
    """By default none is in another, so that none stages or locks for another."""
    roots = cache_roots(Config.from_environment())
    without_default = {
        *("tunableop", "flashinfer_entries", "flashinfer_v2", "flashinfer_tuning"),
        *("jax", "aiter", "aiter_templates"),
    }
    assert {root.name for root in roots} == {adapter.name for adapter in ADAPTERS} - without_default
    # FlashInfer's settings are one file in the directory of its kernels.
    assert len({root.path for root in roots if root.name != "flashinfer_knobs"}) == len(roots) - 1
    assert not any(root.nested or root.outer for root in roots if root.name not in ("inductor_headers", "helion"))


def test_looking_at_absent_roots_makes_none(isolated_env: IsolatedEnv, caplog: pytest.LogCaptureFixture) -> None:
    assert take(cache_roots(Config.from_environment()), Deadline("test", 60)).units == ()
    assert list(isolated_env.home.iterdir()) == []
    assert caplog.records == []


def test_caches_in_one_directory_are_saved_once(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, fill: FillTree
) -> None:
    shared = isolated_env.home / "caches"
    for variable in ("TVM_FFI_CACHE_DIR", "TORCH_EXTENSIONS_DIR"):
        monkeypatch.setenv(variable, str(shared))
    log = b"# ninja log v7\n1\t2\t3\tmod.so\tcdcaf21747c84c49\n"
    fill(
        shared,
        {
            "mod_0123456789abcdef/mod.so": b"library",
            "mod_0123456789abcdef/.ninja_log": log,
            "mod/mod.so": b"library",
            "mod/.ninja_log": log,
        },
    )
    found = take(cache_roots(Config.from_environment()), Deadline("test", 60))
    assert [unit.name for unit in found.units] == ["tvm_ffi/mod_0123456789abcdef", "torch_extensions/mod"]


def test_roots_are_named_in_a_sentence(isolated_env: IsolatedEnv) -> None:
    roots = cache_roots(Config.from_environment())[:3]
    assert named([*roots[:1], *roots[:1]]) == str(roots[0].path)
    first, second, third = (str(root.path) for root in roots)
    assert named(roots[:1]) == first
    assert named(roots[:2]) == f"{first} and {second}"
    assert named(roots) == f"{first}, {second} and {third}"
