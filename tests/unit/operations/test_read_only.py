"""A read-only pod: nothing is written to the store, not even a lock."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from b10_transfer import OperationStatus, load, save

if TYPE_CHECKING:
    from tests.conftest import IsolatedEnv, ReadTree


def test_save_of_a_read_only_pod_is_skipped_and_touches_nothing(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    isolated_env.fill(isolated_env.triton, {"KEY/a.so": b"a"})
    monkeypatch.setenv("B10_READ_ONLY", "1")
    report = save()
    assert (report.status, "B10_READ_ONLY" in report.reason) == (OperationStatus.SKIPPED, True)
    assert not isolated_env.store.exists()


def test_load_leaves_the_store_as_it_was(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, read_tree: ReadTree, tmp_path: Path
) -> None:
    isolated_env.fill(isolated_env.triton, {"KEY/a.so": b"a"})
    assert save().status is OperationStatus.SUCCESS

    def state() -> list[tuple[str, int, int]]:
        return [(str(p), p.lstat().st_mtime_ns, p.lstat().st_size) for p in sorted(isolated_env.store.rglob("*"))]

    before = state()
    monkeypatch.setenv("B10_READ_ONLY", "1")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "new"))
    assert load().status is OperationStatus.SUCCESS
    assert state() == before
    assert read_tree(tmp_path / "new") == {"KEY/a.so": b"a"}
