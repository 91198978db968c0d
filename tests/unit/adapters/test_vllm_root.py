"""VLLM_CACHE_ROOT, as vLLM computes it."""

from __future__ import annotations

from pathlib import Path

import pytest

from b10_transfer.adapters.vllm_root import vllm_cache_root
from b10_transfer.config import Config
from tests.conftest import IsolatedEnv


def test_root_follows_vllms_variables(isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    def located() -> Path:
        return vllm_cache_root(Config.from_environment().reader)

    assert located() == isolated_env.home / ".cache" / "vllm"
    monkeypatch.setenv("XDG_CACHE_HOME", "~/caches")
    assert located() == isolated_env.home / "caches" / "vllm"
    monkeypatch.setenv("VLLM_CACHE_ROOT", "~/elsewhere")
    assert located() == isolated_env.home / "elsewhere"
