"""What a report says where nothing was done: it names the directories that matter, of the many that there could be."""

from __future__ import annotations

from typing import Any

import pytest

from b10_transfer import OperationStatus, load, save
from tests.conftest import IsolatedEnv

KERNEL = {"KEY/launcher.so": b"machine code"}
GRAPH = {"fxgraph/ab/fabkey/graph": b"a graph"}


@pytest.fixture(autouse=True)
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("b10_transfer.stores.worker.client.is_local", lambda _path: True)


def test_save_without_any_cache_names_none(isolated_env: IsolatedEnv) -> None:
    assert save().reason == "none of the 39 directories exists that compilers keep their caches in"


def test_save_of_chosen_caches_names_those(isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("B10_CACHES", "triton,inductor")
    assert save().reason == f"there is no {isolated_env.inductor} and {isolated_env.triton}"


def test_save_of_empty_caches_names_those_that_are_there(isolated_env: IsolatedEnv) -> None:
    isolated_env.inductor.mkdir(parents=True)
    isolated_env.triton.mkdir(parents=True)
    expected = f"there are no finished compile artifacts in {isolated_env.inductor} and {isolated_env.triton}"
    assert save().reason == expected


def test_nothing_is_done_where_no_cache_is_chosen(isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("B10_CACHES", "cuda")
    monkeypatch.setenv("CUDA_CACHE_PATH", "/cache/elsewhere")
    for report in (load(), save()):
        assert (report.status, report.reason) == (
            OperationStatus.SKIPPED,
            "B10_CACHES leaves no cache that can be used where it is",
        )


def test_load_names_the_caches_that_are_in_use_and_stored(isolated_env: IsolatedEnv) -> None:
    isolated_env.fill(isolated_env.inductor, GRAPH)
    assert save().status is OperationStatus.SUCCESS
    isolated_env.fill(isolated_env.triton, KERNEL)
    report = load()
    expected = f"{isolated_env.inductor} already holds compile artifacts"
    assert (report.status, report.reason) == (OperationStatus.SKIPPED, expected)


def test_load_into_chosen_caches_that_are_in_use_names_them(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("B10_CACHES", "inductor,triton")
    isolated_env.fill(isolated_env.inductor, GRAPH)
    isolated_env.fill(isolated_env.triton, KERNEL)
    report = load()
    expected = f"{isolated_env.inductor} and {isolated_env.triton} already hold compile artifacts"
    assert (report.status, report.reason) == (OperationStatus.SKIPPED, expected)


def test_load_that_merges_says_that_nothing_is_missing(isolated_env: IsolatedEnv) -> None:
    isolated_env.fill(isolated_env.inductor, GRAPH)
    save()
    assert load(merge=True).reason == "all that the store holds is already in place"


def test_load_restores_one_cache_beside_another_that_is_in_use(isolated_env: IsolatedEnv) -> None:
    isolated_env.fill(isolated_env.triton, KERNEL)
    isolated_env.fill(isolated_env.inductor, GRAPH)
    save()
    (isolated_env.triton / "KEY" / "launcher.so").unlink()
    report = load()
    expected = f"restored to {isolated_env.triton}"
    assert (report.status, report.reason) == (OperationStatus.SUCCESS, expected)


def test_unreadable_home_is_one_warning(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import os

    lstat = os.lstat

    def refuse(path: str, **options: Any) -> os.stat_result:
        if str(path).startswith(f"{isolated_env.home}/"):
            raise PermissionError(13, "Permission denied", path)
        return lstat(path, **options)

    monkeypatch.setattr(os, "lstat", refuse)
    load()
    [warning] = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "Permission denied" in warning
    assert "more cache directories likewise)" in warning


def test_only_cache_that_is_chosen_and_cannot_be_saved_where_it_is_is_named(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("B10_CACHES", "cuda")
    monkeypatch.setenv("CUDA_CACHE_PATH", "/var/cache/cuda")
    assert save().reason == "B10_CACHES leaves no cache that can be used where it is"
    [warning] = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert "CUDA_CACHE_PATH=/var/cache/cuda" in warning
