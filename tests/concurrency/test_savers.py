"""Several replicas save at once, with leases and without: both times nothing is lost."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from b10_transfer import OperationStatus, load
from b10_transfer.repository.use import today

from .pods import Pod, kernel, packs, release

if TYPE_CHECKING:
    from ..conftest import IsolatedEnv, ReadTree

REPLICAS = 8


def replica(env: IsolatedEnv, number: int, kernels: list[str]) -> Path:
    """A replica's own cache, which holds the given kernels as it compiled them itself."""
    root = env.home / ".cache" / f"replica{number}"
    for name in kernels:
        env.fill(root, kernel(name, content=f"compiled by {number}"))
    return root


def save_all(roots: list[Path], **variables: str) -> list[str]:
    pods = [Pod("save", {"TORCHINDUCTOR_CACHE_DIR": str(root)} | variables) for root in roots]
    return [outcome["status"] for outcome in release(pods)]


def union_of(env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, read_tree: ReadTree) -> dict[str, bytes]:
    root = env.home / ".cache" / "late"
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(root))
    assert load().status is OperationStatus.SUCCESS
    return read_tree(root)


def assert_whole(tree: dict[str, bytes], names: list[str]) -> None:
    """Every kernel is there, and all its files are of one replica."""
    for name in names:
        writers = {tree[path].split()[3] for path in kernel(name)}
        assert len(writers) == 1, f"{name} is a mixture of {writers}"


def test_replicas_that_compiled_the_same_publish_one_pack(isolated_env: IsolatedEnv) -> None:
    roots = [replica(isolated_env, number, ["A", "B", "C"]) for number in range(REPLICAS)]
    statuses = Counter(save_all(roots))
    assert statuses == {"SUCCESS": 1, "SKIPPED": REPLICAS - 1}
    assert len(packs(isolated_env.store)) == 1


@pytest.mark.parametrize("locks", ["1", "0"])
def test_replicas_that_compiled_different_things_all_contribute(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, read_tree: ReadTree, locks: str
) -> None:
    names = [["SHARED", f"OWN{number}"] for number in range(REPLICAS)]
    roots = [replica(isolated_env, number, names[number]) for number in range(REPLICAS)]
    assert set(save_all(roots, B10_LOCKS=locks)) == {"SUCCESS"}
    tree = union_of(isolated_env, monkeypatch, read_tree)
    assert_whole(tree, ["SHARED", *(name for pair in names for name in pair)])


def test_without_leases_replicas_repeat_work_but_nothing_is_lost(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, read_tree: ReadTree
) -> None:
    roots = [replica(isolated_env, number, ["A", "B", "C"]) for number in range(REPLICAS)]
    assert set(save_all(roots, B10_LOCKS="0")) <= {"SUCCESS", "SKIPPED"}
    assert_whole(union_of(isolated_env, monkeypatch, read_tree), ["A", "B", "C"])


def test_savers_beyond_the_limit_wait_for_their_turn(isolated_env: IsolatedEnv) -> None:
    roots = [replica(isolated_env, number, [f"OWN{number}"]) for number in range(REPLICAS)]
    assert set(save_all(roots, MAX_CONCURRENT_SAVES="1")) == {"SUCCESS"}
    assert len(packs(isolated_env.store)) == REPLICAS


def test_savers_leave_neither_leases_nor_staging_files(isolated_env: IsolatedEnv) -> None:
    roots = [replica(isolated_env, number, ["SHARED", f"OWN{number}"]) for number in range(REPLICAS)]
    save_all(roots)
    left = [path for path in isolated_env.store.rglob("*") if path.is_file()]
    assert {path.name for path in left if path.parent.name != "packs"} == {"environment.json", today()}


def test_saver_that_was_killed_delays_others_but_loses_nothing(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, read_tree: ReadTree
) -> None:
    names = [f"KERNEL{number}" for number in range(60)]
    root = replica(isolated_env, 0, names)
    for round_ in range(8):
        victim = Pod("save", {"TORCHINDUCTOR_CACHE_DIR": str(root), "CLEANUP_LOCK_TIMEOUT_SECONDS": "1"})
        victim.kill_after(0.04 + 0.02 * round_)
    (outcome,) = release([Pod("save", {"TORCHINDUCTOR_CACHE_DIR": str(root), "CLEANUP_LOCK_TIMEOUT_SECONDS": "1"})])
    assert outcome["status"] in ("SUCCESS", "SKIPPED")
    assert_whole(union_of(isolated_env, monkeypatch, read_tree), names)
