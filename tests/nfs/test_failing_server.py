"""A server that stops, starts, refuses and forbids, while pods load and save."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from b10_transfer import OperationStatus, load, save

from .conftest import add_artifact
from .pod import PausedPod, objects
from .server import EXPORT, Server, behind, mount, version_of

if TYPE_CHECKING:
    from ..conftest import IsolatedEnv, ReadTree

FAILURES: dict[str, tuple[Callable[[Server], None], str]] = {
    "stopped": (Server.stop, "deadline of 20 s"),
    "no longer exported": (Server.unexport, "Permission denied"),
    "only read": (lambda server: server.export(rw="ro"), "Read-only file system"),
}
"""What a server does, and what is said of it."""


def new_pod(pod: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, name: str = "new pod") -> Path:
    root = pod.home / ".cache" / name
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(root))
    return root


@pytest.mark.parametrize("failure", ["stopped", "no longer exported"])
def test_load_ends_in_time_and_places_nothing_while_the_server_is_gone(
    server: Server, pod: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, read_tree: ReadTree, failure: str
) -> None:
    assert save().status is OperationStatus.SUCCESS
    root = new_pod(pod, monkeypatch)
    fail, complaint = FAILURES[failure]
    paused = PausedPod("load", before=3, B10_DEADLINE_SECONDS="20")
    server.drop_caches()
    fail(server)
    outcome = paused.finish()
    assert outcome["status"] == "ERROR"
    assert complaint in outcome["reason"]
    assert read_tree(root) == {}
    server.restore()
    assert load().status is OperationStatus.SUCCESS
    assert read_tree(root) == read_tree(pod.inductor)


@pytest.mark.parametrize("failure", FAILURES)
def test_save_ends_in_time_and_publishes_nothing_while_the_server_is_gone(
    server: Server, pod: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, read_tree: ReadTree, failure: str
) -> None:
    assert save().status is OperationStatus.SUCCESS
    before = objects(behind(pod.store))
    add_artifact(pod, "second")
    fail, complaint = FAILURES[failure]
    paused = PausedPod("save", before=3, B10_DEADLINE_SECONDS="20")
    server.drop_caches()
    fail(server)
    outcome = paused.finish()
    assert outcome["status"] == "ERROR"
    assert complaint in outcome["reason"]
    assert objects(behind(pod.store)) == before
    server.restore()
    assert save().status is OperationStatus.SUCCESS
    new_pod(pod, monkeypatch)
    assert load().status is OperationStatus.SUCCESS
    assert read_tree(pod.home / ".cache" / "new pod") == read_tree(pod.inductor)


@pytest.mark.parametrize("operation", ["load", "save"])
def test_soft_mount_of_a_server_that_is_gone_is_an_error_before_the_deadline(
    server: Server,
    pod: IsolatedEnv,
    monkeypatch: pytest.MonkeyPatch,
    other_mount: Path,
    operation: str,
) -> None:
    """A soft mount gives up by itself, at any call; what it did not deliver must not count as absent or whole."""
    assert save().status is OperationStatus.SUCCESS
    add_artifact(pod, "second")
    before = objects(behind(pod.store))
    mount(version_of(pod.store), other_mount, "soft,timeo=10,retrans=1")
    store = {"B10_STORE": str(other_mount / behind(pod.store).relative_to(EXPORT))}
    if operation == "load":
        new_pod(pod, monkeypatch)
    paused = PausedPod(operation, before=3, **store)
    server.drop_caches()
    server.stop()
    outcome = paused.finish()
    assert outcome["status"] == "ERROR"
    assert "deadline" not in outcome["reason"]
    assert str(other_mount) in outcome["reason"]
    server.start()
    assert objects(behind(pod.store)) == before
    assert (load() if operation == "load" else save()).status is OperationStatus.SUCCESS


def test_root_that_the_server_does_not_trust_is_told_that_permission_is_denied(
    server: Server, pod: IsolatedEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    behind(pod.store).parent.chmod(0o755)
    assert save().status is OperationStatus.SUCCESS
    add_artifact(pod, "second")
    server.export(no_root_squash="root_squash")
    server.drop_caches()
    saved = save()
    assert saved.status is OperationStatus.SKIPPED
    assert f"this pod cannot write to {pod.store}" in saved.reason
    assert "Permission denied" in saved.reason
    new_pod(pod, monkeypatch)
    assert load().status is OperationStatus.SUCCESS  # everybody may read what root has written


def test_store_that_the_server_lets_nobody_but_its_root_read_is_an_error_and_not_absent(
    server: Server, pod: IsolatedEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    behind(pod.store).parent.chmod(0o755)
    assert save().status is OperationStatus.SUCCESS
    behind(pod.store).chmod(0o700)
    server.export(no_root_squash="root_squash")
    server.drop_caches()
    new_pod(pod, monkeypatch)
    loaded = load()
    assert loaded.status is OperationStatus.ERROR
    assert str(pod.store) in loaded.reason
    assert "Permission denied" in loaded.reason


@pytest.mark.parametrize("read_only", ["0", "1"])
def test_read_only_mount_is_loaded_from_and_not_saved_to(
    pod: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, other_mount: Path, read_only: str
) -> None:
    assert save().status is OperationStatus.SUCCESS
    before = objects(behind(pod.store))
    add_artifact(pod, "second")
    mount(version_of(pod.store), other_mount, "ro")
    monkeypatch.setenv("B10_STORE", str(other_mount / behind(pod.store).relative_to(EXPORT)))
    monkeypatch.setenv("B10_READ_ONLY", read_only)
    saved = save()
    assert (saved.status, saved.read_only) == (OperationStatus.SKIPPED, True)
    if read_only == "0":
        assert f"{other_mount}" in saved.reason
        assert "Read-only file system" in saved.reason
    new_pod(pod, monkeypatch)
    assert load().status is OperationStatus.SUCCESS
    assert objects(behind(pod.store)) == before
