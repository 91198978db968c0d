"""The examples run. Those that need a GPU, weights or a cluster are checked without running."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

EXAMPLES = Path(__file__).parents[2] / "examples"
TRUSSES = sorted(path.parents[1] for path in EXAMPLES.glob("*/model/model.py"))
"""With a model of their own. Those that start a server are checked in tests/unit/test_example_files.py."""

QUICKLY = {"TORCHINDUCTOR_VEC_ISA_OK": "0"}
"""Without vector instructions a kernel compiles in half the time."""

SERVE = """
import importlib.util, json, logging, sys
from torch._dynamo.utils import counters

logging.basicConfig(level=logging.INFO)
spec = importlib.util.spec_from_file_location("model", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
model = module.Model(config={}, secrets={}, data_dir=None)
model.load()
after_load = counters["aot_autograd"].total()
answers = [model.predict({"text": text})["embedding"] for text in ("fox", "a quick fox " * 5, "é" * 200)]
print(json.dumps({
    "answers": answers,
    "compiled_by_requests": counters["aot_autograd"].total() - after_load,
    "fx": [counters["inductor"]["fxgraph_cache_hit"], counters["inductor"]["fxgraph_cache_miss"]],
    "aot": [counters["aot_autograd"]["autograd_cache_hit"], counters["aot_autograd"]["autograd_cache_miss"]],
}))
"""
"""What Truss does with a model.py, and what Torch counted while it did."""


def run_demo(tmp_path: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    environ = os.environ | {"HOME": str(tmp_path), **QUICKLY} | environment
    command = [sys.executable, str(EXAMPLES / "demo.py"), "--layers", "1", *arguments]
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=200)


@pytest.mark.torch
def test_demo_starts_warm(tmp_path: Path) -> None:
    store = tmp_path / "kept" / "store"
    done = run_demo(tmp_path, "--store", str(store))
    assert done.returncode == 0, done.stderr
    times = r"[\d.]+ s +([\d.]+) s"
    cold = re.search(rf"(?m)^ *cold +{times} +saved [1-9]\d* units +1 +0/1 +0/1 *$", done.stdout)
    warm = re.search(rf"(?m)^ *warm +{times} +restored [1-9]\d* units +1 +1/0 +1/0 *$", done.stdout)
    instant = re.search(rf"(?m)^ *instant +{times} +restored [1-9]\d* units +0 +0/0 +0/0 *$", done.stdout)
    assert cold, done.stdout
    assert warm, done.stdout
    assert instant, done.stdout
    assert float(instant[1]) < float(warm[1]) < float(cold[1])
    assert "The outputs are bitwise equal" in done.stdout or "The outputs are equal to within" in done.stdout
    assert f"The store is kept: {store}" in done.stdout
    assert list(store.rglob("*.tar.zst"))
    # No terminal, so no terminal control sequences: plain lines.
    assert "\033" not in done.stdout
    assert "cold replica calls the model for the first time" in done.stdout


@pytest.mark.torch
def test_demo_fails_with_a_sentence_when_there_is_nothing_to_save(tmp_path: Path) -> None:
    done = run_demo(tmp_path, TORCHDYNAMO_DISABLE="1")
    assert done.returncode == 1
    assert "The demo failed: the cold replica did not save (SKIPPED): " in done.stderr
    assert "warm replica" not in done.stdout


@pytest.mark.torch
def test_second_replica_of_the_small_truss_compiles_nothing(tmp_path: Path) -> None:
    def start(name: str) -> tuple[dict[str, Any], str]:
        home = tmp_path / name
        home.mkdir()
        environment = os.environ | config(EXAMPLES / "truss_small")["environment_variables"]
        environment |= {"B10_STORE": str(tmp_path / "store"), "HOME": str(home), "TMPDIR": str(home)}
        environment |= QUICKLY
        environment |= {"TORCHINDUCTOR_CACHE_DIR": str(home / "inductor"), "TRITON_CACHE_DIR": str(home / "triton")}
        command = [sys.executable, "-c", SERVE, str(EXAMPLES / "truss_small" / "model" / "model.py")]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stderr
        outcome: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return outcome, done.stderr

    first, log = start("first")
    assert "compile cache: DOES_NOT_EXIST" in log
    assert first["fx"] == first["aot"] == [0, 2]
    second, log = start("second")
    assert "compile cache: SUCCESS" in log
    assert second["fx"] == second["aot"] == [2, 0]
    # The warm-up covered all shapes that requests come in.
    assert first["compiled_by_requests"] == second["compiled_by_requests"] == 0
    for ours, theirs in zip(first["answers"], second["answers"], strict=True):
        assert ours == pytest.approx(theirs, abs=1e-6)


def config(truss: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((truss / "config.yaml").read_text())
    return loaded


def test_there_are_trusses() -> None:
    assert [truss.name for truss in TRUSSES] == ["truss_flux", "truss_small"]


@pytest.mark.parametrize("truss", TRUSSES, ids=lambda truss: truss.name)
def test_truss_config_is_complete(truss: Path) -> None:
    settings = config(truss)
    assert {"model_name", "python_version", "requirements", "resources", "secrets", "environment_variables"} <= set(
        settings
    )
    assert re.fullmatch(r"py3\d+", settings["python_version"])
    names = [re.split(r"[=<>~!]", requirement)[0] for requirement in settings["requirements"]]
    assert {"torch", "b10-transfer"} <= set(names)
    assert all(isinstance(value, str) for value in settings["environment_variables"].values())
    # A secret's value is never in the file.
    assert all(value is None for value in settings["secrets"].values())


@pytest.mark.parametrize("truss", TRUSSES, ids=lambda truss: truss.name)
def test_truss_model_follows_the_documented_flow(truss: Path) -> None:
    path = truss / "model" / "model.py"
    module = ast.parse(path.read_text(), str(path))
    compile(module, str(path), "exec")
    model = next(node for node in module.body if isinstance(node, ast.ClassDef) and node.name == "Model")
    methods = {node.name: node for node in model.body if isinstance(node, ast.FunctionDef)}
    assert {"__init__", "load", "predict"} <= set(methods)
    calls = [ast.unparse(node) for node in ast.walk(methods["load"]) if isinstance(node, ast.Call | ast.If)]
    assert "load_compile_cache()" in calls
    assert "save_compile_cache()" in calls
    assert not any(call.startswith("if") and "save_compile_cache" in call for call in calls)
