"""A model compiled in one process starts warm in another on an "other pod": an empty cache directory elsewhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.torch

PROGRAM = Path(__file__).parent / "programs" / "compile_model.py"
Pod = Callable[..., dict[str, Any]]


@pytest.fixture
def pod(tmp_path: Path) -> Pod:
    """Runs the program as the pod of a given name, each with its own home and cache directories."""

    def run(name: str, *arguments: str) -> dict[str, Any]:
        home = tmp_path / name
        home.mkdir(exist_ok=True)
        environment = os.environ | {
            "B10_STORE": str(tmp_path / "store"),
            "HOME": str(home),
            "TORCHINDUCTOR_CACHE_DIR": str(home / "inductor"),
            "TRITON_CACHE_DIR": str(home / "triton"),
            "LOCAL_WORK_DIR": str(home),
            "TMPDIR": str(home),
            # Without vector instructions a kernel compiles in half the time.
            "TORCHINDUCTOR_VEC_ISA_OK": "0",
        }
        done = subprocess.run(
            [sys.executable, str(PROGRAM), *arguments], env=environment, capture_output=True, text=True, timeout=240
        )
        assert done.returncode == 0, done.stderr
        outcome: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return outcome

    return run


def hits(outcome: dict[str, int]) -> int:
    """Graphs that torch found. A hit of AOTAutograd's cache brings the graph with it, and counts as a hit of the cache
    of FX graphs or not by its kind. Before torch 2.8 AOTAutograd's cache is off."""
    return max(outcome["fxgraph_cache_hit"], outcome["autograd_cache_hit"])


def misses(outcome: dict[str, int]) -> int:
    return max(outcome["fxgraph_cache_miss"], outcome["autograd_cache_miss"])


def assert_warm(outcome: dict[str, Any], graphs: int) -> None:
    assert outcome["loaded"] == "SUCCESS", outcome["reasons"]
    assert (hits(outcome), misses(outcome)) == (graphs, 0)
    assert outcome["built_libraries"] == 0


@pytest.mark.parametrize(("model", "size"), [("transformer", "8"), ("convolutional", "16")])
def test_second_pod_compiles_nothing(pod: Pod, model: str, size: str) -> None:
    cold = pod("first", model, size)
    assert (cold["loaded"], cold["saved"]) == ("DOES_NOT_EXIST", "SUCCESS")
    assert misses(cold) == 1
    assert cold["built_libraries"] > 0
    warm = pod("second", model, size)
    assert_warm(warm, 1)
    assert warm["results"] == cold["results"]
    assert warm["saved"] == "SKIPPED"


def test_two_shapes_that_two_pods_compiled_are_both_there_for_the_next(pod: Pod) -> None:
    first = pod("first", "pointwise", "4")
    assert (first["loaded"], first["saved"]) == ("DOES_NOT_EXIST", "SUCCESS")
    # The second pod restores the first one's artifacts and compiles a new shape: it publishes only that.
    second = pod("second", "pointwise", "4", "9")
    assert second["saved"] == "SUCCESS"
    assert (hits(second), misses(second)) == (1, 1)
    third = pod("third", "pointwise", "4", "9")
    assert_warm(third, 2)
    assert third["results"] == second["results"]
    assert third["results"][:1] == first["results"]
    assert third["saved"] == "SKIPPED"


def test_start_that_restores_only_what_starts_use_compiles_nothing(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest never comes here, so a start that needed it would compile."""
    monkeypatch.setenv("B10_RESTORE_REST", "never")
    cold = pod("first", "pointwise,transformer,convolutional", "8")
    assert cold["saved"] == "SUCCESS"
    assert_warm(pod("second", "pointwise", "8"), 1)  # restores everything, and records what it used
    third = pod("third", "pointwise", "8")
    assert_warm(third, 1)
    assert third["reasons"][0].endswith("stay in the store")
    assert third["results"] == cold["results"][:1]
    # Another model needs some of the rest: it is compiled once, and later starts restore it.
    fourth = pod("fourth", "transformer", "8")
    assert fourth["results"] == cold["results"][1:2]
    assert (fourth["built_libraries"] > 0, fourth["saved"]) == (True, "SKIPPED")
    fifth = pod("fifth", "pointwise,transformer", "8")
    assert_warm(fifth, 2)
    assert fifth["results"] == cold["results"][:2]
