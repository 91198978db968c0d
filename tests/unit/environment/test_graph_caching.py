"""Settings that keep torch from using restored artifacts."""

from __future__ import annotations

import logging
import sys
from types import ModuleType

import pytest

from b10_transfer import load
from b10_transfer.environment.frameworks import TorchBuild
from b10_transfer.environment.graph_caching import reason_off
from tests.command import command
from tests.conftest import IsolatedEnv

VARIABLES = ("VLLM_DISABLE_COMPILE_CACHE", "TORCHINDUCTOR_FX_GRAPH_CACHE", "TORCHINDUCTOR_FORCE_DISABLE_CACHES")


@pytest.fixture(autouse=True)
def _torch_is_not_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide a torch that another test of this process has imported."""
    monkeypatch.delitem(sys.modules, "torch._inductor.config", raising=False)


@pytest.mark.parametrize(
    ("torch", "environ", "is_off"),
    [
        ("2.4.1", {}, True),
        ("2.4.1+cu121", {}, True),
        ("2.3.0", {}, True),
        ("2.4.1", {"TORCHINDUCTOR_FX_GRAPH_CACHE": "1"}, False),
        ("2.5.0", {}, False),
        ("2.13.0", {}, False),
        ("10.0", {}, False),
        ("", {}, False),
        ("nonsense", {}, False),
        ("2.13.0", {"TORCHINDUCTOR_FX_GRAPH_CACHE": "0"}, True),
        ("2.13.0", {"TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1"}, True),
        ("2.13.0", {"VLLM_DISABLE_COMPILE_CACHE": "1"}, True),
        ("2.13.0", {"VLLM_DISABLE_COMPILE_CACHE": "0"}, False),
    ],
)
def test_caching_that_is_off_is_named(torch: str, environ: dict[str, str], is_off: bool) -> None:
    seen, advice = reason_off(torch, environ)
    assert (bool(seen), bool(advice)) == (is_off, is_off)


def test_program_that_switched_it_on_itself_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("torch._inductor.config")
    module.fx_graph_cache = True  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch._inductor.config", module)
    assert reason_off("2.4.1", {}) == ("", "")


def test_it_is_one_warning_of_a_process_and_shown_by_the_commands(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delitem(sys.modules, "torch._inductor.config", raising=False)
    monkeypatch.setattr(sys.modules["b10_transfer.environment.detect"], "torch_build", lambda: TorchBuild("2.4.1"))
    load()
    load()
    [record] = [record for record in caplog.records if "caches no compiled graphs" in record.getMessage()]
    assert record.levelno == logging.WARNING
    assert "TORCHINDUCTOR_FX_GRAPH_CACHE=1" in record.getMessage()
    for name in ("info", "explain", "doctor"):
        assert "torch 2.4.1 caches no compiled graphs by default" in command(name).stdout
