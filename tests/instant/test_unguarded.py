"""What Dynamo reads or runs while it traces, and guards on nothing of: classes that answer, methods, kernels."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zlib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.torch, pytest.mark.timeout(600)]

PROGRAMS = Path(__file__).parent / "programs"
REFUSED = {
    "arbitrary": {
        *("hash_of_text", "hash_of_tuple", "hash_of_object", "hash_by_method"),
        *("set_iterated", "set_called", "set_listed", "set_unpacked", "set_given", "set_extends", "set_joined"),
        *("address_in_repr", "address_in_format"),
    },
    "answers": {"reads_a_global", "calls_what_it_holds", "reads_its_default", "is_marked"},
    "classes": {"by_metaclass", "protocol"},
    "unguarded": {
        *("enum_bool", "enum_format", "enum_missing"),
        *("kernel_fake", "kernel_composite", "kernel_meta", "kernel_triton", "kernel_allowed"),
    },
}
"""What is compiled anew: what runs the program's own code while it is traced, or differs between processes."""
OF_CODE = {"documentation", "function_name"}
"""torch 2.15 takes a function's name and docstring from its code, although the function may have others."""
WRONG_IN_TORCH = OF_CODE if tuple(map(int, version("torch").split(".")[:2])) >= (2, 15) else set()


def pod(program: str, home: Path, store: Path, changed: bool, instant: bool = True) -> dict[str, Any]:
    home.mkdir()
    environment = os.environ | {
        "B10_STORE": str(store),
        "B10_INSTANT": str(int(instant)),
        "CHANGED": str(int(changed)),
        "PYTHONHASHSEED": str(zlib.crc32(home.name.encode())),
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


def wrong(told: dict[str, Any]) -> set[str]:
    return {name for name, case in told.items() if not case["right"]}


@pytest.mark.parametrize("program", REFUSED)
def test_what_no_guard_compares_is_noticed(program: str, tmp_path: Path) -> None:
    store = tmp_path / "store"
    saved, again, changed = (
        pod(program, tmp_path / name, store, name == "changed") for name in ("saved", "again", "changed")
    )
    allowed = WRONG_IN_TORCH & again.keys()
    if allowed:
        plain = pod(program, tmp_path / "plain", tmp_path / "no store", changed=True, instant=False)
        assert wrong(plain) == allowed
    assert [wrong(told) for told in (saved, again, changed)] == [set(), set(), allowed]
    assert {name for name, case in again.items() if case["traced"]} == REFUSED[program]
