"""An instant start unpickles traces: it reads none that this load did not restore to a private cache."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from b10_transfer import OperationStatus, instant, load, save

if TYPE_CHECKING:
    from tests.conftest import IsolatedEnv

TRACE = f"dynamo/{'a' * 64}/entry"


@pytest.fixture
def read(isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Path]:
    """The files of traces that an instant start is given. The store holds one trace."""
    monkeypatch.setenv("B10_CACHES", "inductor")
    cache = isolated_env.inductor
    isolated_env.fill(cache, {TRACE: b"honest"})
    assert save().status is OperationStatus.SUCCESS
    cache.rename(tmp_path / "saved")
    found: list[Path] = []

    def prepare(files: list[Path], _deadline: object) -> str:
        found.extend(files)
        return ""

    monkeypatch.setattr(instant, "prepare", prepare)
    return found


def test_restored_trace_is_read(isolated_env: IsolatedEnv, read: list[Path]) -> None:
    assert load(instant=True).status is OperationStatus.SUCCESS
    assert read == [isolated_env.inductor / TRACE]


def test_trace_that_lay_in_the_cache_is_not_read(isolated_env: IsolatedEnv, read: list[Path]) -> None:
    isolated_env.fill(isolated_env.inductor, {TRACE: b"hostile"})
    assert load(instant=True).status is OperationStatus.SKIPPED
    assert load(instant=True, merge=True).status is OperationStatus.SKIPPED
    assert read == []


def test_trace_in_a_cache_that_is_refused_is_not_read(isolated_env: IsolatedEnv, read: list[Path]) -> None:
    isolated_env.fill(isolated_env.inductor, {TRACE: b"hostile"})
    isolated_env.inductor.chmod(0o777)
    for merge in (False, True):
        assert load(instant=True, merge=merge).status is not OperationStatus.SUCCESS
    assert read == []


def test_trace_is_not_read_once_every_user_can_write_to_its_cache(
    isolated_env: IsolatedEnv, read: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cache was private during the restore, and is not when the instant start begins."""
    from b10_transfer.operations import instant_start

    restored = instant_start._restored_traces

    def after_a_change(*arguments: object) -> list[Path]:
        isolated_env.inductor.chmod(0o777)
        return restored(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(instant_start, "_restored_traces", after_a_change)
    assert load(instant=True).status is OperationStatus.SUCCESS
    assert read == []
