"""What a killed compiler has left keeps no unit away, and is not mixed with what is restored."""

from __future__ import annotations

import fcntl
import shutil
from pathlib import Path

import pytest

from b10_transfer import load, save
from tests.conftest import IsolatedEnv, ReadTree
from tests.shapes import INDUCTOR_KEY, KERNEL, TRITON

RANK = "abcd123456/rank_0_0/backbone"
VLLM = {
    f"{RANK}/artifact_x": b"graph",
    f"{RANK}/artifact_y": b"another graph",
    f"{RANK}/vllm_compile_cache.py": b"{(1, 0, 'inductor'): ('k', '/old/%s/artifact_x')}" % RANK.encode(),
}
LIBRARY = {f"dq/{INDUCTOR_KEY}.main.cpp": b"source", f"dq/{INDUCTOR_KEY}.main.so": b"library"}
KERNEL_FILES = {path: data for path, data in TRITON.items() if path.startswith(KERNEL)}


@pytest.fixture
def vllm(isolated_env: IsolatedEnv) -> Path:
    return isolated_env.home / ".cache" / "vllm" / "torch_compile_cache"


@pytest.mark.parametrize(
    "leftovers",
    [
        {},
        {f"{RANK}/artifact_x": b"half"},
        {f"{RANK}/artifact_x": b"half", f"{RANK}/artifact_z": b"of another run"},
        {"abcd123456/rank_0_0/eagle_head/artifact_x": b"half"},
    ],
    ids=["folders alone", "an artifact", "another artifact", "another model"],
)
def test_server_that_was_killed_while_compiling_gets_the_whole_rank(
    isolated_env: IsolatedEnv, vllm: Path, read_tree: ReadTree, leftovers: dict[str, bytes]
) -> None:
    isolated_env.fill(vllm, VLLM)
    assert save().units == 1
    shutil.rmtree(vllm)
    (vllm / RANK).mkdir(parents=True)
    isolated_env.fill(vllm, leftovers)
    assert load().units == 1
    found = read_tree(vllm)
    assert found.keys() == VLLM.keys()
    assert found[f"{RANK}/artifact_x"] == b"graph"
    assert load().units == 0


@pytest.mark.parametrize("merge", [False, True])
def test_half_written_kernel_keeps_no_other_cold(isolated_env: IsolatedEnv, read_tree: ReadTree, merge: bool) -> None:
    isolated_env.fill(isolated_env.triton, TRITON)
    assert save().units == 2
    shutil.rmtree(isolated_env.triton)
    isolated_env.fill(isolated_env.triton, {f"{KERNEL}/kernel.cubin": b"half", f"{KERNEL}/kernel.ttir": b"half"})
    assert load(merge=merge).units == 2
    found = read_tree(isolated_env.triton)
    assert found.keys() == TRITON.keys()
    assert found[f"{KERNEL}/kernel.cubin"] == KERNEL_FILES[f"{KERNEL}/kernel.cubin"]


@pytest.mark.parametrize("half", [{f"dq/{INDUCTOR_KEY}.main.cpp": b"old"}, {f"dq/{INDUCTOR_KEY}.main.so": b""}])
def test_half_written_library_is_replaced_unless_a_process_holds_its_lock(
    isolated_env: IsolatedEnv, read_tree: ReadTree, half: dict[str, bytes]
) -> None:
    root = isolated_env.inductor
    isolated_env.fill(root, LIBRARY)
    assert save().units == 1
    shutil.rmtree(root)
    isolated_env.fill(root, {**half, f"locks/{INDUCTOR_KEY}.lock": b""})
    with open(root / "locks" / f"{INDUCTOR_KEY}.lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert load().units == 0
        assert {path: data for path, data in read_tree(root).items() if "lock" not in path} == half
    assert load().units == 1
    assert {path: data for path, data in read_tree(root).items() if "lock" not in path} == LIBRARY
