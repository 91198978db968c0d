"""Several ranks of one pod load at once into one cache directory."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from b10_transfer import OperationStatus, save

from .pods import Pod, kernel, release

if TYPE_CHECKING:
    from ..conftest import IsolatedEnv

KERNELS = 40


@pytest.fixture
def saved(isolated_env: IsolatedEnv) -> IsolatedEnv:
    """A store that holds kernels; this pod's own cache is where they came from."""
    for number in range(KERNELS):
        isolated_env.fill(isolated_env.inductor, kernel(f"KERNEL{number}"))
    assert save().status is OperationStatus.SUCCESS
    return isolated_env


def new_root(saved: IsolatedEnv, junk: bool) -> Path:
    root = saved.home / ".cache" / "new pod"
    if junk:  # what a compiler leaves before it has compiled anything, so that no rename can fill the root at once
        saved.fill(root, {"locks/some.lock": b""})
    return root


@pytest.mark.parametrize("junk", [False, True], ids=["empty root", "root with a lock file"])
def test_one_rank_restores_and_the_others_return_with_everything_in_place(saved: IsolatedEnv, junk: bool) -> None:
    root = new_root(saved, junk)
    outcomes = release(Pod("load", {"TORCHINDUCTOR_CACHE_DIR": str(root)}) for _ in range(8))
    assert Counter(outcome["status"] for outcome in outcomes) == {"SUCCESS": 1, "SKIPPED": 7}, outcomes
    # Each counted for itself, when its own call returned.
    assert {outcome["files"] for outcome in outcomes} == {KERNELS * 8 + junk}


@pytest.mark.parametrize("junk", [False, True], ids=["empty root", "root with a lock file"])
@pytest.mark.parametrize("merge", [False, True])
def test_without_locks_ranks_repeat_work_but_the_cache_is_as_whole(saved: IsolatedEnv, junk: bool, merge: bool) -> None:
    root = new_root(saved, junk)
    variables = {"TORCHINDUCTOR_CACHE_DIR": str(root), "B10_LOCKS": "0"}
    outcomes = release(Pod("load", variables, merge=merge) for _ in range(8))
    assert {outcome["status"] for outcome in outcomes} <= {"SUCCESS", "SKIPPED"}, outcomes
    assert sum(outcome["units"] for outcome in outcomes) == KERNELS
    for number in range(KERNELS):
        for path, content in kernel(f"KERNEL{number}").items():
            assert (root / path).read_bytes() == content


def test_nothing_is_left_beside_the_root(saved: IsolatedEnv) -> None:
    root = new_root(saved, junk=True)
    release(Pod("load", {"TORCHINDUCTOR_CACHE_DIR": str(root)}, merge=True) for _ in range(4))
    assert [path.name for path in root.parent.iterdir() if "staging" in path.name] == []


def test_rank_that_was_killed_leaves_nothing_that_keeps_others_from_loading(saved: IsolatedEnv) -> None:
    root = new_root(saved, junk=False)
    for round_ in range(8):
        victim = Pod("load", {"TORCHINDUCTOR_CACHE_DIR": str(root)}, merge=True)
        victim.kill_after(0.04 + 0.02 * round_)
    (outcome,) = release([Pod("load", {"TORCHINDUCTOR_CACHE_DIR": str(root)}, merge=True)])
    assert outcome["status"] in ("SUCCESS", "SKIPPED")
    assert outcome["files"] == KERNELS * 8
    assert [path.name for path in root.parent.iterdir() if "staging" in path.name] == []
