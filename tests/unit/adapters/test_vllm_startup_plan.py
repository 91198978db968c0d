"""vLLM's start-up plans: numbers that travel only together with artifacts, and only if they are plausible."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from b10_transfer import OperationStatus, load, save
from b10_transfer.adapters.vllm_startup_plan import VllmStartupPlanAdapter
from tests.shapes import PLAN, STARTUP_PLAN, TRITON

if TYPE_CHECKING:
    from tests.conftest import IsolatedEnv

PATH = f"startup_plan_{PLAN}.json"
ADAPTER = VllmStartupPlanAdapter()
CONTENT = json.loads(STARTUP_PLAN)


def test_plan_travels_with_artifacts(isolated_env: IsolatedEnv) -> None:
    folder = isolated_env.home / ".cache" / "vllm" / "startup_plan"
    isolated_env.fill(folder, {PATH: STARTUP_PLAN, f"{PATH}.tmp.17": b"half"})
    assert save().status is OperationStatus.SKIPPED
    isolated_env.fill(isolated_env.triton, TRITON)
    assert save().units == 3
    shutil.rmtree(folder)
    shutil.rmtree(isolated_env.triton)
    assert load().units == 3
    assert [(path.name, path.read_bytes()) for path in folder.iterdir()] == [(PATH, STARTUP_PLAN)]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{}",
        b'{"schema": 1',
        b"[" * 100_000,
        json.dumps({**CONTENT, "fingerprint": "0" * 16}).encode(),
        json.dumps({**CONTENT, "kv_cache_memory_bytes": "57403864576"}).encode(),
        json.dumps({**CONTENT, "kv_cache_memory_bytes": -1}).encode(),
        json.dumps({**CONTENT, "kv_cache_memory_bytes": True}).encode(),
        json.dumps({**CONTENT, "free_memory_baseline": 1.5}).encode(),
        json.dumps({**CONTENT, "token": "secret"}).encode(),
    ],
)
def test_other_content_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match="not a start-up plan"):
        ADAPTER.to_portable(Path("/c"), PATH, content, [PATH])
    with pytest.raises(ValueError, match="not a start-up plan"):
        ADAPTER.to_local(Path("/c"), PATH, content)


@pytest.mark.parametrize("path", ["token", "startup_plan_x.json", f"a/{PATH}", f"{PATH}.tmp.17", f"{PATH}.bak"])
def test_other_files_are_no_artifacts(path: str) -> None:
    assert ADAPTER.unit_of(path) is None
