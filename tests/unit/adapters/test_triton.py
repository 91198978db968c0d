"""Triton's cache: one folder for each kernel, whose group file names the others by absolute path."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from b10_transfer.adapters.base import Unit, UnitKind
from b10_transfer.adapters.triton import TritonAdapter
from b10_transfer.config import Config

if TYPE_CHECKING:
    from tests.conftest import IsolatedEnv

ADAPTER = TritonAdapter()
ROOT = Path("/cache")
KEY = "XJFWKQ3VTWVPYS5VZ4ABTYTRMO2QF4D3RU6VLZ4QYV6MRPFVXQ3A"
GROUP = f"{KEY}/__grp__kernel.json"
FILES = {f"{KEY}/kernel.cubin", f"{KEY}/kernel.json"}


def group(paths: dict[str, str]) -> bytes:
    return json.dumps({"child_paths": paths}).encode()


def test_kernel_is_a_unit(isolated_env: IsolatedEnv) -> None:
    unit = Unit(KEY, UnitKind.FOLDER)
    assert ADAPTER.unit_of(f"{KEY}/kernel.cubin") == unit
    assert ADAPTER.unit_of(GROUP) == unit
    assert ADAPTER.unit_of(f"{KEY}/launcher.so") == unit
    assert ADAPTER.locate(Config.from_environment().reader) == isolated_env.triton


@pytest.mark.parametrize(
    "key", ["0nEilLcFkgACNS_602cxAc1cxX2KZlbcomEiioVc-iA", "0f" * 32], ids=["triton 3.2", "before triton 3.2"]
)
def test_kernel_of_an_older_triton_is_a_unit(key: str) -> None:
    assert ADAPTER.unit_of(f"{key}/kernel.cubin") == Unit(key, UnitKind.FOLDER)


@pytest.mark.parametrize(
    "path",
    [
        f"{KEY}/deeper/launcher.so",
        f"{KEY}/token",
        "-my_own-folder/kernel.cubin",
        f"{KEY}/x.safetensors",
        KEY,
        f"{KEY}/lock",
        f"{KEY}/tmp.pid_1_ab/kernel.cubin",
        ".b10-lock",
        f"{KEY}/a.tmp",
    ],
)
def test_file_that_is_no_artifact_belongs_to_no_unit(path: str) -> None:
    assert ADAPTER.unit_of(path) is None


@pytest.mark.parametrize(
    ("names", "is_complete"),
    [
        (["launcher.so"], True),
        (["kernel.source"], False),
        (["kernel.ttir"], False),
        (["kernel.source", "kernel.ttir", "kernel.ptx", "kernel.cubin", "kernel.json"], False),
        (["kernel.hsaco"], False),
        (["kernel.cubin", "kernel.json", "__grp__kernel.json"], True),
        (["kernel.json"], True),
        ([], False),
    ],
)
def test_kernel_is_complete_once_its_group_file_is_there(tmp_path: Path, names: list[str], is_complete: bool) -> None:
    files = [f"{KEY}/{name}" for name in names]
    assert ADAPTER.is_complete(tmp_path, Unit(KEY, UnitKind.FOLDER), files) is is_complete


@pytest.mark.parametrize(
    ("names", "written"),
    [
        (["kernel.cubin", "kernel.json", "__grp__kernel.json", "config.json"], 3),
        (["kernel.cubin", "kernel.json", "config.json"], 2),
        (["config.json"], 0),
        (["tokenizer.json", "credentials.json"], 0),
        (["matmul.autotune.json"], 1),
        (["kernel.cubin", "__grp__kernel.json", "matmul.autotune.json", "launcher.so"], 4),
        (["launcher.so"], 1),
    ],
)
def test_file_counts_only_beside_the_others_of_its_kernel(names: list[str], written: int) -> None:
    """A kernel may have any name, and so ``config.json`` is one of its files or somebody else's."""
    assert len(ADAPTER.written(Unit(KEY, UnitKind.FOLDER), [f"{KEY}/{name}" for name in names])) == written


def test_library_beside_what_no_compiler_writes_is_no_helper() -> None:
    assert not ADAPTER.written(Unit("PIL", UnitKind.FOLDER), ["PIL/_imaging.so"], is_mixed=True)


@pytest.mark.parametrize("path", ["__grp__kernel.json", f"{KEY}/__grp__kernel.json", f"{KEY}/__grp__a.b.json"])
def test_group_files_are_rewritten(path: str) -> None:
    assert ADAPTER.is_rewritten(path)


@pytest.mark.parametrize(
    "path", [f"{KEY}/kernel.json", f"{KEY}/__grp__kernel.txt", "__grp__x/kernel.json", f"{KEY}/x__grp__.json"]
)
def test_other_files_are_not_rewritten(path: str) -> None:
    assert not ADAPTER.is_rewritten(path)


def test_group_file_travels_without_paths_of_its_machine(tmp_path: Path) -> None:
    local = group({"kernel.cubin": "/old/machine/cache/KEY/kernel.cubin", "kernel.json": f"/x/{KEY}/kernel.json"})
    portable = ADAPTER.to_portable(ROOT, GROUP, local, FILES)
    assert json.loads(portable) == {"child_paths": {"kernel.cubin": "kernel.cubin", "kernel.json": "kernel.json"}}
    placed = json.loads(ADAPTER.to_local(tmp_path, GROUP, portable))
    assert placed == {
        "child_paths": {
            "kernel.cubin": str(tmp_path / KEY / "kernel.cubin"),
            "kernel.json": str(tmp_path / KEY / "kernel.json"),
        }
    }


NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=20).filter(
    lambda name: name not in (".", "..")
)


@given(st.dictionaries(NAMES, NAMES, min_size=1, max_size=5))
def test_portable_group_file_survives_a_journey(names: dict[str, str]) -> None:
    files = {f"{KEY}/{name}" for name in names.values()}
    portable = ADAPTER.to_portable(ROOT, GROUP, group(names), files)
    there = ADAPTER.to_local(Path("/somewhere/else"), GROUP, portable)
    assert ADAPTER.to_portable(ROOT, GROUP, there, files) == portable
    assert json.loads(there)["child_paths"] == {child: f"/somewhere/else/{KEY}/{name}" for child, name in names.items()}


def test_group_file_that_names_a_missing_file_does_not_travel() -> None:
    missing = group({"kernel.cubin": "/old/kernel.cubin", "kernel.ptx": "/old/kernel.ptx"})
    with pytest.raises(ValueError, match="not beside it"):
        ADAPTER.to_portable(ROOT, GROUP, missing, FILES)


NO_GROUPS = {
    "empty": b"",
    "no JSON": b"\x7fELF",
    "no text": b"\xff\xfe",
    "list": b"[]",
    "text": b'"kernel"',
    "no children": b"{}",
    "more than children": b'{"child_paths": {"a": "kernel.cubin"}, "command": "rm"}',
    "children are a list": b'{"child_paths": ["kernel.cubin"]}',
    "children are none": b'{"child_paths": {}}',
    "null": b'{"child_paths": {"a": null}}',
    "number": b'{"child_paths": {"a": 5}}',
    "object": b'{"child_paths": {"a": {"b": "c"}}}',
    "nested": b"[" * 100_000,
    "nested below": b'{"child_paths":' * 100_000,
    "number too long": b"1" * 10_000,
}


@pytest.mark.parametrize("content", NO_GROUPS.values(), ids=NO_GROUPS)
def test_file_that_is_no_group_is_refused_both_ways(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ValueError):
        ADAPTER.to_portable(ROOT, GROUP, content, FILES)
    with pytest.raises(ValueError):
        ADAPTER.to_local(tmp_path, GROUP, content)


@pytest.mark.parametrize(
    "name", ["", ".", "..", "/etc/passwd", "../other/kernel.cubin", "deeper/kernel.cubin", "./kernel.cubin"]
)
def test_group_file_that_names_files_outside_its_folder_is_not_placed(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="outside its folder"):
        ADAPTER.to_local(tmp_path, GROUP, group({"kernel.cubin": name}))


PUT = """
from triton.runtime.cache import FileCacheManager
cache = FileCacheManager("KEY")
cache.put_group("kernel.json", {name: cache.put(b"content", name) for name in ("kernel.cubin", "kernel.json")})
"""
GET = """
from triton.runtime.cache import FileCacheManager
for path in (FileCacheManager("KEY").get_group("kernel.json") or {}).values():
    print(open(path).read(), path)
"""


@pytest.mark.triton
def test_triton_finds_a_kernel_that_has_moved(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    subprocess.run([sys.executable, "-c", PUT], check=True)
    [path] = [name.name for name in (isolated_env.triton / "KEY").iterdir() if ADAPTER.is_rewritten(name.name)]
    files = {f"KEY/{file.name}" for file in (isolated_env.triton / "KEY").iterdir()}
    portable = ADAPTER.to_portable(ROOT, f"KEY/{path}", (isolated_env.triton / "KEY" / path).read_bytes(), files)
    moved = isolated_env.triton.rename(tmp_path / "moved")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(moved))

    def found() -> str:
        return subprocess.run([sys.executable, "-c", GET], capture_output=True, text=True, check=True).stdout

    assert found() == ""  # this is why the file is rewritten
    (moved / "KEY" / path).write_bytes(ADAPTER.to_local(moved, f"KEY/{path}", portable))
    assert found() == f"content {moved}/KEY/kernel.cubin\ncontent {moved}/KEY/kernel.json\n"
