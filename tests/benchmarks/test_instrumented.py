"""The benchmark of a load's steps measures every step."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from benchmarks import instrumented


def test_every_step_of_a_load_has_cpu_time(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    kernel = cache / "triton" / "0" / "KERNEL"
    kernel.mkdir(parents=True)
    (kernel / "kernel.so").write_bytes(os.urandom(1 << 20))
    environment = os.environ | {"B10_STORE": str(tmp_path / "store"), "TRITON_CACHE_DIR": str(tmp_path / "none")}
    for variable in ("HOME", "TMPDIR"):
        environment[variable] = str(tmp_path)

    def run(root: Path, *program: str) -> str:
        variables = environment | {"TORCHINDUCTOR_CACHE_DIR": str(root)}
        return subprocess.run(
            [sys.executable, *program], env=variables, check=True, capture_output=True, text=True
        ).stdout

    run(cache, "-c", "from b10_transfer import save_compile_cache; save_compile_cache()")
    answer = json.loads(run(tmp_path / "restored", instrumented.__file__))
    assert answer["status"] == "SUCCESS"
    assert [step for step in instrumented.STEPS if answer["steps"][step] <= 0] == []
