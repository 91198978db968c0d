"""Models of diffusers, transformers, peft and torch: cold, warm and instant, each replica with the code elsewhere."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("diffusers", reason="it runs in the environment of `make test-frameworks`")

pytestmark = [pytest.mark.torch, pytest.mark.timeout(1800)]

PROGRAM = Path(__file__).parent / "programs" / "models.py"
PACKAGES = ("diffusers", "transformers", "peft")
CASES = (
    *("flux", "flux_module", "flux_blocks", "flux_sizes", "vae"),
    *("llama", "llama_generate", "lora", "vit", "encoder", "flex"),
)


def replica(case: str, home: Path, store: Path, instant: bool) -> dict[str, Any]:
    """One process, with a folder of its own for its program, its packages and its caches."""
    (home / "packages").mkdir(parents=True)
    program = shutil.copy(PROGRAM, home)
    for package in PACKAGES:
        spec = importlib.util.find_spec(package)
        assert spec is not None
        assert spec.origin is not None
        (home / "packages" / package).symlink_to(Path(spec.origin).parent)
    environment = os.environ | {
        "B10_STORE": str(store),
        "B10_INSTANT": str(int(instant)),
        "PYTHONPATH": str(home / "packages"),
        "HOME": str(home),
        "TMPDIR": str(home),
        "TORCHINDUCTOR_CACHE_DIR": str(home / "inductor"),
        "LOCAL_WORK_DIR": str(home),
        "HF_HUB_OFFLINE": "1",
    }
    if case != "flex":  # on a CPU it needs vector instructions
        environment["TORCHINDUCTOR_VEC_ISA_OK"] = "0"  # without them a kernel compiles in half the time
    command = [sys.executable, program, case]
    done = subprocess.run(command, env=environment, cwd=home, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-5000:]
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told | {"log": done.stderr}


@pytest.mark.parametrize("case", CASES)
def test_model_starts_instantly_with_the_result_of_its_warm_start(case: str, tmp_path: Path) -> None:
    store = tmp_path / "store"
    cold = replica(case, tmp_path / "cold", store, instant=True)
    warm = replica(case, tmp_path / "warm", store, instant=False)
    instant = replica(case, tmp_path / "instant", store, instant=True)
    assert cold["traced"] == warm["traced"] > 0
    assert (warm["hits"] > 0, warm["misses"]) == (True, 0)
    assert (instant["instant"], instant["traced"], instant["misses"]) == ("ready", 0, 0), instant["log"][-5000:]
    assert instant["digests"] == warm["digests"] == cold["digests"]
    assert instant["saved"] == "SKIPPED"
    assert instant["report"]
    for line in instant["report"]:
        assert re.fullmatch(r"\w+(\.\w+)?: instant, (\d+) of \2 graphs? used", line), line
