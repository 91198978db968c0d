"""The CUDA driver's cache: one unit, because nobody knows what its index says of the entries."""

from __future__ import annotations

from pathlib import Path

import pytest

from b10_transfer.adapters import cache_roots
from b10_transfer.adapters.base import Unit, UnitKind
from b10_transfer.adapters.cuda import CudaAdapter
from b10_transfer.concurrency.deadline import Deadline
from b10_transfer.config import Config
from b10_transfer.local.snapshot import take
from tests.conftest import FillTree, IsolatedEnv

ADAPTER = CudaAdapter()
UNIT = Unit("ComputeCache", UnitKind.FOLDER)
INDEX = "ComputeCache/index"
ENTRY = "ComputeCache/0/a/e0943aa8a566c2"


def located() -> Path | None:
    return ADAPTER.locate(Config.from_environment().reader)


@pytest.mark.parametrize("path", [INDEX, ENTRY, "ComputeCache/f/3/00112233445566"])
def test_all_of_it_is_one_unit(path: str) -> None:
    assert ADAPTER.unit_of(path) == UNIT


@pytest.mark.parametrize("path", ["GLCache/0/index", "ComputeCache", "ComputeCaches/index", "index", f"{ENTRY}.lock"])
def test_what_lies_beside_it_is_not_taken(path: str) -> None:
    assert ADAPTER.unit_of(path) is None


def test_only_it_is_looked_into() -> None:
    assert ADAPTER.skips_folder("GLCache")
    assert not ADAPTER.skips_folder("ComputeCache")
    assert not ADAPTER.skips_folder("ComputeCache/0/a")


def test_it_is_complete_with_its_index_and_an_entry(tmp_path: Path) -> None:
    assert ADAPTER.is_complete(tmp_path, UNIT, [INDEX, ENTRY])
    assert not ADAPTER.is_complete(tmp_path, UNIT, [INDEX])
    assert not ADAPTER.is_complete(tmp_path, UNIT, [ENTRY, ENTRY + "0"])


def test_root_is_the_folder_around_it(isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    assert located() == isolated_env.home / ".nv"
    for path in ("/cache/.nv/ComputeCache", "/cache/.nv/ComputeCache/", "/cache/x/../.nv//ComputeCache"):
        monkeypatch.setenv("CUDA_CACHE_PATH", path)
        assert located() == Path("/cache/.nv").resolve()


@pytest.mark.parametrize(
    "path", ["/", "~", "ComputeCache", "/ComputeCache", "/cache/nv", "/cache/.nv/ComputeCache/sub"]
)
def test_cache_of_another_name_is_left_alone(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setenv("CUDA_CACHE_PATH", path)
    assert located() is None
    assert "cuda" not in {root.name for root in cache_roots(Config.from_environment())}


def test_link_is_resolved(isolated_env: IsolatedEnv, fill: FillTree) -> None:
    elsewhere = isolated_env.home / "nvidia"
    fill(elsewhere, {INDEX: b"index", ENTRY: b"binary"})
    (isolated_env.home / ".nv").symlink_to(elsewhere)
    assert located() == elsewhere
    found = take(cache_roots(Config.from_environment()), Deadline("test", 60))
    assert [(unit.name, len(unit.files)) for unit in found.units] == [("cuda/ComputeCache", 2)]
