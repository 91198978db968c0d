"""FlashInfer's cache: ops with ninja's state, the sources they were built from, and tuning."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from b10_transfer.adapters.base import Unit, UnitKind
from b10_transfer.adapters.flashinfer import FlashInferAdapter, FlashInferAutotuneAdapter
from b10_transfer.config import Config
from tests.conftest import FillTree, IsolatedEnv
from tests.shapes import SHA256, TVM_BUILD

ADAPTER = FlashInferAdapter()
AUTOTUNE = FlashInferAutotuneAdapter()
PLACE = "0.6.18/90a"
OP = "batch_decode_with_kv_cache_dtype_q_bf16"
FAMILY = "nvfp4_quantize_sm100a_cute_dsl"
FOLDER = f"{PLACE}/cached_ops/{OP}"
LOG = f"# ninja log v7\n1\t2\t3\t/root/.cache/flashinfer/{FOLDER}/{OP}.so\tcdcaf21747c84c49\n".encode()


@pytest.mark.parametrize("file", [f"{OP}.so", "batch_decode.cuda.o", ".ninja_log", ".ninja_deps", "meta.json"])
def test_op_is_a_folder_with_ninjas_state(file: str) -> None:
    assert ADAPTER.unit_of(f"{FOLDER}/{file}") == Unit(FOLDER, UnitKind.FOLDER)


@pytest.mark.parametrize(
    "path",
    [
        f"{PLACE}/generated/{OP}/batch_decode_kernel.cu",
        f"{PLACE}/generated/silu_and_mul.cu",
        f"{PLACE}/generated/cutlass_instantiations/90/gemm_grouped/cutlass_kernel_file_1.generated.cu",
        f"{PLACE}/autotune/sparse_mla_sm120_decode_dsv4.json",
    ],
)
def test_source_and_tuning_are_units_file_by_file(path: str) -> None:
    assert ADAPTER.unit_of(path) == Unit(path, UnitKind.STEM)


@pytest.mark.parametrize(
    "path",
    [
        f"{FOLDER}/build.ninja",
        f"{PLACE}/cached_ops/{FAMILY}/kernel.o.tmp.123",
        f"{PLACE}/cached_ops/{FAMILY}/meta.json.tmp.123",
        f"{PLACE}/cached_ops/tmp/{OP}.lock",
        f"{PLACE}/cached_ops/tmp/flashinfer_jit.ninja",
        f"{PLACE}/cached_ops/.ninja_log",
        f"{PLACE}/generated/.hidden",
        f"{PLACE}/flashinfer_jit.log",
        f"{PLACE}/generated",
        "cubins/0a1b/fmha/trtllm-gen/kernel.cubin",
        "cubins/a/generated/kernel.cu",
    ],
)
def test_what_is_of_this_machine_or_downloaded_or_half_written_does_not_travel(path: str) -> None:
    assert ADAPTER.unit_of(path) is None


def test_folders_without_artifacts_are_not_looked_into() -> None:
    assert ADAPTER.skips_folder("cubins")
    assert ADAPTER.skips_folder(f"{PLACE}/cached_ops/tmp")
    assert not ADAPTER.skips_folder(FOLDER)
    assert not ADAPTER.skips_folder(f"{PLACE}/generated/tmp")


def test_op_is_complete_once_ninja_has_linked_it_and_nobody_holds_its_lock(tmp_path: Path, fill: FillTree) -> None:
    unit, files = Unit(FOLDER, UnitKind.FOLDER), [f"{FOLDER}/{OP}.so", f"{FOLDER}/.ninja_log"]
    fill(tmp_path / FOLDER, {f"{OP}.so": b"", ".ninja_log": b"# ninja log v7\n"})
    assert not ADAPTER.is_complete(tmp_path, unit, files)
    fill(tmp_path / FOLDER, {".ninja_log": LOG})
    assert ADAPTER.is_complete(tmp_path, unit, files)
    assert not ADAPTER.is_complete(tmp_path, unit, [])
    fill(tmp_path, {f"{PLACE}/cached_ops/tmp/{OP}.lock": b""})
    descriptor = os.open(tmp_path / f"{PLACE}/cached_ops/tmp/{OP}.lock", os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    assert not ADAPTER.is_complete(tmp_path, unit, files)
    os.close(descriptor)
    assert ADAPTER.is_complete(tmp_path, unit, files)


def test_family_of_cute_dsl_is_complete_with_its_marker(tmp_path: Path) -> None:
    folder = f"{PLACE}/cached_ops/{FAMILY}"
    unit = Unit(folder, UnitKind.FOLDER)
    assert not ADAPTER.is_complete(tmp_path, unit, [f"{folder}/kernel.o"])
    assert ADAPTER.is_complete(tmp_path, unit, [f"{folder}/kernel.o", f"{folder}/meta.json"])


def test_source_is_incomplete_while_the_op_of_its_name_is_built(tmp_path: Path, fill: FillTree) -> None:
    path = f"{PLACE}/generated/{OP}/batch_decode_kernel.cu"
    unit = Unit(path, UnitKind.STEM)
    assert ADAPTER.is_complete(tmp_path, unit, [path])
    fill(tmp_path, {f"{FOLDER}/batch_decode.cuda.o": b""})
    assert not ADAPTER.is_complete(tmp_path, unit, [path])
    fill(tmp_path, {f"{FOLDER}/{OP}.so": b""})
    assert ADAPTER.is_complete(tmp_path, unit, [path])


def test_root_is_flashinfers(isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ADAPTER.locate(Config.from_environment().reader) == isolated_env.home / ".cache" / "flashinfer"
    monkeypatch.setenv("FLASHINFER_WORKSPACE_BASE", str(isolated_env.home / "base"))
    assert ADAPTER.locate(Config.from_environment().reader) == isolated_env.home / "base" / ".cache" / "flashinfer"


@pytest.mark.parametrize(
    "path", ["0.6.18/90a/1f2e/autotune_configs.json", "1f2e/autotune_configs.json", "1f2e/autotune_configs_rank_3.json"]
)
def test_tuning_for_vllm_is_a_file_for_each_configuration(path: str) -> None:
    assert AUTOTUNE.unit_of(path) == Unit(path, UnitKind.STEM)


@pytest.mark.parametrize(
    "path", ["1f2e/.autotune_configs.json.x1y2.tmp", "1f2e/notes.json", "1f2e/autotune_configs.py"]
)
def test_other_files_beside_the_tuning_do_not_travel(path: str) -> None:
    assert AUTOTUNE.unit_of(path) is None


def test_root_of_the_tuning_is_vllms(isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    def located() -> Path:
        return AUTOTUNE.locate(Config.from_environment().reader)

    assert located() == isolated_env.home / ".cache" / "vllm" / "flashinfer_autotune_cache"
    monkeypatch.setenv("VLLM_CACHE_ROOT", str(isolated_env.home / "vllm"))
    assert located() == isolated_env.home / "vllm" / "flashinfer_autotune_cache"
    monkeypatch.setenv("VLLM_FLASHINFER_AUTOTUNE_CACHE_DIR", str(isolated_env.home / "tuning"))
    assert located() == isolated_env.home / "tuning"


def test_library_that_tvm_has_built_is_complete_with_its_digest(tmp_path: Path, fill: FillTree) -> None:
    folder = f"{PLACE}/cached_ops/kda_tirx_{SHA256}"
    unit, files = Unit(folder, UnitKind.FOLDER), [f"{folder}/kernel.so", f"{folder}/kernel.json"]
    assert {ADAPTER.unit_of(file) for file in files} == {unit}
    fill(tmp_path / folder, TVM_BUILD)
    assert ADAPTER.is_complete(tmp_path, unit, files)
    assert not ADAPTER.is_complete(tmp_path, unit, files[:1])
    fill(tmp_path / folder, {"kernel.so": b"another library"})
    assert not ADAPTER.is_complete(tmp_path, unit, files)
    fill(tmp_path / folder, {**TVM_BUILD, "kernel.json": b"[]"})
    assert not ADAPTER.is_complete(tmp_path, unit, files)


def test_digest_belongs_to_no_other_op() -> None:
    for path in (f"{FOLDER}/kernel.json", f"{PLACE}/cached_ops/kda_tirx_{SHA256}/tmpab12cd34/kernel.json"):
        assert ADAPTER.unit_of(path) is None
