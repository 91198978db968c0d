"""Classes that decide themselves what is one of them: Dynamo asks while it traces, and guards on nothing of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.torch, pytest.mark.timeout(600)]

PROGRAM = Path(__file__).parent / "programs" / "classes.py"
REFUSED = {"by_metaclass", "protocol"}
"""What is compiled anew: what runs the program's own code on an instance."""


def pod(home: Path, store: Path, changed: bool) -> dict[str, Any]:
    home.mkdir()
    environment = os.environ | {
        "B10_STORE": str(store),
        "CHANGED": str(int(changed)),
        "HOME": str(home),
        "TORCHINDUCTOR_CACHE_DIR": str(home / "inductor"),
        "LOCAL_WORK_DIR": str(home),
        "TMPDIR": str(home),
    }
    done = subprocess.run([sys.executable, str(PROGRAM)], env=environment, cwd=home, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-5000:]
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def test_a_class_that_answers_otherwise_is_noticed(tmp_path: Path) -> None:
    store = tmp_path / "store"
    saved, again, changed = (pod(tmp_path / name, store, name == "changed") for name in ("saved", "again", "changed"))
    assert all(case["right"] for told in (saved, again, changed) for case in told.values()), changed
    assert {name for name, case in again.items() if case["traced"]} == REFUSED
