"""A store on the container's own disk, where a volume should be mounted, is seen by no other pod."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from b10_transfer import OperationStatus, load, save
from b10_transfer.config import store as store_location
from b10_transfer.stores import locality
from tests.command import command
from tests.conftest import IsolatedEnv

KERNEL = {"KEY/launcher.so": b"machine code"}
SEEN = "is on this container's own disk, where no other pod can see it"


@pytest.fixture
def mounts(isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What is mounted where; at first only ``/``. ``/cache/model`` is a folder of the test."""
    kinds = {"/": "overlay"}
    monkeypatch.setattr(locality, "mounts", lambda: kinds)
    mount = isolated_env.home / "model"
    mount.mkdir()
    monkeypatch.setattr(store_location, "MOUNT", mount)
    monkeypatch.delenv("B10_STORE")
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    isolated_env.fill(isolated_env.triton, KERNEL)
    return kinds


def warnings(caplog: pytest.LogCaptureFixture) -> int:
    return sum(SEEN in record.getMessage() and record.levelno == logging.WARNING for record in caplog.records)


def doctor() -> list[tuple[str, str]]:
    found = command("doctor", "--json").json["checks"]
    return [(check["name"], check["state"]) for check in found if SEEN in check["seen"]]


def test_mount_point_without_a_volume_is_warned_of_once(
    mounts: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    assert [save().status, load().status] == [OperationStatus.SUCCESS, OperationStatus.SKIPPED]
    assert warnings(caplog) == 1
    assert doctor() == [("store", "WARNING")]


def test_mounted_volume_is_not(
    mounts: dict[str, str], isolated_env: IsolatedEnv, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts[str(isolated_env.home / "model")] = "ext4"
    monkeypatch.setenv("B10_REQUIRE_MOUNT", "1")
    assert save().status is OperationStatus.SUCCESS
    assert warnings(caplog) == 0
    assert doctor() == []


@pytest.mark.parametrize("store", ["{home}/demo", "/tmp/b10-demo/{name}"])
@pytest.mark.parametrize("in_kubernetes", [False, True])
def test_chosen_local_directory_is_not(
    mounts: dict[str, str],
    isolated_env: IsolatedEnv,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    store: str,
    in_kubernetes: bool,
) -> None:
    monkeypatch.setenv("B10_STORE", store.format(home=isolated_env.home, name=isolated_env.home.parent.name))
    if in_kubernetes:
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    assert load().reason
    assert warnings(caplog) == 0


def test_chosen_directory_elsewhere_is_in_kubernetes_alone(
    mounts: dict[str, str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("B10_STORE", "/no-such-volume/store")
    load()
    assert warnings(caplog) == 0
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    load()
    assert warnings(caplog) == 1


def test_required_mount_makes_it_an_error(
    mounts: dict[str, str], isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("B10_REQUIRE_MOUNT", "1")
    for report in (load(), save()):
        assert report.status is OperationStatus.ERROR
        assert SEEN in report.reason
    assert not list(Path(isolated_env.home, "model").iterdir())
    assert doctor() == [("store", "PROBLEM")]
