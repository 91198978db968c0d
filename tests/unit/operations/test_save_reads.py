"""What a save reads of a store, how it splits, and the times it can hold."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from b10_transfer import OperationStatus, load, save
from b10_transfer.errors import StoreError
from b10_transfer.repository.repository import Repository
from b10_transfer.stores.directory import _FileReader

if TYPE_CHECKING:
    from tests.conftest import IsolatedEnv, ReadTree

NOISE = os.urandom(3_000_000)


@pytest.fixture
def read_bytes(isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """Bytes read of each pack."""
    counted: Counter[str] = Counter()
    read_at = _FileReader.read_at

    def counting(self: _FileReader, offset: int, length: int) -> bytes:
        counted["all"] += length
        return bytes(read_at(self, offset, length))

    monkeypatch.setattr(_FileReader, "read_at", counting)
    yield counted


def test_save_with_nothing_new_reads_indexes_alone(isolated_env: IsolatedEnv, read_bytes: Counter[str]) -> None:
    isolated_env.fill(isolated_env.triton, {"K/launcher.so": NOISE})
    assert save().status is OperationStatus.SUCCESS
    read_bytes.clear()
    assert save().status is OperationStatus.SKIPPED
    assert 0 < read_bytes["all"] < len(NOISE) / 4


def test_save_reads_a_pack_whose_unit_this_pod_compiled_again(
    isolated_env: IsolatedEnv, read_bytes: Counter[str]
) -> None:
    isolated_env.fill(isolated_env.triton, {"K/launcher.so": NOISE})
    assert save().status is OperationStatus.SUCCESS
    later = time.time() + 60
    os.utime(isolated_env.triton / "K/launcher.so", (later, later))
    read_bytes.clear()
    assert save().status is OperationStatus.SKIPPED
    assert read_bytes["all"] > len(NOISE)


def test_damage_that_verify_found_is_healed_by_the_next_save(isolated_env: IsolatedEnv) -> None:
    from tests.command import command

    isolated_env.fill(isolated_env.triton, {"K/launcher.so": NOISE})
    assert save().status is OperationStatus.SUCCESS
    [pack] = isolated_env.store.rglob("*.tar.zst")
    data = bytearray(pack.read_bytes())
    data[1000] ^= 1
    pack.chmod(0o644)
    pack.write_bytes(data)
    assert save().status is OperationStatus.SKIPPED, "nobody has read the damage yet"
    assert command("verify").exit_code == 1
    report = save()
    assert (report.status, report.quarantined_packs) == (OperationStatus.SUCCESS, (pack.name.partition(".")[0],))
    assert not list(isolated_env.store.rglob("*.suspect"))
    assert command("verify").exit_code == 0


@pytest.mark.parametrize("year_s", [10_400_000_000, 4_700_000_000, -5_000_000_000, -1, 0])
def test_file_of_any_date_is_saved_and_restored(
    isolated_env: IsolatedEnv, read_tree: ReadTree, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, year_s: int
) -> None:
    isolated_env.fill(isolated_env.triton, {"K/launcher.so": b"code"})
    path = isolated_env.triton / "K/launcher.so"
    os.utime(path, ns=(year_s * 10**9, year_s * 10**9))
    if path.stat().st_mtime_ns // 10**9 != year_s:
        pytest.skip("this file system has no such date")
    assert save().status is OperationStatus.SUCCESS
    assert save().status is OperationStatus.SKIPPED
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "other"))
    assert load().status is OperationStatus.SUCCESS
    assert read_tree(tmp_path / "other") == {"K/launcher.so": b"code"}
    restored = (tmp_path / "other/K/launcher.so").stat().st_mtime_ns
    assert restored == min(max(year_s * 10**9, -(1 << 62)), 1 << 62)


def test_save_of_more_files_than_one_pack_holds_becomes_several(
    isolated_env: IsolatedEnv, read_tree: ReadTree, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    content = {f"K{number}/{name}.so": os.urandom(10) for number in range(25) for name in "abcd"}
    isolated_env.fill(isolated_env.triton, content)
    monkeypatch.setenv("B10_MAX_FILES", "30")
    report = save()
    assert (report.status, report.units, len(report.packs)) == (OperationStatus.SUCCESS, 25, 4)
    assert save().status is OperationStatus.SKIPPED
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "other"))
    assert load().status is OperationStatus.SUCCESS
    assert read_tree(tmp_path / "other") == content


def test_unit_that_no_pack_has_room_for_is_an_error_and_the_rest_is_published(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    isolated_env.fill(isolated_env.triton, {f"BIG/{number}.so": b"x" for number in range(40)} | {"K/a.so": b"a"})
    monkeypatch.setenv("B10_MAX_FILES", "30")
    report = save()
    assert (report.status, report.units, len(report.packs)) == (OperationStatus.ERROR, 1, 1)
    assert "unit triton/BIG has 40 files, over the limit of 30 files" in report.reason
    assert "Raise B10_MAX_FILES" in report.reason


def test_save_that_fails_after_some_packs_says_which(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    isolated_env.fill(isolated_env.triton, {f"K{number}/a.so": b"x" for number in range(5)})
    monkeypatch.setenv("B10_MAX_FILES", "2")
    publish = Repository.publish
    published: list[str] = []

    def fail_at_the_third(self: Repository, *arguments: object) -> str:
        if len(published) == 2:
            raise StoreError("write", "the store", "No space left on device")
        published.append(publish(self, *arguments))  # type: ignore[arg-type]
        return published[-1]

    monkeypatch.setattr(Repository, "publish", fail_at_the_third)
    report = save()
    assert (report.status, report.packs) == (OperationStatus.ERROR, tuple(published))
    assert all(pack in report.reason for pack in published)
    assert "No space left" in report.reason
