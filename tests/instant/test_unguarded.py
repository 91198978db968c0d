"""What Dynamo reads or runs while it traces, and guards on nothing of: classes that answer, methods, kernels."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.torch, pytest.mark.timeout(600)]

PROGRAMS = Path(__file__).parent / "programs"
REFUSED = {
    "answers": {"reads_a_global", "calls_what_it_holds", "reads_its_default", "is_marked"},
    "classes": {"by_metaclass", "protocol"},
    "unguarded": {
        *("enum_bool", "enum_format", "enum_missing"),
        *("kernel_fake", "kernel_composite", "kernel_meta", "kernel_triton", "kernel_allowed"),
    },
}
"""What is compiled anew: what runs the program's own code while it is traced."""


def pod(program: str, home: Path, store: Path, changed: bool) -> dict[str, Any]:
    home.mkdir()
    environment = os.environ | {
        "B10_STORE": str(store),
        "CHANGED": str(int(changed)),
        "HOME": str(home),
        "TORCHINDUCTOR_CACHE_DIR": str(home / "inductor"),
        "LOCAL_WORK_DIR": str(home),
        "TMPDIR": str(home),
    }
    command = [sys.executable, str(PROGRAMS / f"{program}.py")]
    done = subprocess.run(command, env=environment, cwd=home, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-5000:]
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


@pytest.mark.parametrize("program", REFUSED)
def test_what_no_guard_compares_is_noticed(program: str, tmp_path: Path) -> None:
    store = tmp_path / "store"
    saved, again, changed = (
        pod(program, tmp_path / name, store, name == "changed") for name in ("saved", "again", "changed")
    )
    wrong = [{name for name, case in told.items() if not case["right"]} for told in (saved, again, changed)]
    assert wrong == [set(), set(), set()]
    assert {name for name, case in again.items() if case["traced"]} == REFUSED[program]
