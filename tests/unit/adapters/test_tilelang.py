"""TileLang's cache: kernels and tuning results in folders, device code in files, in new and old layout."""

from __future__ import annotations

from pathlib import Path

import pytest

from b10_transfer.adapters.base import Unit, UnitKind
from b10_transfer.adapters.tilelang import TileLangAdapter
from b10_transfer.config import Config
from tests.conftest import IsolatedEnv

ADAPTER = TileLangAdapter()
KEY = "0f" * 32
PLACE = "0.1.13_cu128/linux-x86_64"
BINARY = f"0.1.13_cu128/cuda-binaries/{KEY}.cubin"


@pytest.mark.parametrize("folder", [f"{PLACE}/kernels/{KEY}", f"{PLACE}/autotuner/{KEY}", KEY, f"autotuner/{KEY}"])
@pytest.mark.parametrize("file", ["device_kernel.cu", "host_kernel.cu", "kernel_lib.so", "params.pkl", "latency.json"])
def test_kernel_and_tuning_result_are_folders(folder: str, file: str) -> None:
    assert ADAPTER.unit_of(f"{folder}/{file}") == Unit(folder, UnitKind.FOLDER)


def test_device_code_is_a_file() -> None:
    assert ADAPTER.unit_of(BINARY) == Unit(BINARY, UnitKind.STEM)
    assert ADAPTER.is_complete(Path("/"), Unit(BINARY, UnitKind.STEM), [BINARY])


@pytest.mark.parametrize(
    "path",
    [
        f"{PLACE}/.staging/{KEY}_12_0a1b2c3d/params.pkl",
        f"{PLACE}/kernels/{KEY}",
        f"{PLACE}/kernels/notes/params.pkl",
        f"{PLACE}/kernels/{KEY}/x.lock",
        "0.1.13_cu128/cuda-binaries/notes.cubin",
        "tmp/12_6a0f.so",
        "py-cache/kernel.0f0f0f0f.py",
        f"autotuner/{KEY}",
        KEY,
        "notes",
    ],
)
def test_what_is_half_written_or_for_debuggers_belongs_to_no_unit(path: str) -> None:
    assert ADAPTER.unit_of(path) is None


@pytest.mark.parametrize("folder", ["tmp", "py-cache", f"{PLACE}/.staging"])
def test_folders_without_artifacts_are_not_looked_into(folder: str) -> None:
    assert ADAPTER.skips_folder(folder)


@pytest.mark.parametrize("folder", [f"{PLACE}/kernels/{KEY}", KEY])
def test_folder_is_complete_with_its_parameters_which_come_last(folder: str) -> None:
    unit = Unit(folder, UnitKind.FOLDER)
    assert not ADAPTER.is_complete(Path("/"), unit, [f"{folder}/kernel_lib.so"])
    assert not ADAPTER.is_complete(Path("/"), unit, [f"{folder}/deeper/params.pkl"])
    assert ADAPTER.is_complete(Path("/"), unit, [f"{folder}/kernel_lib.so", f"{folder}/params.pkl"])


def test_root_is_tilelangs(isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ADAPTER.locate(Config.from_environment().reader) == isolated_env.home / ".tilelang" / "cache"
    monkeypatch.setenv("TILELANG_CACHE_DIR", str(isolated_env.home / "kernels"))
    assert ADAPTER.locate(Config.from_environment().reader) == isolated_env.home / "kernels"
