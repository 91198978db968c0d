"""PyTorch's extensions: a folder each, with ninja's state, finished once ninja says so and the baton is gone."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from b10_transfer.adapters.base import Unit, UnitKind
from b10_transfer.adapters.torch_extensions import TorchExtensionsAdapter
from b10_transfer.config import Config
from tests.conftest import FillTree, IsolatedEnv

ADAPTER = TorchExtensionsAdapter()
FILES = {
    ".ninja_deps": b"# ninjadeps\n",
    ".ninja_log": b"# ninja log v7\n22760\t23066\t1795449944286738074\tmod.so\tcdcaf21747c84c49\n",
    "main.cpp": b"source",
    "main.o": b"object",
    "mod.so": b"library",
}


@pytest.mark.parametrize("build", ["py311_cu130", "py311_cpu", "py314t_cu128", "py312_rocm7226015-fc0010cf6"])
@pytest.mark.parametrize("file", FILES)
def test_extension_is_a_folder_below_its_pythons(build: str, file: str) -> None:
    assert ADAPTER.unit_of(f"{build}/mod/{file}") == Unit(f"{build}/mod", UnitKind.FOLDER)


@pytest.mark.parametrize("name", ["mod", "python", "py311", "py_cpu", "py311_cuda_ops"])
def test_extension_lies_directly_in_a_configured_directory(name: str) -> None:
    assert ADAPTER.unit_of(f"{name}/{name}.so") == Unit(name, UnitKind.FOLDER)


@pytest.mark.parametrize(
    "path", ["mod/lock", "mod/build.ninja", "py311_cpu/mod/lock", "py311_cpu/mod/build.ninja", "py311_cpu/file", "file"]
)
def test_what_is_written_anew_or_belongs_to_nothing_does_not_travel(path: str) -> None:
    assert ADAPTER.unit_of(path) is None


def test_extension_is_complete_once_ninja_has_linked_it(tmp_path: Path, fill: FillTree) -> None:
    unit, files = Unit("mod", UnitKind.FOLDER), [f"mod/{name}" for name in FILES]
    fill(tmp_path / "mod", FILES)
    assert ADAPTER.is_complete(tmp_path, unit, files)
    (tmp_path / "mod" / ".ninja_log").write_bytes(b"# ninja log v7\n")
    assert not ADAPTER.is_complete(tmp_path, unit, files)


def test_lock_that_nobody_holds_keeps_no_extension_back(tmp_path: Path, fill: FillTree) -> None:
    """torch 2.14 leaves the file there for good."""
    unit, files = Unit("mod", UnitKind.FOLDER), [f"mod/{name}" for name in FILES]
    fill(tmp_path / "mod", FILES | {"lock": b""})
    os.utime(tmp_path / "mod" / "mod.so", (1e9, 1e9))
    with open(tmp_path / "mod" / "lock") as lock:
        assert ADAPTER.is_complete(tmp_path, unit, files)
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert not ADAPTER.is_complete(tmp_path, unit, files)
    assert ADAPTER.is_complete(tmp_path, unit, files)


def test_library_that_is_linked_anew_beside_its_lock_is_incomplete(tmp_path: Path, fill: FillTree) -> None:
    """Up to torch 2.13 the lock is a file that nobody locks: the log names the library of the build before."""
    unit, files = Unit("mod", UnitKind.FOLDER), [f"mod/{name}" for name in FILES]
    fill(tmp_path / "mod", FILES | {"lock": b""})
    os.utime(tmp_path / "mod" / "mod.so", (2e9, 2e9))
    assert not ADAPTER.is_complete(tmp_path, unit, files)
    (tmp_path / "mod" / "lock").unlink()
    assert ADAPTER.is_complete(tmp_path, unit, files)


@pytest.mark.parametrize("files", [["mod/.ninja_log", "mod/other.so"], ["mod/mod.so"], ["mod/main.cpp", "mod/main.o"]])
def test_other_build_of_ninjas_is_no_extension(files: list[str]) -> None:
    assert not ADAPTER.written(Unit("mod", UnitKind.FOLDER), files)


def test_root_is_pytorchs(isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    def located() -> Path:
        return ADAPTER.locate(Config.from_environment().reader)

    assert located() == isolated_env.home / ".cache" / "torch_extensions"
    monkeypatch.setenv("XDG_CACHE_HOME", str(isolated_env.home / "caches"))
    assert located() == isolated_env.home / "caches" / "torch_extensions"
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(isolated_env.home / "extensions"))
    assert located() == isolated_env.home / "extensions"
