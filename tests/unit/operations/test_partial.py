"""A load that gives a part of what was saved for this pod says so, and why: in its report, ``explain`` and ``info``."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from b10_transfer import LoadReport, OperationStatus, load
from b10_transfer.environment import detect
from tests.command import UNITS, Publisher, command, damage
from tests.conftest import IsolatedEnv

MORE = {f"triton/MORE{number}/": {"launcher.so": b"%d" % number * 50} for number in range(11)}


@pytest.fixture
def store(isolated_env: IsolatedEnv) -> Publisher:
    """A store with a pack of two units."""
    publisher = Publisher(isolated_env.store, detect())
    publisher.publish(UNITS)
    return publisher


def pack_id(pack: Path) -> str:
    return pack.name.removesuffix(".tar.zst")


def verdicts(expected: str) -> LoadReport:
    """Check the three verdicts before a load, load, and check that of its report."""
    shown = command("explain")
    assert (shown.exit_code, shown.stdout.splitlines()[0]) == (0, f"PARTIAL: {expected}")
    assert command("explain", "--json").json["partial"] == expected
    assert f"; PARTIAL: {expected}" in " ".join(command("info").stdout.split())
    report = load()
    assert (report.status, report.partial) == (OperationStatus.SUCCESS, expected)
    return report


def test_load_of_everything_is_not_partial(store: Publisher) -> None:
    store.publish(MORE)
    assert command("explain").stdout.startswith("HIT: ")
    assert load().partial == ""


def test_truncated_pack_is_missing(store: Publisher) -> None:
    pack = store.publish(MORE)
    data = pack.read_bytes()
    pack.chmod(0o644)
    pack.write_bytes(data[:-10])
    verdicts(f"2 units; pack {pack_id(pack)} is damaged")


def test_damage_that_only_a_restore_finds_is_missing_now_and_later(store: Publisher, isolated_env: IsolatedEnv) -> None:
    pack = store.publish(MORE)
    data = bytearray(pack.read_bytes())
    data[30] ^= 1
    pack.chmod(0o644)
    pack.write_bytes(data)
    expected = f"2 of 13 units; pack {pack_id(pack)} is damaged"
    assert load().partial == expected
    for cache in (isolated_env.inductor, isolated_env.triton):
        shutil.rmtree(cache)
    verdicts(expected)  # the load has marked the pack


def test_recalled_units_are_missing_until_they_are_published_again(store: Publisher) -> None:
    pack = store.publish(MORE)
    assert command("recall", pack_id(pack)).exit_code == 0
    store.publish({name: files for name, files in MORE.items() if "MORE1/" in name})
    [mark] = (store.folder / "recalled").iterdir()
    content = json.loads(mark.read_text())
    mark.chmod(0o600)
    mark.write_text(json.dumps({**content, "who": "root@pod", "why": "canary failed"}))
    os.utime(mark, (1_795_451_328, 1_795_451_328))
    verdicts("3 of 13 units; 10 were recalled (2026-11-23 16:28 UTC by root@pod: canary failed)")


def test_recalled_pack_whose_units_were_published_again_is_not_missing(store: Publisher) -> None:
    pack = store.publish(MORE)
    assert command("recall", pack_id(pack)).exit_code == 0
    store.publish(MORE)
    assert command("explain").stdout.startswith("HIT: ")
    assert load().partial == ""


def test_pack_over_a_limit_is_missing(store: Publisher, monkeypatch: pytest.MonkeyPatch) -> None:
    pack = store.publish({"triton/MANY/": {f"{number}.json": b"x" for number in range(20)}})
    monkeypatch.setenv("B10_MAX_FILES", "10")
    verdicts(f"2 units; pack {pack_id(pack)} is too large")


def test_many_damaged_packs_are_counted(store: Publisher) -> None:
    for number in range(5):
        damage(store.publish({f"triton/K{number}/": {"launcher.so": b"x"}}))
    verdicts("2 units; 5 packs (5 damaged)")


def test_cache_that_cannot_be_restored_to_is_missing(store: Publisher, isolated_env: IsolatedEnv) -> None:
    isolated_env.triton.mkdir(parents=True)
    isolated_env.triton.chmod(0o777)
    assert verdicts("1 of 2 units; cache triton is left out").units == 1


def test_caches_that_are_not_selected_are_not_missing(store: Publisher, monkeypatch: pytest.MonkeyPatch) -> None:
    recalled = store.publish(MORE)
    assert command("recall", pack_id(recalled)).exit_code == 0
    monkeypatch.setenv("B10_CACHES", "inductor")
    assert command("explain").stdout.startswith("HIT: ")
    assert load().partial == ""


def test_start_in_place_is_partial_too(store: Publisher) -> None:
    assert load().partial == ""
    damaged = store.publish(MORE)
    damage(damaged)
    report = load(merge=True)
    assert report.status is OperationStatus.SKIPPED
    assert report.partial == f"2 units; pack {pack_id(damaged)} is damaged"
