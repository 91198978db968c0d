"""Why a restore was probably not used."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from b10_transfer.launcher.explanation import places_that_differ, why_unused
from b10_transfer.local.usage import CacheReport, CacheUse

if TYPE_CHECKING:
    from tests.conftest import IsolatedEnv

REPORT = CacheReport((CacheUse("triton", "/c", 2, 0, 0),), warning="what the report says")


@pytest.fixture(autouse=True)
def here(isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of a cache is set: an imported torch, for one, sets TORCHINDUCTOR_CACHE_DIR."""
    for name in ("TMPDIR", "TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/root")


def test_variable_that_differs_is_named_with_both_values() -> None:
    reason = why_unused(REPORT, {"HOME": "/home/user", "TMPDIR": "/t"})
    assert "HOME is /root here and /home/user there; TMPDIR is not set here and /t there" in reason


def test_without_the_servers_environment_the_report_speaks() -> None:
    assert why_unused(REPORT, {}) == "what the report says"


def test_server_that_compiled_where_we_look_keeps_its_caches_there() -> None:
    compiled = CacheReport((CacheUse("triton", "/c", 2, 0, 1),), warning="what the report says")
    assert why_unused(compiled, {"HOME": "/home/user"}) == "what the report says"


def test_variables_that_say_nothing_of_places_may_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", "/t")
    server = {"HOME": "/root", "TRITON_CACHE_DIR": "/t", "ANYTHING": "else"}
    assert places_that_differ(server) == []
