"""Records of use: who writes them, how many there are, and what hostile ones can do."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from b10_transfer import OperationStatus, load, save
from b10_transfer.environment import detect
from b10_transfer.repository.use import today
from tests.command import Publisher, command
from tests.conftest import IsolatedEnv

DAY_S = 86400


@pytest.fixture
def pod(isolated_env: IsolatedEnv) -> Publisher:
    publisher = Publisher(isolated_env.store, detect())
    publisher.publish()
    return publisher


def records(pod: Publisher) -> dict[str, Path]:
    """What is in the folder, once no load works on it any more."""
    command("ls")  # a command starts after the load that goes on
    return {path.name: path for path in pod.folder.glob("used/*")}


def settled(pod: Publisher, expected: set[str]) -> bool:
    """Whether the records become these. A load returns before it writes its record."""
    end = time.monotonic() + 20
    while set(records(pod)) != expected and time.monotonic() < end:
        time.sleep(0.02)
    return set(records(pod)) == expected


def record(pod: Publisher, day: str, age_s: float, content: bytes = b"") -> Path:
    path = pod.folder / "used" / day
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    os.utime(path, (time.time() - age_s, time.time() - age_s))
    return path


def empty_caches(env: IsolatedEnv) -> None:
    for folder in (env.inductor, env.triton):
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize("locks", ["0", "1"])
def test_loads_of_a_day_leave_one_empty_record(
    pod: Publisher, isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, locks: str
) -> None:
    monkeypatch.setenv("B10_LOCKS", locks)
    for _ in range(3):
        assert load().status is OperationStatus.SUCCESS
        assert settled(pod, {today()})
        empty_caches(isolated_env)
    assert records(pod)[today()].read_bytes() == b""
    used_s = command("ls", "--json").json["environments"][0]["used_s"]
    assert used_s == records(pod)[today()].stat().st_mtime
    assert " s ago  this pod" in command("ls").stdout


def test_record_replaces_those_of_earlier_days_only(pod: Publisher) -> None:
    record(pod, "20200101", 100 * DAY_S)
    record(pod, "20991231", 0)  # of a pod whose clock is wrong
    record(pod, "notaday1", 100 * DAY_S)
    load()
    assert settled(pod, {today(), "20991231", "notaday1"})


def test_program_that_ends_at_once_has_recorded_its_load(pod: Publisher) -> None:
    program = "from b10_transfer import load; assert load().units"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
    assert set(records(pod)) == {today()}


def test_save_records_the_use_of_what_it_publishes(isolated_env: IsolatedEnv) -> None:
    isolated_env.fill(isolated_env.triton, {"NEW/a.so": b"new"})
    assert save().status is OperationStatus.SUCCESS
    assert set(records(Publisher(isolated_env.store, detect()))) == {today()}


def test_load_that_finds_nothing_records_nothing(isolated_env: IsolatedEnv) -> None:
    load()
    assert not isolated_env.store.exists() or not list(isolated_env.store.rglob("used"))


def test_read_only_pod_records_nothing(pod: Publisher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("B10_READ_ONLY", "1")
    assert load().units == 2
    time.sleep(0.2)
    assert records(pod) == {}


def test_record_that_cannot_be_created_does_not_change_the_load(
    pod: Publisher, caplog: pytest.LogCaptureFixture
) -> None:
    (pod.folder / "used" / today()).mkdir(parents=True)
    report = load()
    assert (report.status, report.units) == (OperationStatus.SUCCESS, 2)
    time.sleep(0.2)
    assert not [line for line in caplog.records if line.levelname in ("WARNING", "ERROR")]


def test_content_of_a_record_is_never_read(pod: Publisher) -> None:
    record(pod, "20200101", 0, b"\xff" * 1_000_000)
    assert command("ls").exit_code == 0
    assert command("prune", "--unused-for", "1d", "--dry-run", "--json").json["packs"] == []
