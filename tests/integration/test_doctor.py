"""``doctor`` finds no problem in a sound pod, with whichever torch is installed."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.torch


def test_a_sound_pod_has_no_problem(tmp_path: Path) -> None:
    environment = os.environ | {name: str(tmp_path) for name in ("HOME", "TMPDIR", "LOCAL_WORK_DIR")}
    command = [sys.executable, "-m", "b10_transfer", "doctor", "--json", "--store", str(tmp_path / "store")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout
    diagnosis = json.loads(done.stdout)
    assert [check for check in diagnosis["checks"] if check["state"] == "PROBLEM"] == []
    seen = [check["seen"] for check in diagnosis["checks"] if check["name"] == "key"]
    assert any(f"torch {importlib.metadata.version('torch')}" in line for line in seen)
