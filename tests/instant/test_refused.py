"""Replicas of a program of which one function has no instant start: what they look up, keep and publish."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.torch, pytest.mark.timeout(1800)]

PROGRAM = Path(__file__).parent / "programs" / "refused.py"


REPLICAS = 10
NOT_KEPT = "instant start: refused: not kept"


def pod(home: Path, store: Path, *, instant: bool = True, shift: float = 1.0, plain: bool = False) -> dict[str, Any]:
    home.mkdir()
    environment = os.environ | {
        "B10_STORE": str(store),
        "B10_INSTANT": str(int(instant)),
        "SHIFT": str(shift),
        "PLAIN": str(int(plain)),
        "HOME": str(home),
        "TORCHINDUCTOR_CACHE_DIR": str(home / "inductor"),
        "LOCAL_WORK_DIR": str(home),
        "TMPDIR": str(home),
        "TORCHINDUCTOR_VEC_ISA_OK": "0",  # without vector instructions a kernel compiles in half the time
    }
    done = subprocess.run([sys.executable, str(PROGRAM)], env=environment, cwd=home, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-5000:]
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert told["right"], done.stderr[-5000:]
    return told | {"log": done.stderr}


def test_process_that_records_finds_what_a_warm_one_finds_and_the_store_does_not_grow(tmp_path: Path) -> None:
    store = tmp_path / "store"
    pod(tmp_path / "cold", store, instant=False)
    recorded = pod(tmp_path / "recorded", store)
    assert (recorded["traced"], recorded["found"], recorded["missed"]) == (2, 2, 0)
    assert NOT_KEPT in recorded["log"]
    packs = sorted(store.rglob("packs/*"))
    with ThreadPoolExecutor(2) as threads:
        replicas = list(threads.map(lambda number: pod(tmp_path / str(number), store), range(REPLICAS)))
    for again in replicas:
        assert (again["traced"], again["found"], again["missed"]) == (1, 1, 0)
        assert again["saved"] == "SKIPPED"
        kept, refused = again["report"]
        assert kept == "kept: instant, 1 of 1 graph used"
        assert refused.startswith("refused: warm, because __bool__ (")
        assert NOT_KEPT not in again["log"]
    assert sorted(store.rglob("packs/*")) == packs


def test_function_is_recorded_again_once_the_code_that_ran_has_changed(tmp_path: Path) -> None:
    """The refused function itself is the same, so its key is the same."""
    store = tmp_path / "store"
    pod(tmp_path / "refused", store)
    changed = pod(tmp_path / "changed", store, shift=2.0)
    assert NOT_KEPT in changed["log"]
    mended = pod(tmp_path / "mended", store, plain=True)
    assert (mended["saved"], NOT_KEPT in mended["log"]) == ("SUCCESS", False)
    again = pod(tmp_path / "again", store, plain=True)
    assert (again["traced"], again["saved"]) == (0, "SKIPPED")
    assert again["report"][1] == "refused: instant, 1 of 1 graph used"
    former = pod(tmp_path / "former", store)
    assert (former["saved"], NOT_KEPT in former["log"]) == ("SKIPPED", False)
