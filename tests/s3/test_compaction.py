"""Packs of a bucket are merged and pruned: a load gets the same before, meanwhile and after."""

from __future__ import annotations

import shutil

import pytest

from b10_transfer import OperationStatus, load, save

from ..command import command
from ..concurrency.test_savers import assert_whole, replica, save_all, union_of
from ..conftest import IsolatedEnv, ReadTree
from .conftest import Bucket
from .test_round_trip import incompressible

PACKS = 5


def kernel(number: int) -> dict[str, bytes]:
    return {f"KEY{number}/kernel.so": incompressible(100_000, number), f"KEY{number}/other.so": b"%d" % number}


@pytest.fixture
def saved(isolated_env: IsolatedEnv, bucket: Bucket) -> dict[str, bytes]:
    """The files that some saves have left in the bucket, each in a pack of its own."""
    files: dict[str, bytes] = {}
    for number in range(PACKS):
        files |= kernel(number)
        isolated_env.fill(isolated_env.triton, kernel(number))
        assert save().status is OperationStatus.SUCCESS
    assert len(bucket.packs()) == PACKS
    return files


def load_anew(env: IsolatedEnv, read_tree: ReadTree) -> dict[str, bytes]:
    """What a replica gets that starts with nothing."""
    shutil.rmtree(env.triton, ignore_errors=True)
    report = load()
    assert (report.status, report.rejected_packs) == (OperationStatus.SUCCESS, ())
    return read_tree(env.triton)


def deleted() -> list[str]:
    answer = command("prune", "--grace", "0", "--yes", "--json")
    assert answer.exit_code == 0, answer.stderr
    return [pack["action"] for pack in answer.json["packs"]]


def test_save_merges_many_packs_and_prune_deletes_what_was_merged(
    isolated_env: IsolatedEnv,
    bucket: Bucket,
    saved: dict[str, bytes],
    read_tree: ReadTree,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("B10_MAX_PACKS", "3")
    isolated_env.fill(isolated_env.triton, kernel(PACKS))
    assert save().status is OperationStatus.SUCCESS
    everything = saved | kernel(PACKS)
    assert len(bucket.packs()) == PACKS + 2, "all that were merged stay for the period of grace, beside the new one"
    assert load_anew(isolated_env, read_tree) == everything
    assert deleted() == ["delete"] * (PACKS + 1)
    assert len(bucket.packs()) == 1
    assert bucket.leases() == []
    assert load_anew(isolated_env, read_tree) == everything
    assert command("verify").exit_code == 0


def test_pruned_packs_are_absent_at_once_and_deleted_later(
    isolated_env: IsolatedEnv, bucket: Bucket, saved: dict[str, bytes], read_tree: ReadTree
) -> None:
    assert command("prune", "--keep", "2", "--yes").exit_code == 0
    kept = kernel(PACKS - 2) | kernel(PACKS - 1)
    assert len(bucket.packs()) == PACKS
    assert load_anew(isolated_env, read_tree) == kept
    assert deleted() == ["delete"] * (PACKS - 2)
    assert len(bucket.packs()) == 2
    assert [name for name in bucket.objects() if "/quarantine/" in name] == []
    assert load_anew(isolated_env, read_tree) == kept


def test_replicas_that_save_and_merge_at_once_lose_nothing(
    isolated_env: IsolatedEnv, bucket: Bucket, monkeypatch: pytest.MonkeyPatch, read_tree: ReadTree
) -> None:
    """Without locks: several merge the same packs, and a merged pack is merged again."""
    names = [f"KERNEL{number}" for number in range(12)]
    for start in range(0, len(names), 4):
        roots = [replica(isolated_env, number, [names[number]]) for number in range(start, start + 4)]
        assert set(save_all(roots, B10_MAX_PACKS="2", B10_LOCKS="0")) == {"SUCCESS"}
    assert len(set(deleted())) == 1
    assert len(bucket.packs()) < len(names)
    assert_whole(union_of(isolated_env, monkeypatch, read_tree), names)
