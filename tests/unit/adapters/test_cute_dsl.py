"""CuTe DSL's cache: one file for each kernel."""

from __future__ import annotations

import pwd
from pathlib import Path

import pytest

from b10_transfer.adapters.base import Unit, UnitKind
from b10_transfer.adapters.cute_dsl import CuteDslAdapter
from b10_transfer.config import Config
from tests.conftest import IsolatedEnv

ADAPTER = CuteDslAdapter()
KERNEL = f"cute_dsl_{'5f' * 32}.mlir"


def test_kernel_is_a_file() -> None:
    assert ADAPTER.unit_of(KERNEL) == Unit(KERNEL, UnitKind.STEM)
    assert ADAPTER.is_complete(Path("/"), Unit(KERNEL, UnitKind.STEM), [KERNEL])
    assert not ADAPTER.is_complete(Path("/"), Unit(KERNEL, UnitKind.STEM), [])


@pytest.mark.parametrize(
    "path", [f"tmp.pid_12_6a0f/{KERNEL}", f"deeper/{KERNEL}", ".hidden.mlir", "cute_dsl.ptx", "mlir", f"{KERNEL}.lock"]
)
def test_what_is_half_written_or_no_kernel_belongs_to_no_unit(path: str) -> None:
    assert ADAPTER.unit_of(path) is None


def test_no_folder_holds_artifacts() -> None:
    assert ADAPTER.skips_folder("tmp.pid_12_6a0f")
    assert ADAPTER.skips_folder("deeper")


def test_root_is_the_dsls(isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    def located() -> Path:
        return ADAPTER.locate(Config.from_environment().reader)

    temporary = isolated_env.home.parent / "tmp"
    monkeypatch.setenv("USER", "somebody")
    assert located() == temporary / "somebody" / "cutlass_python_cache"
    monkeypatch.delenv("USER")
    monkeypatch.setenv("USERNAME", "another")
    assert located() == temporary / "another" / "cutlass_python_cache"
    monkeypatch.setenv("CUTE_DSL_CACHE_DIR", str(isolated_env.home / "kernels"))
    assert located() == isolated_env.home / "kernels"


def test_user_without_a_name_has_no_folder_of_his_own(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(_uid: int) -> None:
        raise KeyError

    monkeypatch.delenv("USER", raising=False)
    monkeypatch.delenv("USERNAME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    root = ADAPTER.locate(Config.from_environment().reader)
    assert root == isolated_env.home.parent / "tmp" / "cutlass_python_cache"
