"""A writer of the store creates very many small objects: operations stay short, and say why they cannot go on."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from b10_transfer import OperationStatus, load, save
from b10_transfer.pack import PackReader
from b10_transfer.repository.reader import MOST_FALSE_RECALLS
from b10_transfer.repository.signing import SigningKey
from b10_transfer.stores.base import MOST_LISTED
from tests.command import command

if TYPE_CHECKING:
    from tests.conftest import IsolatedEnv

KEY = SigningKey.generate()


@pytest.fixture
def environment(isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder of an environment with one signed pack, in a store of which the pod's cache is empty."""
    monkeypatch.setenv("B10_SIGNING_KEY", KEY.private_text())
    monkeypatch.setenv("B10_TRUSTED_KEYS", KEY.public_text())
    isolated_env.fill(isolated_env.triton, {"KEY/a.so": b"code"})
    assert save().status is OperationStatus.SUCCESS
    isolated_env.triton.rename(tmp_path / "saved")
    [found] = isolated_env.store.glob("v1/default/*")
    return found


def pack_of(environment: Path) -> str:
    [pack] = environment.glob("packs/*")
    return pack.name.partition(".")[0]


def recall_falsely(environment: Path, count: int) -> None:
    """Recall the pack so often, with wrong signatures of the trusted key."""
    (environment / "recalled").mkdir(exist_ok=True)
    for number in range(count):
        (environment / "recalled" / f"{pack_of(environment)}.{KEY.id}.{number:0128x}").touch()


def test_false_recalls_that_are_few_change_nothing(environment: Path) -> None:
    recall_falsely(environment, MOST_FALSE_RECALLS)
    assert load().status is OperationStatus.SUCCESS
    assert command("recall", pack_of(environment)).exit_code == 0
    assert load(merge=True).status is OperationStatus.DOES_NOT_EXIST


def test_false_recalls_that_are_many_are_an_error_that_names_their_folder(environment: Path) -> None:
    """Each takes time to check, and any may be a true one."""
    recall_falsely(environment, MOST_FALSE_RECALLS + 1)
    report = load()
    assert report.status is OperationStatus.ERROR
    assert f"{environment}/recalled" in report.reason
    assert "wrong signatures" in report.reason


@pytest.mark.parametrize("folder", ["packs", "recalled", "quarantine"])
def test_folder_with_more_objects_than_a_store_has_is_an_error_that_names_it(environment: Path, folder: str) -> None:
    flood(environment / folder)
    report = load()
    assert report.status is OperationStatus.ERROR
    assert f"{environment}/{folder}" in report.reason
    assert f"more than {MOST_LISTED} objects" in report.reason
    answer = command("ls", "--packs")
    assert (answer.exit_code, "Traceback" in answer.stderr) == (1, False)


def test_flood_of_leases_keeps_nobody_from_saving(environment: Path, isolated_env: IsolatedEnv) -> None:
    flood(environment / "leases")
    isolated_env.fill(isolated_env.triton, {"NEW/a.so": b"new"})
    assert save().status is OperationStatus.SUCCESS


def test_ids_ahead_of_the_clock_are_read_up_to_the_limit_of_a_load(
    environment: Path, isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A load ignores the packs behind them, and so does the order."""
    from b10_transfer.repository import repository

    hour_ahead_ms = int(time.time() * 1000) + 3_600_000
    for number in range(5000):
        (environment / "packs" / f"{hour_ahead_ms + number:012x}-{number:016x}.tar.zst").touch()
    read: list[str] = []
    read_once = repository.Repository._read_once

    def counted(self: repository.Repository, pack_id: str, *arguments: object) -> object:
        read.append(pack_id)
        return read_once(self, pack_id, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(repository.Repository, "_read_once", counted)
    isolated_env.fill(isolated_env.triton, {"NEW/a.so": b"new"})
    report = save()
    assert report.status is OperationStatus.SUCCESS
    assert len(set(read)) <= 4096 + 1
    assert int(report.pack[:12], 16) < hour_ahead_ms


def test_marks_of_damage_leave_time_to_publish(
    environment: Path, isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anybody can create such a mark, and reading a large pack may take longer than a save has."""
    from b10_transfer.repository import reader

    def read_for_ever(_pack_id: str, pack: PackReader, _index: object) -> None:
        while True:
            time.sleep(0.01)
            pack._deadline.check("reading a large pack")

    monkeypatch.setattr(reader, "check_content", read_for_ever)
    (environment / "quarantine").mkdir()
    (environment / "quarantine" / f"{pack_of(environment)}.suspect").touch()
    isolated_env.fill(isolated_env.triton, {"NEW/a.so": b"new"})
    assert save(deadline_s=8).status is OperationStatus.SUCCESS


def flood(folder: Path) -> None:
    """Put one object more into a folder than a store lists."""
    folder.mkdir(exist_ok=True)
    first = folder / "first"
    first.touch()
    for number in range(MOST_LISTED):
        name = folder / f"{number:060x}"
        try:
            os.link(first, name)
        except OSError:  # a file has as many names as its file system allows
            first = name
            first.touch()
