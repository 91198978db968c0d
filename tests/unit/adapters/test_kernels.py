"""Caches of smaller compilers: their places, their units, and which of their files are whole."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from b10_transfer import OperationStatus, load, save
from b10_transfer.adapters import cache_roots, find_adapter
from b10_transfer.adapters.base import Unit, UnitKind
from b10_transfer.config import Config
from tests.conftest import IsolatedEnv, ReadTree
from tests.shapes import ARTIFACTS, KERNEL, SHA256, tree

PLACES = {
    "quack": ("QUACK_CACHE_DIR", "tmp/user/quack_cache"),
    "quack_autotune": ("QUACK_CACHE_DIR", ".quack/cache"),
    "flash_attention": ("FLASH_ATTENTION_CUTE_DSL_CACHE_DIR", "tmp/user/flash_attention_cute_dsl_cache"),
    "flydsl": ("FLYDSL_RUNTIME_CACHE_DIR", ".flydsl/cache"),
    "flashinfer_v2": ("FLASHINFER_AUTOTUNE_CACHE_DIR", ""),
    "flashinfer_tuning": ("FLASHINFER_AUTOTUNE_DIR", ""),
    "miopen": ("MIOPEN_USER_DB_PATH", ".config/miopen"),
    "miopen_kernels": ("MIOPEN_CUSTOM_CACHE_DIR", ".cache/miopen"),
    "jax": ("JAX_COMPILATION_CACHE_DIR", ""),
    "cupy": ("CUPY_CACHE_DIR", ".cupy/kernel_cache"),
    "helion": ("HELION_CACHE_DIR", "inductor/helion"),
}
"""The variable of each cache, and its default place below the home directory."""


def roots() -> dict[str, Path]:
    return {root.name: root.path for root in cache_roots(Config.from_environment())}


@pytest.mark.parametrize("name", PLACES)
def test_place_is_the_compilers(name: str, isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(isolated_env.home / "tmp"))
    monkeypatch.setenv("USER", "user")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(isolated_env.home / ".cache" / "inductor"))
    variable, default = PLACES[name]
    default = default.replace("inductor/", ".cache/inductor/")
    assert roots().get(name) == (isolated_env.home / default if default else None)
    monkeypatch.setenv(variable, str(isolated_env.home / "elsewhere"))
    assert roots()[name] == isolated_env.home / "elsewhere"


@pytest.mark.parametrize("name", [*PLACES, "sglang_autotune"])
def test_cache_is_restored_at_another_path(
    name: str, isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, read_tree: ReadTree
) -> None:
    variable = PLACES[name][0] if name in PLACES else "SGLANG_CACHE_DIR"
    below = "flashinfer/autotune" if name == "sglang_autotune" else "."
    files = tree(name)
    if name == "miopen_kernels":
        files = {path: _database(isolated_env.work / "kernels") for path in files}
    for folder, operation in (("first", save), ("second", load)):
        monkeypatch.setenv(variable, str(isolated_env.home / folder))
        if operation is save:
            isolated_env.fill(isolated_env.home / folder / below, files)
        monkeypatch.setenv("B10_CACHES", name)
        assert operation().status is OperationStatus.SUCCESS
    shutil.rmtree(isolated_env.home / "first")
    restored = read_tree(isolated_env.home / "second" / below)
    assert restored.keys() == ARTIFACTS[name].keys()
    if name == "helion":
        group = json.loads(restored.pop(f"triton/0/{KERNEL}/__grp__kernel.json"))
        expected = str(isolated_env.home / "second" / "triton" / "0" / KERNEL / "kernel.cubin")
        assert group["child_paths"]["kernel.cubin"] == expected
    assert restored.items() <= files.items()


@pytest.mark.parametrize(
    ("cache", "path"),
    [
        ("miopen", "gfx942130.HIP.txt"),
        ("miopen", "secret.udb.txt"),
        ("miopen", "my_notes_gfx942130.HIP.3_5_0.udb.txt.bak"),
        ("miopen", "gfx942130.HIP.3_5_0_0123abcd.ufdb.txt.time"),
    ],
)
def test_other_files_do_not_travel(cache: str, path: str) -> None:
    adapter = find_adapter(cache)
    assert adapter is not None
    assert adapter.unit_of(path) is None


def test_helions_kernels_have_one_name_whether_or_not_it_has_set_tritons_variable(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    helion = roots()["helion"]
    monkeypatch.setenv("TRITON_CACHE_DIR", str(helion / "triton" / "0"))
    assert roots()["helion"] == helion
    assert "triton" not in roots()


def test_ranks_of_a_model_are_one_unit() -> None:
    adapter = find_adapter("sglang_autotune")
    assert adapter is not None
    for rank in range(2):
        path = f"managed/{SHA256[:16]}/rank_tp{rank}_pp0_dp0/v2/{SHA256}/entries/{SHA256}.json"
        assert adapter.unit_of(path) == Unit(f"managed/{SHA256[:16]}", UnitKind.FOLDER)
    assert adapter.unit_of(f"managed/runs/1/rank_tp0_pp0_dp0/v2/{SHA256}/manifest.json") is None


def test_database_that_is_being_written_is_not_saved(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("B10_CACHES", "miopen_kernels")
    path = isolated_env.home / ".cache" / "miopen" / "3.5.0.0123abcd" / "gfx942130.ukdb"
    path.parent.mkdir(parents=True)
    path.write_bytes(_database(isolated_env.work / "kernels"))
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO kern_db VALUES ('other')")
        assert save().status is OperationStatus.SKIPPED
        connection.execute("COMMIT")
    assert save().status is OperationStatus.SUCCESS


def _database(path: Path) -> bytes:
    """A database such as MIOpen writes."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE IF NOT EXISTS kern_db (kernel_name TEXT)")
    return path.read_bytes()
