"""Inductor's cache: which of its files are artifacts, how they group, and when a compiler is done with them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from b10_transfer.adapters.base import Unit, UnitKind, is_transient
from b10_transfer.adapters.inductor import InductorAdapter, default_inductor_dir
from b10_transfer.adapters.triton import TritonAdapter
from b10_transfer.config import Config

if TYPE_CHECKING:
    from tests.conftest import FillTree, IsolatedEnv

ADAPTER = InductorAdapter()
ROOT = Path("/cache")
SYSTEM = "0a" * 32
FLYDSL = f"gemm_{SYSTEM}/0123456789abcdef.pkl"
KEY = "cdq7vqhv5vfe4bcrkgejqo5o4m2sxhbvdyxmehbbr4qrmnbjqwup"
GRAPH = "fgi4kywmxnyl2sgkfr6cnhm3z25hdyfqoh3mfpjxytdmzwu7p6rj"
KERNEL = "XJFWKQ3VTWVPYS5VZ4ABTYTRMO2QF4D3RU6VLZ4QYV6MRPFVXQ3A"


def stem(path: str) -> Unit:
    return Unit(path, UnitKind.STEM)


def folder(path: str) -> Unit:
    return Unit(path, UnitKind.FOLDER)


@pytest.mark.parametrize(
    ("path", "unit"),
    [
        (f"dq/{KEY}.py", stem(f"dq/{KEY}")),
        (f"dq/{KEY}.main.cpp", stem(f"dq/{KEY}")),
        (f"dq/{KEY}.main.so", stem(f"dq/{KEY}")),
        (f"dq/{KEY}.best_config", stem(f"dq/{KEY}")),
        (f"dq/{KEY}.so.load_ok", stem(f"dq/{KEY}")),
        (f"dq/{KEY}.picked_kernel", stem(f"dq/{KEY}")),
        (f"fxgraph/gi/{GRAPH}/{KEY}", folder(f"fxgraph/gi/{GRAPH}")),
        (f"aotautograd/{KEY}/entry", folder(f"aotautograd/{KEY}")),
        (f"triton/0/{KERNEL}/kernel.cubin", folder(f"triton/0/{KERNEL}")),
        (f"triton/0/{KERNEL}/__grp__kernel.json", folder(f"triton/0/{KERNEL}")),
        (f"triton/12/{KERNEL}/kernel.cubin", folder(f"triton/12/{KERNEL}")),
        (f"triton/{KERNEL}/kernel.cubin", folder(f"triton/{KERNEL}")),
        (f"cache/{SYSTEM}", stem(f"cache/{SYSTEM}")),
        (f"cutedsl_compile_cache/{SYSTEM}.o", stem(f"cutedsl_compile_cache/{SYSTEM}.o")),
        (f"flydsl_compile_cache/{FLYDSL}", stem(f"flydsl_compile_cache/{FLYDSL}")),
        (f"triton/mine/{KERNEL}/kernel.cubin", folder(f"triton/mine/{KERNEL}")),
        ("dynamo/code_state_job_1.pkl", stem("dynamo/code_state_job_1.pkl")),
        (f"dynamo/{'0a' * 32}/{'1b' * 16}", stem(f"dynamo/{'0a' * 32}/{'1b' * 16}")),  # of an instant start
        (f"dynamo/{SYSTEM}/entry", stem(f"dynamo/{SYSTEM}/entry")),
    ],
)
def test_file_belongs_to_its_unit(path: str, unit: Unit) -> None:
    assert ADAPTER.unit_of(path) == unit


@pytest.mark.parametrize(
    "path",
    [
        f"dq/{KEY}",
        f"dq/{KEY}.json",
        f"dq/{KEY}.bin",
        f"xx/{KEY}.py",
        "job/credentials.json",
        "my/job.py",
        f"fxgraph/gi/{GRAPH}/token",
        f"fxgraph/xx/{GRAPH}/{KEY}",
        "cache/token",
        "dynamo/notes.pkl",
        f"triton/0/{KERNEL}/kernel.safetensors",
        f"triton/0/deeper/{KERNEL}/kernel.cubin",
        f"locks/{KEY}.lock",
        "locks/anything",
        "precompiled_headers/header.h.gch",
        "precompiled_headers/xx/header.h.gch",
        "gcc/x",
        "bisect/x",
        f"dq/{KEY}_CxxBuild/main.o",
        f"dq/.{KEY}.tmp",
        "dq/.1234.140245.tmp",
        f"dq/{KEY}.py.1234.tmp",
        f"dq/{KEY}.lock",
        f"fxgraph/gi/{GRAPH}/.1234.140245.tmp",
        f"fxgraph/gi/{GRAPH}",
        f"aotautograd/{KEY}",
        f"triton/0/{KERNEL}",
        f"triton/0/{KERNEL}/tmp.pid_1234_ab/kernel.cubin",
        f"triton/0/{KERNEL}/lock",
        "dq/__pycache__/module.pyc",
        "dq/.nfs000000000123",
        "dq/.hidden.py",
        ".b10-lock",
        ".b10-staging-0123/dq/key.py",
    ],
)
def test_file_that_is_no_artifact_belongs_to_no_unit(path: str) -> None:
    assert ADAPTER.unit_of(path) is None


@pytest.mark.parametrize(
    "name",
    ["lock", "a.lock", "a.tmp", ".1.2.tmp", "tmp.pid_1_x", "tmp.x", ".nfs00ab", ".b10-x", "__pycache__"],
)
def test_transient_name_is_recognised_wherever_it_is_in_a_path(name: str) -> None:
    for path in (name, f"a/{name}", f"{name}/b", f"a/{name}/b"):
        assert is_transient(path)


@pytest.mark.parametrize(
    "name", ["locks", "a.locked", "lock.py", "tmp", "atmp.x", "a.tmpx", ".nfs", "x.nfs00", ".b10", "ab10-x"]
)
def test_name_that_only_resembles_a_transient_one_is_none(name: str) -> None:
    for path in (name, f"a/{name}", f"{name}/b", f"a/{name}/b"):
        assert not is_transient(path)


NAMES = st.one_of(
    st.sampled_from(
        ["aa", "triton", "0", "7", "fxgraph", "aotautograd", "locks", "x_CxxBuild", "cache", KEY, "tmp", "a.b.c"]
    ),
    st.text("ab0._-", min_size=1, max_size=5).filter(lambda name: name not in (".", "..")),
)
PATHS = st.lists(NAMES, min_size=1, max_size=6).map("/".join)


@given(PATHS)
@example("ey/key.main.so")
@example("triton/0/x/y")
def test_unit_holds_the_file_it_was_found_by(path: str) -> None:
    unit = ADAPTER.unit_of(path)
    if unit is None:
        return
    if unit.kind is UnitKind.FOLDER:
        assert path.startswith(f"{unit.path}/")
    else:
        assert path == unit.path or path.startswith(f"{unit.path}.")
        assert "/" not in path[len(unit.path) :]


@given(PATHS, NAMES)
def test_folder_that_is_skipped_holds_no_artifact(path: str, name: str) -> None:
    if ADAPTER.skips_folder(path):
        assert ADAPTER.unit_of(f"{path}/{name}") is None


@given(PATHS, NAMES)
def test_folders_of_artifacts_are_looked_into(path: str, name: str) -> None:
    if ADAPTER.unit_of(f"{path}/{name}") is not None:
        parts = path.split("/")
        assert not any(ADAPTER.skips_folder("/".join(parts[:depth])) for depth in range(1, len(parts) + 1))


def test_root_is_the_configured_directory(isolated_env: IsolatedEnv) -> None:
    assert ADAPTER.locate(Config.from_environment().reader) == isolated_env.inductor


@pytest.mark.parametrize(
    ("ends", "is_complete"),
    [
        ([".py"], True),
        ([".py", ".best_config"], True),
        ([".main.cpp"], False),
        ([".main.cpp", ".main.so"], True),
        ([".main.cpp", ".main.o"], True),
        ([".main.so"], True),
        ([], False),
    ],
)
def test_source_is_complete_once_its_library_is_there(tmp_path: Path, ends: list[str], is_complete: bool) -> None:
    files = [f"dq/{KEY}{end}" for end in ends]
    assert ADAPTER.is_complete(tmp_path, stem(f"dq/{KEY}"), files) is is_complete


def test_kernel_folder_is_complete_once_triton_says_so(tmp_path: Path) -> None:
    unit = folder(f"triton/0/{KERNEL}")
    files = [f"{unit.path}/kernel.cubin", f"{unit.path}/kernel.json"]
    assert not ADAPTER.is_complete(tmp_path, unit, files)
    assert ADAPTER.is_complete(tmp_path, unit, [*files, f"{unit.path}/__grp__kernel.json"])


def test_graph_folder_is_complete_as_it_is(tmp_path: Path) -> None:
    assert ADAPTER.is_complete(tmp_path, folder(f"fxgraph/gi/{GRAPH}"), [f"fxgraph/gi/{GRAPH}/entry"])


HOLD = """
import sys
from torch.utils._filelock import FileLock
with FileLock(sys.argv[1], timeout=60):
    print("held", flush=True)
    sys.stdin.readline()
print("released", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def compiler(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds torch's lock of ``KEY`` until it is written a line, and ends at the next."""
    lock = tmp_path / "locks" / f"{KEY}.lock"
    lock.parent.mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, lock], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


@pytest.mark.torch
def test_library_is_incomplete_while_torch_holds_its_lock(tmp_path: Path, compiler: subprocess.Popen[str]) -> None:
    library = [f"dq/{KEY}.main.cpp", f"dq/{KEY}.main.so"]
    assert compiler.stdout is not None
    assert compiler.stdin is not None
    assert compiler.stdout.readline() == "held\n"
    assert not ADAPTER.is_complete(tmp_path, stem(f"dq/{KEY}"), library)
    assert ADAPTER.is_complete(tmp_path, stem(f"dq/{KEY}"), [f"dq/{KEY}.py"])
    assert ADAPTER.is_complete(tmp_path, stem("dq/other"), ["dq/other.main.so"])
    compiler.stdin.write("\n")
    compiler.stdin.flush()
    assert compiler.stdout.readline() == "released\n"
    assert ADAPTER.is_complete(tmp_path, stem(f"dq/{KEY}"), library)


def test_library_without_a_lock_file_is_complete_and_none_is_made(tmp_path: Path) -> None:
    assert ADAPTER.is_complete(tmp_path, stem(f"dq/{KEY}"), [f"dq/{KEY}.main.so"])
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("other", "is_covered"),
    [
        (".", False),
        ("triton/mine", True),
        ("triton", True),
        ("triton/0", True),
        ("triton/0/deeper", False),
        ("tritons", False),
        ("elsewhere", False),
        ("..", False),
    ],
)
def test_triton_cache_is_covered_where_inductor_puts_it(tmp_path: Path, other: str, is_covered: bool) -> None:
    root = tmp_path / "inductor"
    assert ADAPTER.covers(str(root), os.path.normpath(root / other), TritonAdapter()) is is_covered


def test_group_files_are_rewritten_below_triton_alone() -> None:
    assert ADAPTER.is_rewritten(f"triton/0/{KERNEL}/__grp__kernel.json")
    assert not ADAPTER.is_rewritten(f"triton/0/{KERNEL}/kernel.json")
    assert not ADAPTER.is_rewritten("dq/__grp__kernel.json")


def test_group_file_passes_through_tritons_adapter(tmp_path: Path, fill: FillTree) -> None:
    path = f"triton/0/{KERNEL}/__grp__kernel.json"
    portable = b'{"child_paths": {"kernel.cubin": "kernel.cubin"}}'
    local = ADAPTER.to_local(tmp_path, path, portable)
    assert str(tmp_path / "triton" / "0" / KERNEL / "kernel.cubin").encode() in local
    assert ADAPTER.to_portable(ROOT, path, local, {f"triton/0/{KERNEL}/kernel.cubin"}) == portable


@pytest.mark.torch
def test_default_directory_is_torchs_own(tmp_path: Path) -> None:
    # The file by its path: importing torch._inductor takes as long again as importing torch.
    file = 'f"{torch.__path__[0]}/_inductor/runtime/cache_dir_utils.py"'
    program = f'import runpy, torch; print(runpy.run_path({file})["default_cache_dir"]())'
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout == f"{default_inductor_dir()}\n"
