"""Replicas of a program of which one function has no instant start: what they look up, keep and publish."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.torch, pytest.mark.timeout(600)]

PROGRAM = Path(__file__).parent / "programs" / "refused.py"


def pod(home: Path, store: Path, *, instant: bool = True, shift: float = 1.0) -> dict[str, Any]:
    home.mkdir()
    environment = os.environ | {
        "B10_STORE": str(store),
        "B10_INSTANT": str(int(instant)),
        "SHIFT": str(shift),
        "HOME": str(home),
        "TORCHINDUCTOR_CACHE_DIR": str(home / "inductor"),
        "LOCAL_WORK_DIR": str(home),
        "TMPDIR": str(home),
    }
    done = subprocess.run([sys.executable, str(PROGRAM)], env=environment, cwd=home, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-5000:]
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert told["right"], done.stderr[-5000:]
    return told


def test_process_that_records_finds_what_a_warm_one_finds_and_the_store_does_not_grow(tmp_path: Path) -> None:
    store = tmp_path / "store"
    pod(tmp_path / "cold", store, instant=False)
    recorded = pod(tmp_path / "recorded", store)
    assert (recorded["traced"], recorded["found"], recorded["missed"]) == (2, 2, 0)
    packs = sorted(store.rglob("packs/*"))
    for name in ("second", "third"):
        again = pod(tmp_path / name, store)
        assert (again["traced"], again["found"], again["missed"]) == (1, 1, 0)
        assert again["saved"] == "SKIPPED"
        kept, refused = again["report"]
        assert kept == "kept: instant, 1 of 1 graph used"
        assert refused.startswith("refused: warm, because __bool__ (")
    assert sorted(store.rglob("packs/*")) == packs
