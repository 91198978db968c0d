"""Many models and many changes, each in real pairs of processes that share nothing but the store, against eager."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.torch, pytest.mark.timeout(600)]

PROGRAMS = Path(__file__).parent / "programs"
Pod = Callable[..., dict[str, Any]]

COMPILED_ANEW = {
    # A graph with a backward is handed over by torch when the backward has run.
    "grad",
    # Guards on a tensor depend on the mode in which they are restored; no_grad is served.
    "inference",
    "eager backend",
    "reduce-overhead",
    # A hook that is made anew in each process has no name.
    "hooks",
}
"""What a second process traces again although nothing has changed."""
if tuple(map(int, version("torch").split(".")[:2])) >= (2, 14):
    # The frame resumes behind torch.get_num_threads(), and the trace of the rest is not kept.
    COMPILED_ANEW.add("threads")


@pytest.fixture(scope="module")
def pod(tmp_path_factory: pytest.TempPathFactory) -> Pod:
    """Runs the matrix as the pod of a given name, in a directory, home and caches of its own."""
    shared = tmp_path_factory.mktemp("instant")

    def run(name: str, *arguments: str, programs: Path = PROGRAMS, **variables: str) -> dict[str, Any]:
        home = shared / name
        home.mkdir()
        environment = os.environ | {
            "B10_STORE": str(shared / "store"),
            "B10_INSTANT": "1",
            "HOME": str(home),
            "TORCHINDUCTOR_CACHE_DIR": str(home / "inductor"),
            "TRITON_CACHE_DIR": str(home / "triton"),
            "LOCAL_WORK_DIR": str(home),
            "TMPDIR": str(home),
        }
        command = [sys.executable, str(programs / "matrix.py"), *arguments]
        done = subprocess.run(command, env=environment | variables, cwd=home, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        told["log"] = done.stderr
        return told

    return run


@pytest.fixture(scope="module")
def saved(pod: Pod) -> dict[str, Any]:
    """What the first pod, which compiled everything, told."""
    return pod("first")


@pytest.fixture(scope="module")
def again(pod: Pod, saved: dict[str, Any]) -> dict[str, Any]:
    return pod("second")


def assert_right(told: dict[str, Any]) -> None:
    wrong = {name: case for name, case in told["cases"].items() if "error" in case or any(case["apart"])}
    assert not wrong, told["log"]


def test_a_process_that_records_computes_what_eager_computes(saved: dict[str, Any]) -> None:
    assert (saved["instant"], saved["saved"]) == ("ready", "SUCCESS")
    assert_right(saved)


def test_a_second_process_computes_what_eager_computes(again: dict[str, Any]) -> None:
    assert_right(again)


def test_a_second_process_traces_nothing(again: dict[str, Any]) -> None:
    traced = {name for name, case in again["cases"].items() if case["traced"]}
    assert traced <= COMPILED_ANEW, again["log"]


def test_a_warm_start_finds_every_graph_that_an_instant_one_saved(pod: Pod, saved: dict[str, Any]) -> None:
    told = pod("warm", "mlp", "graph breaks", "dynamic", "block", B10_INSTANT="0")
    assert_right(told)
    found = {name: (case["graphs_found"] > 0, case["graphs_missed"]) for name, case in told["cases"].items()}
    assert found == dict.fromkeys(told["cases"], (True, 0))


def test_whatever_has_changed_is_computed_as_eager_computes_it(pod: Pod, again: dict[str, Any]) -> None:
    assert_right(pod("changed", "--changed"))


def test_changed_source_other_scripts_and_threads_are_noticed(pod: Pod, again: dict[str, Any], tmp_path: Path) -> None:
    programs = tmp_path / "elsewhere"
    shutil.copytree(PROGRAMS, programs)
    models = programs / "models.py"
    models.write_text("# Moved down by a line.\n" + models.read_text().replace("x * 3.0", "x * 4.0"))
    told = pod("third", "mlp", "helper", "threads", "graph breaks", "--threads", "2", programs=programs)
    assert_right(told)
    assert told["cases"]["helper"]["traced"] == 1
    assert told["cases"]["threads"]["traced"] == 1
    assert "models.helper has changed" in told["log"]
