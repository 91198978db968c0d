"""A Triton cache that is restored elsewhere hits, although Triton keeps absolute paths in it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.triton
pytest.importorskip("triton", reason="Triton has no wheels for this machine")

PROGRAM = Path(__file__).parent / "programs" / "compile_kernels.py"


def compile_in(cache: Path, store: Path) -> dict[str, Any]:
    """Run the program with a Triton cache of its own: what it loaded, which of its kernels hit, what it saved."""
    environment = os.environ | {
        "B10_STORE": str(store),
        "TRITON_CACHE_DIR": str(cache),
        "TORCHINDUCTOR_CACHE_DIR": str(cache.parent / "inductor"),
        "TMPDIR": str(store.parent),
        "LOCAL_WORK_DIR": str(store.parent),
        "TRITON_DEFAULT_FP_FUSION": "1",
    }
    done = subprocess.run([sys.executable, str(PROGRAM)], env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    outcome: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return outcome


def test_kernels_hit_in_another_directory_when_the_first_is_gone(tmp_path: Path) -> None:
    store = tmp_path / "store"
    first, second, copied = tmp_path / "first", tmp_path / "second", tmp_path / "copied"
    assert compile_in(first, store) == {"loaded": "DOES_NOT_EXIST", "saved": "SUCCESS", "hits": [False, False]}
    shutil.copytree(first, copied)
    shutil.rmtree(first)
    assert compile_in(second, store) == {"loaded": "SUCCESS", "saved": "SKIPPED", "hits": [True, True]}
    # Why it takes more than copying: the same files, copied, are of no use.
    assert compile_in(copied, tmp_path / "another store")["hits"] == [False, False]
