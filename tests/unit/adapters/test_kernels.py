"""Caches of smaller compilers: their places, their units, and which of their files are whole."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from b10_transfer import OperationStatus, load, save
from b10_transfer.adapters import cache_roots, find_adapter
from b10_transfer.adapters.base import Unit, UnitKind
from b10_transfer.config import Config
from tests.command import Publisher, pod_like_this
from tests.conftest import IsolatedEnv, ReadTree
from tests.shapes import ARTIFACTS, KERNEL, QUACK, SHA256, tree
from tests.unit.adapters.test_elf import elf

PLACES = {
    "quack": ("QUACK_CACHE_DIR", "tmp/user/quack_cache"),
    "quack_autotune": ("QUACK_CACHE_DIR", ".quack/cache"),
    "flash_attention": ("FLASH_ATTENTION_CUTE_DSL_CACHE_DIR", "tmp/user/flash_attention_cute_dsl_cache"),
    "torch_quack": ("QUACK_CACHE_DIR", "tmp/user/torch_vendor_quack_cache"),
    "torch_quack_autotune": ("TORCH_VENDOR_QUACK_CACHE_DIR", ".torch_vendor_quack/cache"),
    "b12x": ("B12X_COMPILE_CACHE_DIR", ".cache/b12x/compile"),
    "flydsl": ("FLYDSL_RUNTIME_CACHE_DIR", ".flydsl/cache"),
    "flashinfer_entries": ("FLASHINFER_AUTOTUNE_CACHE_DIR", ""),
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
    monkeypatch.delenv("LOGNAME", raising=False)
    monkeypatch.setenv("USER", "user")
    monkeypatch.setenv("B10_CACHES", name)  # QUACK_CACHE_DIR is for two of them
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


def test_temporary_directory_is_of_the_name_that_getpass_finds(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("USER", "other")
    monkeypatch.setenv("LOGNAME", "user")
    for name in ("quack", "torch_quack", "flash_attention"):
        assert roots()[name].parent.name == "user"
    assert roots()["cute_dsl"].parent.name == "other"


def test_quacks_tuning_follows_the_variable_for_its_home(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUACK_HOME", str(isolated_env.home / "one"))
    monkeypatch.setenv("TORCH_VENDOR_QUACK_HOME", str(isolated_env.home / "two"))
    assert roots()["quack_autotune"] == isolated_env.home / "one/.quack/cache"
    assert roots()["torch_quack_autotune"] == isolated_env.home / "two/.torch_vendor_quack/cache"
    monkeypatch.setenv("QUACK_CACHE_DIR", str(isolated_env.home / "three"))
    assert roots()["quack_autotune"] == isolated_env.home / "three"


def test_kernels_of_both_quacks_in_one_directory_are_saved_once(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUACK_CACHE_DIR", str(isolated_env.home / "both"))
    isolated_env.fill(isolated_env.home / "both", QUACK)
    assert save().units == 1
    assert {"quack", "torch_quack"} & roots().keys() == {"quack"}


OBJECTS = {
    "quack": ("QUACK_CACHE_DIR", ""),
    "torch_quack": ("QUACK_CACHE_DIR", ""),
    "flash_attention": ("FLASH_ATTENTION_CUTE_DSL_CACHE_DIR", ""),
    "sglang_cute": ("SGLANG_CUTE_AOT_CACHE_DIR", ""),
    "b12x": ("B12X_COMPILE_CACHE_DIR", ""),
    "inductor": ("TORCHINDUCTOR_CACHE_DIR", "quack/"),
}
"""Caches of objects: their variables, and where QuACK's objects are in them."""


@pytest.mark.parametrize("name", OBJECTS)
def test_object_is_saved_once_it_is_whole_and_nobody_writes_it(
    name: str, isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some versions write straight to the final name, and a killed compiler leaves half an object."""
    variable, folder = OBJECTS[name]
    cache = isolated_env.home / ".cache" / name
    monkeypatch.setenv(variable, str(cache))
    monkeypatch.setenv("B10_CACHES", name)
    [path] = [cache / path for path in ARTIFACTS[name] if path.endswith(".o") and path.startswith(folder)][-1:]
    whole = elf()
    for content in (b"", whole[:40], whole[:-1]):
        isolated_env.fill(path.parent, {path.name: content, f"{path.stem}.json": b"{}"})
        report = save()
        assert (report.status, report.units) == (OperationStatus.SKIPPED, 0)
    path.write_bytes(whole)
    lock = os.open(path.with_suffix(".lock"), os.O_CREAT | os.O_WRONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    assert save().units == 0
    os.close(lock)
    assert save().units == 1


def test_object_of_b12x_needs_its_description(isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("B10_CACHES", "b12x")
    monkeypatch.setenv("XDG_CACHE_HOME", str(isolated_env.home / "caches"))
    place = isolated_env.home / "caches/b12x/compile" / SHA256[:2]
    isolated_env.fill(place, {f"{SHA256}.o": b"object"})
    assert save().status is OperationStatus.SKIPPED
    isolated_env.fill(place, {f"{SHA256}.json": b"{}"})
    assert save().units == 1


@pytest.mark.parametrize(
    ("cache", "path"),
    [
        ("flydsl", f"gemm/{SHA256[:16]}.pkl"),
        ("flydsl", f"gemm/{SHA256}.lock"),
        ("flydsl", f"gemm/x/{SHA256}.pkl"),
        ("flydsl", "gemm/model.pkl"),
        ("inductor", f"flydsl_compile_cache/{SHA256}.pkl"),
        ("inductor", f"flydsl_compile_cache/../gemm/{SHA256}.pkl"),
        ("inductor", f"quack/{SHA256}/{SHA256}.so"),
        ("inductor", f"quack/{SHA256}.o"),
        ("inductor", f"quack/{SHA256}/x/{SHA256}.o"),
        ("quack", f"{SHA256}/{SHA256}.o.tmp.12"),
        ("torch_quack", f"{SHA256}/main.o"),
        ("torch_quack_autotune", f"{KERNEL}/config.json"),
        ("b12x", f"{SHA256[:2]}/config.json"),
        ("b12x", f"{SHA256[:2]}/.{SHA256}.o.ab12.tmp"),
        ("b12x", f"{SHA256}.json"),
        ("miopen", "gfx942130.HIP.txt"),
        ("miopen", "secret.udb.txt"),
        ("miopen", "my_notes_gfx942130.HIP.3_5_0.udb.txt.bak"),
        ("miopen", "gfx942130.HIP.3_5_0_0123abcd.ufdb.txt.time"),
        ("flashinfer_entries", f"v2/{SHA256}/entries/config.json"),
        ("flashinfer_entries", f"v2/{SHA256}/notes.json"),
        ("flashinfer_entries", f"{SHA256}/entries/{SHA256}.json"),
        ("sglang_autotune", f"flux3_prims_ts/NVIDIA_GB200/{SHA256[:16]}/config.json"),
        ("sglang_autotune", "flux3_prims_ts/NVIDIA_GB200/rank0.json"),
        ("sglang_rust", f"artifacts/sglang-server/{SHA256}/config.toml"),
        ("sglang_rust", f"artifacts/sglang-server/{SHA256}/._server.so.ab12"),
        ("sglang_rust", f"targets/{SHA256[:24]}/release/lib_server.so"),
        ("jax", f"xla_gpu_per_fusion_autotune_cache_dir/{SHA256[:43]}.textproto"),
        ("jax", "xla_gpu_kernel_cache_file"),
        ("helion", f"backward/helion_bwd_{SHA256[:32]}.py"),
    ],
)
def test_other_files_do_not_travel(cache: str, path: str) -> None:
    adapter = find_adapter(cache)
    assert adapter is not None
    assert adapter.unit_of(path) is None


def test_pods_add_to_each_others_tuning_of_one_environment(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, read_tree: ReadTree
) -> None:
    """FlashInfer publishes each entry by itself."""
    folder = f"v2/{SHA256[:16]}"
    for pod in ("1", "2"):
        monkeypatch.setenv("FLASHINFER_AUTOTUNE_CACHE_DIR", str(isolated_env.home / pod))
        files = {f"{folder}/manifest.json": b"{}", f"{folder}/entries/{pod * 24}.json": b"{}"}
        isolated_env.fill(isolated_env.home / pod, files)
        assert save().status is OperationStatus.SUCCESS
    monkeypatch.setenv("FLASHINFER_AUTOTUNE_CACHE_DIR", str(isolated_env.home / "3"))
    assert load().status is OperationStatus.SUCCESS
    expected = {"manifest.json", f"entries/{'1' * 24}.json", f"entries/{'2' * 24}.json"}
    assert read_tree(isolated_env.home / "3" / folder).keys() == expected


def test_environments_of_version_1_are_known_and_not_restored(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Their units are folders: restored, they would be in the way of single entries."""
    monkeypatch.setenv("FLASHINFER_AUTOTUNE_CACHE_DIR", str(isolated_env.home / "tuning"))
    publisher = Publisher(isolated_env.store, pod_like_this())
    publisher.publish({f"flashinfer_v2/v2/{SHA256}/": {"manifest.json": b"{}", f"entries/{SHA256}.json": b"{}"}})
    assert load().status is OperationStatus.DOES_NOT_EXIST
    assert not (isolated_env.home / "tuning").exists()
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]


def test_helions_kernels_have_one_name_whether_or_not_it_has_set_tritons_variable(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    helion = roots()["helion"]
    monkeypatch.setenv("TRITON_CACHE_DIR", str(helion / "triton" / "0"))
    assert roots()["helion"] == helion
    assert "triton" not in roots()


def test_helions_kernels_have_one_name_whether_or_not_it_has_set_the_variable_of_cute_dsl(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {path: data for path, data in ARTIFACTS["helion"].items() if path.startswith("cute/")}
    isolated_env.fill(roots()["helion"], files)
    monkeypatch.setenv("CUTE_DSL_CACHE_DIR", str(roots()["helion"] / "cute" / "0"))
    assert save().units == 1
    shutil.rmtree(roots()["helion"])
    monkeypatch.delenv("CUTE_DSL_CACHE_DIR")
    assert load().restored == (f"helion/cute/0/cute_dsl_{KERNEL}",)


def test_ranks_of_a_model_are_one_unit() -> None:
    adapter = find_adapter("sglang_autotune")
    assert adapter is not None
    for rank in range(2):
        path = f"managed/{SHA256[:16]}/rank_tp{rank}_pp0_dp0/v2/{SHA256}/entries/{SHA256}.json"
        assert adapter.unit_of(path) == Unit(f"managed/{SHA256[:16]}", UnitKind.FOLDER)
    assert adapter.unit_of(f"managed/runs/1/rank_tp0_pp0_dp0/v2/{SHA256}/manifest.json") is None


def test_ranks_of_a_diffusion_model_are_one_unit() -> None:
    adapter = find_adapter("sglang_autotune")
    assert adapter is not None
    folder = f"flux3_prims_ts/NVIDIA_GB200/{SHA256[:16]}"
    assert {adapter.unit_of(f"{folder}/rank{rank}.json") for rank in range(2)} == {Unit(folder, UnitKind.FOLDER)}


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
