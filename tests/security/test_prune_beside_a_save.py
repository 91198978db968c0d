"""What a removal deletes is what it decided on: a pack that a save publishes meanwhile stays."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from b10_transfer import OperationStatus, save
from b10_transfer.cli import clear as clear_command
from b10_transfer.concurrency.deadline import Deadline
from b10_transfer.config import Config
from b10_transfer.maintenance.clear import clear_store
from b10_transfer.maintenance.prune import Rules, prune
from b10_transfer.stores.directory import DirectoryStore
from tests.command import command
from tests.conftest import IsolatedEnv

METHODS = ["list_each", "list", "folders", "now", "open", "delete", "create", "remove_abandoned"]


@pytest.fixture
def emptied(isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of an environment whose packs were pruned long ago, and a pod with something to save."""
    monkeypatch.setenv("B10_CACHES", "triton")
    isolated_env.fill(isolated_env.triton, {"KEY/launcher.so": b"code"})
    assert save().status is OperationStatus.SUCCESS
    [folder] = (isolated_env.store / "v1" / "default").iterdir()
    for pack in (folder / "packs").iterdir():
        pack.unlink()
    (folder / "quarantine").mkdir()
    (folder / "quarantine" / "01a228e00000-0000000000000001").write_text("{}")
    for path in folder.rglob("*"):
        os.utime(path, (time.time() - 7200,) * 2)
    return folder


class Interrupted(DirectoryStore):
    """A store whose ``number``-th call is preceded by a save of another pod."""

    def __init__(self, path: Path, number: int, interrupt: Callable[[], object]) -> None:
        super().__init__(path)
        self._left = number
        self._interrupt = interrupt

    def __getattribute__(self, name: str) -> Any:
        if name in METHODS:
            self._left -= 1
            if self._left == 0:
                self._interrupt()
        return super().__getattribute__(name)


@pytest.mark.parametrize("number", range(1, 30))
def test_prune_keeps_what_is_published_at_any_moment_of_it(
    emptied: Path, isolated_env: IsolatedEnv, number: int
) -> None:
    saved = []
    store = Interrupted(isolated_env.store, number, lambda: saved.append(save()))
    prune(store, Config.from_environment(), Deadline("prune", 60), Rules())
    for report in saved:
        assert report.status is OperationStatus.SUCCESS
        assert (emptied / "packs" / f"{report.pack}.tar.zst").exists()


@pytest.mark.parametrize("number", range(1, 20))
def test_sweep_deletes_no_mark_of_a_pack_that_is_there(emptied: Path, isolated_env: IsolatedEnv, number: int) -> None:
    """A damaged pack that is published and marked in the middle of a prune keeps its mark."""
    marked = []

    def publish_and_mark() -> None:
        pack_id = save().pack
        (emptied / "quarantine" / pack_id).write_text("{}")
        marked.append(emptied / "quarantine" / pack_id)

    first = save().pack
    (emptied / "quarantine" / f"{first}.pruned").write_text("{}")
    isolated_env.fill(isolated_env.triton, {"OTHER/launcher.so": b"code"})
    store = Interrupted(isolated_env.store, number, publish_and_mark)
    prune(store, Config.from_environment(), Deadline("prune", 60), Rules(older_than_s=10**9))
    assert all(mark.exists() for mark in marked)


def test_clear_keeps_what_is_published_after_the_question(
    emptied: Path, isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = save().pack
    new = []
    removal = clear_store

    def clear_later(**options: Any) -> Any:
        if not options.get("pretend"):
            isolated_env.fill(isolated_env.triton, {"NEW/launcher.so": b"new"})
            new.append(save().pack)
        return removal(**options)

    monkeypatch.setattr(clear_command, "clear_store", clear_later)
    assert command("clear", "--store", "--yes").exit_code == 0
    assert [path.name for path in (emptied / "packs").iterdir()] == [f"{new[0]}.tar.zst"]
    assert old != new[0]
    assert (emptied / "environment.json").exists(), "the environment still has a pack"


def test_clear_without_a_question_keeps_what_is_published_meanwhile(
    emptied: Path, isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    save()
    delete = DirectoryStore.delete
    published = []

    def publish_first(store: DirectoryStore, name: str) -> bool:
        monkeypatch.setattr(DirectoryStore, "delete", delete)
        isolated_env.fill(isolated_env.triton, {"NEW/launcher.so": b"new"})
        published.append(save().pack)
        return delete(store, name)

    monkeypatch.setattr(DirectoryStore, "delete", publish_first)
    clear_store()
    assert [path.name for path in (emptied / "packs").iterdir()] == [f"{published[0]}.tar.zst"]
