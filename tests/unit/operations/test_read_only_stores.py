"""A store that refuses every write: loads work, and saves and waiting replicas do without."""

from __future__ import annotations

import io
import logging
from typing import TYPE_CHECKING

import pytest

from b10_transfer import OperationStatus, load, save
from b10_transfer.errors import ReadOnlyStoreError, StoreError
from b10_transfer.stores import directory
from b10_transfer.stores.directory import DirectoryStore
from tests.command import command

if TYPE_CHECKING:
    from tests.conftest import IsolatedEnv


@pytest.fixture
def read_only(isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store with one unit, on a file system that refuses writes; the pod has compiled another."""
    isolated_env.fill(isolated_env.triton, {"KEY/a.so": b"a"})
    assert save().status is OperationStatus.SUCCESS
    isolated_env.fill(isolated_env.triton, {"NEW/a.so": b"new"})
    monkeypatch.setattr(directory, "reason_read_only", lambda *_: "Read-only file system")

    def refuse(*_: object, **__: object) -> None:
        raise ReadOnlyStoreError("write", str(isolated_env.store), "Read-only file system")

    for name in ("create", "now", "delete"):
        monkeypatch.setattr(DirectoryStore, name, refuse)


@pytest.mark.usefixtures("read_only")
@pytest.mark.parametrize("locks", ["0", "1"])
def test_save_is_skipped_and_says_so_once(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, locks: str
) -> None:
    monkeypatch.setenv("B10_LOCKS", locks)
    with caplog.at_level(logging.INFO, "b10_transfer"):
        reports = [save() for _ in range(3)]
    assert {(report.status, report.read_only) for report in reports} == {(OperationStatus.SKIPPED, True)}
    [line] = [record for record in caplog.records if record.levelno >= logging.INFO]
    assert f"this pod cannot write to {isolated_env.store}" in line.getMessage()


@pytest.mark.usefixtures("read_only")
def test_refusal_that_only_an_attempt_shows_is_the_same(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For example a bucket, or a mount whose server refuses what the modes allow."""
    monkeypatch.setattr(directory, "reason_read_only", lambda *_: "")
    report = save()
    assert (report.status, report.read_only) == (OperationStatus.SKIPPED, True)
    assert f"this pod cannot write to {isolated_env.store}" in report.reason


def test_store_that_refuses_a_first_pack_is_one_error(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """For example on a full file system, or in a folder that cannot be made."""

    def refuse(store: DirectoryStore, name: str, _source: object) -> bool:
        raise StoreError("write", f"{store.location}/{name}", "No space left on device")

    monkeypatch.setattr(DirectoryStore, "create", refuse)
    isolated_env.fill(isolated_env.triton, {"KEY/a.so": b"a"})
    assert save().status is OperationStatus.ERROR
    [line] = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert "No space left on device" in line


@pytest.mark.usefixtures("read_only")
def test_info_and_doctor_predict_it() -> None:
    found = command("info", "--json").json["save"]
    report = save()
    assert (found["status"], found["reason"]) == (report.status.name, report.reason)
    checks = {check["name"]: check for check in command("doctor", "--json").json["checks"]}
    assert (checks["write"]["state"], checks["save"]["state"]) == ("WARNING", "OK")


@pytest.mark.usefixtures("read_only")
def test_replica_that_may_not_claim_does_not_wait_for_itself(isolated_env: IsolatedEnv) -> None:
    report = load(namespace="empty", wait_for_compile_s=3600)
    assert report.status is OperationStatus.DOES_NOT_EXIST


def test_store_that_becomes_read_only_after_one_of_several_packs_is_an_error(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Part of the work is published: that is no pod that only reads."""
    monkeypatch.setenv("B10_LOCKS", "0")
    monkeypatch.setenv("B10_MAX_FILES", "2")
    create = DirectoryStore.create
    created: list[str] = []

    def refuse_second(store: DirectoryStore, name: str, source: io.BytesIO) -> bool:
        if "/packs/" in name and created:
            raise ReadOnlyStoreError("write", store.location, "Read-only file system")
        if "/packs/" in name:
            created.append(name)
        return create(store, name, source)

    monkeypatch.setattr(DirectoryStore, "create", refuse_second)
    isolated_env.fill(isolated_env.triton, {"KEY/a.so": b"a", "KEY/b.so": b"b", "NEW/a.so": b"new", "NEW/b.so": b"b"})
    report = save()
    assert (report.status, report.read_only) == (OperationStatus.ERROR, False)
    assert created
