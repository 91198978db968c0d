"""Real kernels for sm_90 are restored on a pod with another CPU, and no library and no graph is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.triton
pytest.importorskip("triton", reason="Triton has no wheels for this machine")

ROOT = Path(__file__).parents[2]
FEATURES = "fpu sse2 avx avx2 fma"


class Pod:
    """A pod with a CPU of its own and empty caches."""

    def __init__(self, place: Path, store: Path, features: str) -> None:
        place.mkdir()
        self.inductor = place / "inductor"
        self._cpuinfo = place / "cpuinfo"
        self._cpuinfo.write_text(f"processor\t: 0\nflags\t\t: {features}\n")
        self._store = store

    def run(self, *, graph: bool = False) -> dict[str, Any]:
        environment = os.environ | {
            "B10_STORE": str(self._store),
            "CPUINFO": str(self._cpuinfo),
            "GRAPH": "1" if graph else "0",
            "TORCHINDUCTOR_CACHE_DIR": str(self.inductor),
            "TRITON_CACHE_DIR": str(self.inductor / "triton" / "0"),
            "TORCHINDUCTOR_COMPILE_THREADS": "1",
            "TMPDIR": str(self._store.parent),
            "LOCAL_WORK_DIR": str(self._store.parent),
        }
        done = subprocess.run(
            [sys.executable, "-m", "tests.integration.programs.compile_on_another_cpu"],
            env=environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert done.returncode == 0, done.stderr
        outcome: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return outcome

    def has_code_for_the_cpu(self) -> bool:
        kernels = self.inductor / "triton"
        return any(file.is_file() and kernels not in file.parents for file in self.inductor.rglob("*"))


def test_kernels_hit_behind_a_cpu_with_fewer_and_with_more_features(tmp_path: Path) -> None:
    store = tmp_path / "store"
    first = Pod(tmp_path / "first", store, FEATURES)
    saved = first.run(graph=True)
    assert (saved["loaded"], saved["hits"]) == ("DOES_NOT_EXIST", [False, False])
    assert first.has_code_for_the_cpu()
    assert list(first.inductor.rglob("*.so"))
    known = {saved["environment"]}
    for name, features in (("fewer", "fpu sse2"), ("more", f"{FEATURES} avx512f")):
        pod = Pod(tmp_path / name, store, features)
        found = pod.run()
        assert found["loaded"] == "SUCCESS"
        assert known.issuperset(found["siblings"])
        assert found["siblings"]
        assert found["hits"] == [True, True]
        assert all(unit.startswith("inductor/triton/0/") for unit in found["restored"])
        assert not pod.has_code_for_the_cpu()
        assert found["saved"] == len(found["restored"]) == 2, "everything is published for this CPU, too"
        known.add(found["environment"])
