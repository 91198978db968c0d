"""Packs that are deleted on the server while a client is loading them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from b10_transfer import OperationStatus, load, save
from tests.concurrency.pods import packs

from .conftest import add_artifact
from .pod import PausedPod
from .server import Server, behind, version_of

if TYPE_CHECKING:
    from ..conftest import IsolatedEnv, ReadTree

STALE = {"v3": ["Stale file handle"], "v4.2": ["Stale file handle", "Bad file descriptor"]}
"""What the clients of Linux answer when the server no longer knows the file that they have open."""


@pytest.fixture(autouse=True)
def published(pod: IsolatedEnv) -> None:
    assert save().status is OperationStatus.SUCCESS


def delete_on_server(server: Server, pod: IsolatedEnv, number: int) -> None:
    """Delete a pack so that who has it open can read no more of it."""
    packs(behind(pod.store))[number].unlink()
    # A server of version 4 keeps what is open until it forgets who has opened it.
    server.drop_caches()
    server.stop()
    server.start()


def test_load_of_a_pack_that_is_deleted_meanwhile_is_an_error_and_places_nothing(
    server: Server, pod: IsolatedEnv, read_tree: ReadTree
) -> None:
    root = pod.home / ".cache" / "new pod"
    paused = PausedPod("load", before=3, TORCHINDUCTOR_CACHE_DIR=str(root))
    delete_on_server(server, pod, 0)
    outcome = paused.finish()
    assert outcome["status"] == "ERROR"
    assert any(complaint in outcome["reason"] for complaint in STALE[version_of(pod.store)])
    assert read_tree(pod.home / ".cache" / "new pod") == {}
    assert [path.name for path in root.parent.iterdir() if "staging" in path.name] == []


def test_after_a_pack_was_deleted_under_a_load_the_next_save_and_load_work(
    server: Server, pod: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, read_tree: ReadTree
) -> None:
    paused = PausedPod("load", before=3, TORCHINDUCTOR_CACHE_DIR=str(pod.home / ".cache" / "unlucky"))
    delete_on_server(server, pod, 0)
    paused.finish()
    assert load(merge=True).status is OperationStatus.DOES_NOT_EXIST
    assert save().status is OperationStatus.SUCCESS
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(pod.home / ".cache" / "lucky"))
    assert load().status is OperationStatus.SUCCESS
    assert read_tree(pod.home / ".cache" / "lucky") == read_tree(pod.inductor)


def test_load_takes_what_other_packs_hold_though_one_is_deleted_meanwhile(
    server: Server, pod: IsolatedEnv, read_tree: ReadTree
) -> None:
    add_artifact(pod, "second")
    assert save().status is OperationStatus.SUCCESS
    root = pod.home / ".cache" / "new pod"
    # Of each pack the index is read first; then the first pack's frames.
    paused = PausedPod("load", before=4, TORCHINDUCTOR_CACHE_DIR=str(root))
    delete_on_server(server, pod, 0)
    outcome = paused.finish()
    assert (outcome["status"], outcome["units"]) == ("SUCCESS", 1)
    assert list(read_tree(root)) == ["fxgraph/ec/second/entry"]


@pytest.mark.parametrize("before", [2, 3])
def test_load_reads_on_while_the_server_still_has_the_file(pod: IsolatedEnv, read_tree: ReadTree, before: int) -> None:
    """Unlinked by another client, a file lives on for a while; what is read must be whole or an error."""
    root = pod.home / ".cache" / "new pod"
    paused = PausedPod("load", before=before, TORCHINDUCTOR_CACHE_DIR=str(root))
    packs(behind(pod.store))[0].unlink()
    outcome = paused.finish()
    assert outcome["status"] in ("SUCCESS", "ERROR", "DOES_NOT_EXIST")
    assert read_tree(root) == (read_tree(pod.inductor) if outcome["status"] == "SUCCESS" else {})


def test_pack_that_a_reader_on_this_client_has_open_is_gone_from_the_list(
    pod: IsolatedEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client renames it to .nfs… instead, until the reader closes it."""
    [pack] = packs(pod.store)
    with pack.open("rb"):
        pack.unlink()
        [kept] = list(pack.parent.iterdir())
        assert kept.name.startswith(".nfs")
        monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(pod.home / ".cache" / "new pod"))
        assert load().status is OperationStatus.DOES_NOT_EXIST
