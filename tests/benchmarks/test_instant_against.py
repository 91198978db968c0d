"""The comparison of instant starts with those of another commit."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.instant_against import MEASURES, compare

ROOT = Path(__file__).parents[2]


def times(first_call: float, load: float) -> dict[str, list[float]]:
    return {measure: [value] * 3 for measure, value in zip(MEASURES, (first_call, load, 1.0), strict=True)}


def test_ratios_within_the_limits_pass() -> None:
    lines, is_within = compare({"before": times(0.1, 1.0), "now": times(0.12, 1.3)})
    assert is_within
    assert lines[0] == "first call: 0.100 s before, 0.120 s now, ratio 1.20 (1.20 to 1.20), at most 1.2 allowed"


@pytest.mark.parametrize("now", [times(0.13, 1.0), times(0.1, 1.4)])
def test_a_larger_ratio_fails(now: dict[str, list[float]]) -> None:
    assert not compare({"before": times(0.1, 1.0), "now": now})[1]


@pytest.mark.torch
@pytest.mark.timeout(600)
def test_trees_are_compared_and_the_worktree_is_removed(tmp_path: Path) -> None:
    command = [sys.executable, "benchmarks/instant_against.py", "--against=HEAD", "--pairs=1", "--model=transformer"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode in (0, 1), done.stderr  # one pair beside other tests says nothing about speed
    assert [line.partition(":")[0] for line in done.stdout.splitlines()[1:]] == list(MEASURES)
    worktrees = subprocess.run(["git", "worktree", "list"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "b10-against-" not in worktrees.stdout
