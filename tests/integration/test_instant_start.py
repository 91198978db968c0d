"""A trace goes through a real store: one process saves it, and another restores it and traces nothing."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
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
    assert "not saved" not in done.stderr  # the save has published the trace that it wrote
    return json.loads(done.stdout.splitlines()[-1])


def torch_release() -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", importlib.metadata.version("torch"))[:2])


def test_a_second_process_restores_what_the_first_traced(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    first = start(tmp_path / "first", tmp_path / "store")
    instant, _, right, traced = start(tmp_path / "second", tmp_path / "store")
    record_property("instant start", "passed" if instant == "ready" else "refused, warm start")
    if (2, 13) <= torch_release() < (2, 15):
        assert first == ["ready", "SUCCESS", True, 1]
        assert (instant, right, traced) == ("ready", True, 0)
    else:  # a refusal with the reason, and a warm start
        assert "too old" in instant or "too new" in instant
        assert first == [instant, "SUCCESS", True, 1]
        assert (right, traced) == (True, 1)
