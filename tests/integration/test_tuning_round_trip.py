"""Inductor's own cache of tuning results reads what two pods tuned and a third restored."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from b10_transfer import load, save
from tests.conftest import IsolatedEnv

PROGRAM = """
import json, sys
from torch._inductor.codecache import LocalCache, PersistentCache

class Choice:
    def __init__(self, name):
        self.name = name
    def hash_key(self):
        return self.name

choices = [Choice("triton_mm_0"), Choice("extern_mm")]
timings = {choice: float(number + 1) for number, choice in enumerate(choices)}
for shape in sys.argv[2:]:
    tune = (lambda _: timings) if sys.argv[1] == "tune" else None
    found = PersistentCache().lookup(choices, "mm", shape, tune)
    print(json.dumps({shape: {choice.name: seconds for choice, seconds in found.items()}}))
"""


def run(root: Path, *arguments: str) -> dict[str, dict[str, float]]:
    environ = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(root)}
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments], env=environ, capture_output=True, text=True, check=True
    )
    found: dict[str, dict[str, float]] = {}
    for line in result.stdout.splitlines():
        found |= json.loads(line)
    return found


@pytest.mark.torch
def test_inductor_finds_what_two_pods_tuned(isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    caches = isolated_env.home / ".cache"
    tuned: dict[str, dict[str, float]] = {}
    for shape in ("64x512", "64x768"):
        tuned |= run(caches / shape, "tune", shape)
        monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(caches / shape))
        save()
    assert all(tuned.values())
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(caches / "third"))
    assert load().units == 1
    assert run(caches / "third", "read", *tuned) == tuned
    assert run(caches / "empty", "read", *tuned) == {shape: {} for shape in tuned}
