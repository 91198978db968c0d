"""Directories that an operator adds: the same rules as for other caches, and only where the pod's variable points."""

from __future__ import annotations

import pytest

from b10_transfer import OperationStatus, load, save
from tests.conftest import IsolatedEnv, ReadTree

FILES = {"kernel.bin": b"1", "module/a/b.so": b"2", "module/index": b"3"}
LEFT_OUT = {"module/.lock": b"", "x.tmp": b"", "sub/lock": b""}


@pytest.fixture
def saved(isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch) -> IsolatedEnv:
    isolated_env.fill(isolated_env.home / "first", {**FILES, **LEFT_OUT})
    monkeypatch.setenv("B10_EXTRA_CACHES", f"acme={isolated_env.home}/first")
    report = save()
    assert (report.status, report.units) == (OperationStatus.SUCCESS, 2)
    return isolated_env


def test_entries_are_restored_to_the_path_of_the_variable(
    saved: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, read_tree: ReadTree
) -> None:
    monkeypatch.setenv("B10_EXTRA_CACHES", f"other={saved.home}/other, acme={saved.home}/second/")
    assert sorted(load().restored) == ["extra_acme/kernel.bin", "extra_acme/module"]
    assert read_tree(saved.home / "second") == FILES
    assert not (saved.home / "other").exists()


def test_existing_entry_is_not_replaced(
    saved: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, read_tree: ReadTree
) -> None:
    saved.fill(saved.home / "second", {"kernel.bin": b"own"})
    monkeypatch.setenv("B10_EXTRA_CACHES", f"acme={saved.home}/second")
    assert load(merge=True).restored == ("extra_acme/module",)
    assert read_tree(saved.home / "second") == {**FILES, "kernel.bin": b"own"}


@pytest.mark.parametrize("value", ["", "other=/nowhere/at/all"])
def test_pod_without_the_name_restores_nothing(saved: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("B10_EXTRA_CACHES", value)
    assert load().status is OperationStatus.DOES_NOT_EXIST


@pytest.mark.parametrize("place", ["", ".cache", ".ssh"])
def test_directory_of_another_use_is_refused(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    isolated_env.fill(isolated_env.home / place, {"id_rsa": b"secret"})
    monkeypatch.setenv("B10_EXTRA_CACHES", f"acme={isolated_env.home / place}")
    report = save()
    assert report.status is OperationStatus.ERROR
    assert "B10_EXTRA_CACHES" in report.reason


@pytest.mark.parametrize("value", ["acme", "acme=relative", "=/x", "Acme=/x", "acme=/", "a=/x,a=/y", "a=/x,", "a=/x=y"])
def test_wrong_value_is_an_error(isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("B10_EXTRA_CACHES", value)
    for operation in (load, save):
        assert "name=/path" in operation().reason
