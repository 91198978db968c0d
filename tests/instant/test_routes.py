"""Every route to a constant, by kind of constant and place of the frame: unchanged, changed, and changed in place.

Each step is one process for half of the kinds. ``B10_INSTANT_PYTHON`` names another Python with torch and the project.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.torch, pytest.mark.timeout(900)]

PROGRAMS = Path(__file__).parent / "programs"
PYTHON = os.environ.get("B10_INSTANT_PYTHON", sys.executable)
HALVES = (
    ("float", "int", "zero", "str", "dtype", "class"),
    ("bool", "bool_or_int", "none", "tuple", "device", "function"),
)
PAIRS = 400


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("routes")
    subprocess.run([PYTHON, str(PROGRAMS / "generate.py"), str(folder / "modules")], check=True)
    return folder


def run(
    shared: Path,
    step: str,
    *arguments: str,
    edition: int = 0,
    instant: bool = True,
    parts: Sequence[Sequence[str]] = HALVES,
) -> dict[str, Any]:
    """The outcome of each case of one step, with a process for each part of the kinds."""

    def pod(number: int) -> dict[str, Any]:
        home = shared / f"{step}-{number}"
        home.mkdir()
        environment = os.environ | {
            "B10_STORE": str(shared / f"store-{number}"),
            "B10_INSTANT": str(int(instant)),
            "B10_TEST_EDITION": str(edition),
            "HOME": str(home),
            "TORCHINDUCTOR_CACHE_DIR": str(home / "inductor"),
            "TRITON_CACHE_DIR": str(home / "triton"),
            "LOCAL_WORK_DIR": str(home),
            "TMPDIR": str(home),
        }
        kinds = ",".join(parts[number])
        command = [PYTHON, str(PROGRAMS / "routes.py"), str(shared / "modules"), f"--kinds={kinds}", *arguments]
        done = subprocess.run(command, env=environment, cwd=home, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-5000:]
        told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        assert told["instant"] == ("ready" if instant else ""), done.stderr[-5000:]
        (shared / f"{step}-{number}.log").write_text(done.stderr)
        cases: dict[str, Any] = told["cases"]
        return cases

    with ThreadPoolExecutor() as pool:
        return {name: case for cases in pool.map(pod, range(len(parts))) for name, case in cases.items()}


def wrong(cases: dict[str, Any], what: str = "right") -> dict[str, Any]:
    return {name: case for name, case in cases.items() if not case.get(what)}


@pytest.fixture(scope="module")
def saved(shared: Path) -> dict[str, Any]:
    return run(shared, "save", "--save")


@pytest.fixture(scope="module")
def restored(shared: Path, saved: dict[str, Any]) -> dict[str, Any]:
    """A process with the same constants, which then exchanges each in place."""
    return run(shared, "restore", "--change")


@pytest.fixture(scope="module")
def changed(shared: Path, saved: dict[str, Any]) -> dict[str, Any]:
    """A process with other constants."""
    return run(shared, "changed", edition=1)


def test_a_process_that_records_computes_what_eager_computes(saved: dict[str, Any]) -> None:
    assert len(saved) >= PAIRS
    assert not wrong(saved)


def test_unchanged_constants_are_restored_without_tracing(restored: dict[str, Any]) -> None:
    assert not wrong(restored)
    assert {name for name, case in restored.items() if case["traced"]} == set()


def test_a_constant_that_changes_in_place_after_a_restore_is_noticed_if_dynamo_notices_it(
    shared: Path, restored: dict[str, Any]
) -> None:
    """It does not guard on static methods of objects that a frame makes, nor tell 0.0 from -0.0 before torch 2.15."""
    missed = wrong(restored, "right_after_change")
    plain = run(shared, "plain", "--change", instant=False, parts=[["zero", "function"]])
    assert missed.keys() <= wrong(plain, "right_after_change").keys()


def test_a_changed_constant_never_gives_the_old_result(changed: dict[str, Any]) -> None:
    assert not wrong(changed)


def test_the_log_names_the_constant_that_changed(shared: Path, changed: dict[str, Any]) -> None:
    assert "S.SCALE was 2.0, is 3.0" in (shared / "changed-0.log").read_text()
