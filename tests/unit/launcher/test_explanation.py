"""Why a restore was probably not used."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from b10_transfer.adapters import cache_roots
from b10_transfer.config import Config
from b10_transfer.environment.frameworks import TorchBuild
from b10_transfer.errors import LocalCacheError
from b10_transfer.launcher import explanation
from b10_transfer.launcher.explanation import places_that_differ, why_nothing_was_saved, why_unused
from b10_transfer.local.usage import CacheReport, CacheUse

if TYPE_CHECKING:
    from tests.conftest import IsolatedEnv

REPORT = CacheReport((CacheUse("triton", "/c", 2, 0, 0),), warning="what the report says")


@pytest.fixture(autouse=True)
def here(isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of a cache is set: an imported torch, for one, sets TORCHINDUCTOR_CACHE_DIR."""
    monkeypatch.delitem(sys.modules, "torch._inductor.config", raising=False)
    for name in ("TMPDIR", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/this")


def test_variable_that_differs_is_named_with_both_values() -> None:
    reason = why_unused(REPORT, {"HOME": "/home/user", "TMPDIR": "/t"})
    assert "HOME is /home/this here and /home/user there; TMPDIR is not set here and /t there" in reason


def test_without_the_servers_environment_the_report_speaks() -> None:
    assert why_unused(REPORT, {}) == "what the report says"


def test_setting_that_turns_caches_off_is_the_reason() -> None:
    server = {"VLLM_DISABLE_COMPILE_CACHE": "1"}
    assert why_unused(REPORT, server).startswith("what the report says. VLLM_DISABLE_COMPILE_CACHE=1: vLLM uses no")


def test_server_that_compiled_where_we_look_keeps_its_caches_there() -> None:
    compiled = CacheReport((CacheUse("triton", "/c", 2, 0, 1),), warning="what the report says")
    assert why_unused(compiled, {"HOME": "/home/user"}) == "what the report says"


def test_variables_that_say_nothing_of_places_may_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", "/t")
    server = {"HOME": "/home/this", "TRITON_CACHE_DIR": "/t", "ANYTHING": "else"}
    assert places_that_differ(server) == []


def test_variable_of_extra_caches_may_differ_because_no_compiler_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("B10_EXTRA_CACHES", "mine=/mine")
    assert places_that_differ({"HOME": "/home/this"}) == []


# A cold server that leaves nothing in the store


@pytest.mark.parametrize(
    ("torch", "server", "words"),
    [
        ("2.13.0", {}, "vLLM: --enforce-eager"),
        ("2.13.0", {"HOME": "/home/user"}, "HOME is /home/this here and /home/user there"),
        ("2.4.1", {}, "Set TORCHINDUCTOR_FX_GRAPH_CACHE=1"),
        ("2.13.0", {"HOME": "/home/this", "TORCHINDUCTOR_FX_GRAPH_CACHE": "0"}, "TORCHINDUCTOR_FX_GRAPH_CACHE=0"),
    ],
)
def test_cold_server_that_saved_nothing_gets_a_reason(
    monkeypatch: pytest.MonkeyPatch, torch: str, server: dict[str, str], words: str
) -> None:
    monkeypatch.setattr(explanation, "torch_build", lambda: TorchBuild(torch))
    roots = cache_roots(Config.from_environment())
    reason = why_nothing_was_saved(roots, {}, server)
    assert len(roots) > 20
    assert reason.startswith(f"nothing was restored and nothing was saved: {len(roots)} cache directories got no")
    assert words in reason


def test_cache_that_could_not_be_read_is_the_reason() -> None:
    """Its error was logged when the cache was left out, and is not repeated."""
    failed = {"triton": LocalCacheError("list", "/cache", "Permission denied")}
    reason = why_nothing_was_saved([], failed, {})
    assert reason.endswith("and the cache triton is left out, as logged above")
    assert why_nothing_was_saved([], {**failed, "cuda": failed["triton"]}, {}).endswith(
        "and 2 caches are left out, as logged above"
    )
