"""A trace goes through a real store: one process saves it, and another restores it and traces nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.torch

PROGRAM = """
import json
import torch
from b10_transfer import load, save

def model(x):
    return x * 2 + 1

loaded = load(instant=True)
x = torch.arange(4.0)
with torch.no_grad():
    found = torch.compile(model)(x)
saved = save()
traced = torch._dynamo.utils.counters["stats"]["unique_graphs"]
print(json.dumps([loaded.instant, saved.status.name, bool(torch.equal(found, model(x))), traced]))
"""


def start(home: Path, store: Path) -> Any:
    home.mkdir()
    program = home.parent / "program.py"
    program.write_text(PROGRAM)
    variables = {name: str(home) for name in ("HOME", "TMPDIR", "LOCAL_WORK_DIR")}
    places = {"B10_STORE": str(store), "TORCHINDUCTOR_CACHE_DIR": str(home / "inductor")}
    environment = os.environ | variables | places
    done = subprocess.run([sys.executable, str(program)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_second_process_restores_what_the_first_traced(tmp_path: Path) -> None:
    assert start(tmp_path / "first", tmp_path / "store") == ["ready", "SUCCESS", True, 1]
    instant, _, right, traced = start(tmp_path / "second", tmp_path / "store")
    assert (instant, right, traced) == ("ready", True, 0)
