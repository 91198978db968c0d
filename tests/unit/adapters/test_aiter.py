"""AITER's libraries are bound to what they were made from: their names say nothing of it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from b10_transfer import load, save
from b10_transfer.adapters import CacheRoot, find_adapter, locate_caches
from b10_transfer.adapters.aiter import AiterAdapter, AiterTemplatesAdapter, installed
from b10_transfer.config import Config
from b10_transfer.status import OperationStatus
from tests.shapes import ARTIFACTS, SHA256, elf_header, tree

if TYPE_CHECKING:
    from tests.conftest import IsolatedEnv

RECORD = """aiter/__init__.py,sha256=aa,10
aiter/jit/core.py,sha256=bb,20
aiter/jit/module_quant.so,sha256=cc,30
aiter_meta/csrc/kernels/quant.cu,sha256=dd,40
aiter/jit/__pycache__/core.cpython-311.pyc,,
amd_aiter-0.1.16.dist-info/RECORD,,
"""


class Package:
    """An installed AITER."""

    def __init__(self, site: Path) -> None:
        self.site = site
        self.jit = site / "aiter" / "jit"
        self.jit.mkdir(parents=True)
        (site / "aiter" / "__init__.py").touch()
        (site / "aiter" / "install_mode").write_text("install")
        (site / "amd_aiter-0.1.16.dist-info").mkdir()
        self.record(RECORD)

    def record(self, text: str) -> None:
        (self.site / "amd_aiter-0.1.16.dist-info" / "RECORD").write_text(text)
        forget()


def forget() -> None:
    """Look at the package again, as another process does."""
    from b10_transfer.adapters import aiter

    aiter._installed.cache_clear()
    aiter._folder.cache_clear()


@pytest.fixture
def package(isolated_env: IsolatedEnv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Package:
    for name in ("AITER_META_DIR", "CK_DIR", "GPU_ARCHS", "ROCM_PATH", "ENABLE_CK"):
        monkeypatch.delenv(name, raising=False)
    forget()
    monkeypatch.setenv("ROCM_HOME", str(tmp_path / "rocm"))
    made = Package(tmp_path / "site")
    monkeypatch.syspath_prepend(made.site)
    return made


def places() -> dict[str, Path]:
    roots = locate_caches(Config.from_environment()).roots
    return {root.adapter.name: root.path for root in roots if root.adapter.name.startswith("aiter")}


def test_without_aiter_there_is_no_such_cache(isolated_env: IsolatedEnv) -> None:
    forget()
    assert places() == {}
    assert AiterAdapter().root == "aiter"


def test_places_are_those_of_aiter(
    package: Package, isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert places() == {"aiter": package.jit, "aiter_templates": isolated_env.home / ".aiter" / "build"}
    monkeypatch.setenv("AITER_JIT_DIR", str(isolated_env.home / "jit"))
    monkeypatch.setenv("AITER_ROOT_DIR", str(isolated_env.home / "root"))
    assert places() == {"aiter": isolated_env.home / "jit", "aiter_templates": isolated_env.home / "root" / "build"}


def test_package_that_nobody_may_write_to_has_its_cache_in_the_home_directory(
    package: Package, isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("b10_transfer.adapters.aiter.os.access", lambda path, mode: False)
    assert places()["aiter"] == isolated_env.home / ".aiter" / "jit"


def test_name_in_packs_covers_sources_flags_and_rocm(
    package: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {AiterAdapter().root}
    assert AiterAdapter().root in names
    monkeypatch.setenv("GPU_ARCHS", "gfx942")
    names.add(AiterAdapter().root)
    monkeypatch.setenv("ENABLE_CK", "0")
    names.add(AiterAdapter().root)
    package.record(RECORD.replace("sha256=dd", "sha256=ee"))
    names.add(AiterAdapter().root)
    (package.site / "aiter" / "configs").mkdir()
    for tuned in ("304,1", "304,2"):
        (package.site / "aiter" / "configs" / "tuned_fmoe.csv").write_text(f"cu_num,token\n{tuned}\n")
        forget()
        names.add(AiterAdapter().root)
    (tmp_path / "rocm" / ".info").mkdir(parents=True)
    (tmp_path / "rocm" / ".info" / "version").write_text("7.2.0-1\n")
    forget()
    names.add(AiterAdapter().root)
    assert len(names) == 7
    assert all(len(name) <= 32 for name in names)


@pytest.mark.parametrize("name", ["AITER_JIT_DIR", "AITER_LOG_MORE", "AITER_ASM_DIR", "AITER_REBUILD"])
def test_variables_that_change_no_flag_do_not_matter(
    package: Package, isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    before = AiterAdapter().root
    monkeypatch.setenv(name, str(isolated_env.home / "1"))
    assert AiterAdapter().root == before


def test_time_and_order_of_an_installation_do_not_matter(package: Package) -> None:
    before = AiterAdapter().root
    package.record("\n".join(reversed([*RECORD.splitlines(), "aiter/__pycache__/x.pyc,,"])) + "\n")
    assert AiterAdapter().root == before


@pytest.mark.parametrize(
    "reason", ["source tree", "no mode", "other sources", "other tuning", "no record", "two records", "no digests"]
)
def test_package_whose_sources_are_not_known_is_left_alone(
    package: Package, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if reason == "source tree":
        (package.site / "aiter" / "install_mode").write_text("develop")
    elif reason == "no mode":
        (package.site / "aiter" / "install_mode").unlink()
    elif reason == "other sources":
        monkeypatch.setenv("CK_DIR", "/src/ck")
    elif reason == "other tuning":
        monkeypatch.setenv("AITER_CONFIG_FMOE", "/models/tuned_fmoe.csv")
    elif reason == "no record":
        shutil.rmtree(package.site / "amd_aiter-0.1.16.dist-info")
    elif reason == "two records":
        shutil.copytree(package.site / "amd_aiter-0.1.16.dist-info", package.site / "aiter-0.1.0.dist-info")
    else:
        package.record("__editable__.amd_aiter.pth,sha256=aa,10\n")
    forget()
    assert places() == {}


def test_libraries_that_came_with_the_package_are_not_saved(package: Package, isolated_env: IsolatedEnv) -> None:
    assert installed().modules == {"module_quant.so"}
    isolated_env.fill(package.jit, {"module_quant.so": b"library", "module_moe.so": b"library"})
    assert save().units == 1
    assert AiterAdapter().leaves_here("module_quant.so")


def test_libraries_are_restored_where_the_same_package_is(package: Package, isolated_env: IsolatedEnv) -> None:
    isolated_env.fill(package.jit, tree("aiter"))
    isolated_env.fill(isolated_env.home / ".aiter" / "build", tree("aiter_templates"))
    saved = save()
    assert (saved.status, saved.units) == (OperationStatus.SUCCESS, 6)
    shutil.rmtree(package.jit)
    package.jit.mkdir()
    shutil.rmtree(isolated_env.home / ".aiter")
    report = load()
    assert (report.status, report.units) == (OperationStatus.SUCCESS, 6)
    assert {path for path in ARTIFACTS["aiter"] if (package.jit / path).is_file()} == set(ARTIFACTS["aiter"])


def test_libraries_of_another_package_are_not_restored(package: Package, isolated_env: IsolatedEnv) -> None:
    isolated_env.fill(package.jit, tree("aiter"))
    isolated_env.fill(isolated_env.triton, ARTIFACTS["triton"])
    saved_as = AiterAdapter().root
    assert save().status is OperationStatus.SUCCESS
    shutil.rmtree(package.jit)
    package.jit.mkdir()
    shutil.rmtree(isolated_env.triton)
    package.record(RECORD.replace("sha256=dd", "sha256=ee"))
    report = load()
    assert report.status is OperationStatus.SUCCESS
    assert {name.partition("/")[0] for name in report.restored} == {"triton"}
    assert not list(package.jit.iterdir())
    assert find_adapter(saved_as) is None
    assert find_adapter(AiterAdapter().root) is not None


def test_pack_with_a_name_that_is_bound_to_nothing_is_not_restored(package: Package) -> None:
    assert find_adapter("aiter") is None


def test_cache_can_be_left_out_by_its_name(
    package: Package, isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    isolated_env.fill(package.jit, tree("aiter"))
    monkeypatch.setenv("B10_CACHES", "-aiter")
    assert places() == {"aiter_templates": isolated_env.home / ".aiter" / "build"}
    assert save().status is OperationStatus.SKIPPED


@pytest.mark.parametrize(
    ("library", "lock"),
    [
        ("module_moe.so", "build/lock_module_moe"),
        (f"build/pa_{SHA256[:32]}/lib.so", f"build/pa_{SHA256[:32]}/lock"),
    ],
)
def test_library_that_is_being_built_is_not_complete(tmp_path: Path, library: str, lock: str) -> None:
    adapter = AiterAdapter()
    root = CacheRoot(adapter, tmp_path)
    unit = root.unit_of(library)
    assert unit is not None
    (tmp_path / library).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / library).write_bytes(b"library")
    assert adapter.is_complete(tmp_path, unit, [library])
    (tmp_path / lock).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / lock).touch()
    assert not adapter.is_complete(tmp_path, unit, [library])
    assert root.knows(lock)


def test_template_that_is_being_written_is_not_complete(tmp_path: Path) -> None:
    adapter = AiterTemplatesAdapter()
    stem = f"gfx942/pa_{SHA256[:32]}"
    unit = adapter.unit_of(f"{stem}.hsaco")
    assert unit is not None
    assert unit == adapter.unit_of(f"{stem}.json")
    assert not adapter.is_complete(tmp_path, unit, [f"{stem}.hsaco"])
    assert adapter.is_complete(tmp_path, unit, [f"{stem}.hsaco", f"{stem}.json"])
    (tmp_path / "gfx942").mkdir()
    (tmp_path / f"{stem}.lock").touch()
    assert not adapter.is_complete(tmp_path, unit, [f"{stem}.hsaco", f"{stem}.json"])


def test_half_library_is_not_complete(tmp_path: Path) -> None:
    (tmp_path / "module_moe.so").write_bytes(elf_header(62))
    unit = AiterAdapter().unit_of("module_moe.so")
    assert unit is not None
    assert not AiterAdapter().is_complete(tmp_path, unit, ["module_moe.so"])


@pytest.mark.parametrize("path", ["utils/module_x.so", "build/module_moe/build/module_moe.so", "token", "a.so.tmp"])
def test_other_files_are_no_artifacts(path: str) -> None:
    assert AiterAdapter().unit_of(path) is None
