"""tvm-ffi's libraries: a folder each; and its bridge to torch, a single library."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from b10_transfer.adapters.base import Unit, UnitKind
from b10_transfer.adapters.tvm_ffi import TvmFfiAdapter
from b10_transfer.config import Config
from tests.conftest import FillTree, IsolatedEnv

ADAPTER = TvmFfiAdapter()
FOLDER = "sgl_kernel_jit_store_cache_0123456789abcdef"
NAME = "sgl_kernel_jit_store_cache.so"
BRIDGE = "libtorch_c_dlpack_addon_torch213-cuda-1a2b3c4d.so"


@pytest.mark.parametrize("file", [NAME, "cuda.cu", "main.cpp", "cuda_0.o", ".ninja_log", ".ninja_deps"])
def test_library_is_a_folder(file: str) -> None:
    assert ADAPTER.unit_of(f"{FOLDER}/{file}") == Unit(FOLDER, UnitKind.FOLDER)


def test_bridge_to_torch_is_a_unit_of_its_own() -> None:
    assert ADAPTER.unit_of(BRIDGE) == Unit(BRIDGE, UnitKind.STEM)


@pytest.mark.parametrize("path", [f"{FOLDER}/lock", f"{FOLDER}/build.ninja", f"{BRIDGE}.lock", "notes.txt", "other.so"])
def test_what_is_written_anew_or_belongs_to_nothing_does_not_travel(path: str) -> None:
    assert ADAPTER.unit_of(path) is None


def test_library_is_complete_once_ninja_has_linked_it_and_nobody_holds_its_lock(tmp_path: Path, fill: FillTree) -> None:
    unit, files = Unit(FOLDER, UnitKind.FOLDER), [f"{FOLDER}/{NAME}"]
    fill(tmp_path / FOLDER, {NAME: b"", "lock": b"", ".ninja_log": b"# ninja log v7\n"})
    assert not ADAPTER.is_complete(tmp_path, unit, files)
    (tmp_path / FOLDER / ".ninja_log").write_text(f"# ninja log v7\n1\t2\t3\t{NAME}\tcdcaf21747c84c49\n")
    assert ADAPTER.is_complete(tmp_path, unit, files)
    descriptor = os.open(tmp_path / FOLDER / "lock", os.O_WRONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    assert not ADAPTER.is_complete(tmp_path, unit, files)
    os.close(descriptor)
    assert ADAPTER.is_complete(tmp_path, unit, files)


def test_bridge_is_incomplete_while_its_lock_is_held(tmp_path: Path) -> None:
    unit = Unit(BRIDGE, UnitKind.STEM)
    descriptor = os.open(tmp_path / f"{BRIDGE}.lock", os.O_CREAT | os.O_WRONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    assert not ADAPTER.is_complete(tmp_path, unit, [BRIDGE])
    os.close(descriptor)
    assert ADAPTER.is_complete(tmp_path, unit, [BRIDGE])


def test_root_is_tvm_ffis(isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ADAPTER.locate(Config.from_environment().reader) == isolated_env.home / ".cache" / "tvm-ffi"
    monkeypatch.setenv("TVM_FFI_CACHE_DIR", "~/elsewhere")
    assert ADAPTER.locate(Config.from_environment().reader) == isolated_env.home / "elsewhere"
