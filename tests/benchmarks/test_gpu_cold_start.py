"""The GPU benchmark runs on a CPU with a tiny model; its large model has the shapes of FLUX.1."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks.flux import PARTS, build
from benchmarks.results import Results, read

pytest.importorskip("diffusers")
pytestmark = pytest.mark.torch

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "gpu_cold_start.py"


@pytest.mark.timeout(900)  # half a minute on two cores that have nothing else to do
def test_restored_start_of_the_tiny_model_compiles_nothing_and_has_the_cold_output(tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    options = ["--size=tiny", "--starts", "restored", "--quick", "--budget-seconds=800"]
    # Without vector instructions a kernel compiles in half the time.
    environ = os.environ | {"TORCHINDUCTOR_VEC_ISA_OK": "0", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, str(PROGRAM), *options, f"--results={file}"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    results = read(file)
    for part in PARTS:
        assert len(values(results, "cold", part, "first call")) == 1
        assert len(values(results, "restored", part, "first call")) == 1
        for cache in ("FX graph", "AOTAutograd"):
            assert values(results, "cold", part, f"{cache} misses") == (1,)
            assert values(results, "restored", part, f"{cache} misses") == (0,)
            assert values(results, "restored", part, f"{cache} hits") == (1,)
        assert values(results, "restored", part, "C++ libraries built") == (0,)
        assert values(results, "restored", part, "difference") == (0,)
        assert len(values(results, "restored", part, "step")) == 1
        skipped = [row for row in results.rows if row.labels.get("start") == "mega-cache" and row.why_not]
        assert {row.why_not for row in skipped} == {"not requested (--starts)"}
    restored = results.find(start="restored", what="files restored")
    saved = results.find(start="cold", what="files saved")
    assert restored and saved
    # A load does not count the precompiled header and the file beside it: it restores them after it has returned.
    assert restored.values == (saved.values[0] - 2,)
    assert "open" in results.notes


def values(results: Results, start: str, part: str, what: str) -> tuple[float, ...]:
    row = results.find(start=start, part=part, what=what)
    assert row, f"{start}, {part}: no {what}"
    return row.values


def test_missing_packages_are_listed_before_anything_is_measured(tmp_path: Path) -> None:
    # Without site-packages nothing is installed.
    command = [sys.executable, "-S", "-E", str(PROGRAM), "--results", str(tmp_path / "results.json")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith(
        "Missing here: torch>=2.11, zstandard, nvidia-ml-py, diffusers, b10-transfer itself ("
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("part", "parameters", "shape"),
    [("transformer", 11_891_178_560, (1, 4096, 64)), ("decoder", 49_545_475, (1, 3, 1024, 1024))],
)
def test_true_configuration_has_the_published_parameters_and_shapes(
    part: str, parameters: int, shape: tuple[int, ...]
) -> None:
    with FakeTensorMode(), torch.no_grad():  # needs no memory
        module, arguments = build(f"flux flux {part}", torch.device("cpu"), torch.bfloat16)
        result = module(**arguments)
    output = result[0] if isinstance(result, tuple) else result
    assert sum(parameter.numel() for parameter in module.parameters()) == parameters
    assert tuple(output.shape) == shape
    assert output.dtype == torch.bfloat16
