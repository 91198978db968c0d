"""``b10-compile-cache prune``: which packs are deleted, why, and when."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import pytest

from b10_transfer import OperationStatus, load, save
from b10_transfer.concurrency.deadline import Deadline
from b10_transfer.config import Config
from b10_transfer.environment import detect
from b10_transfer.maintenance.prune import Rules, prune
from b10_transfer.stores.directory import DirectoryStore
from tests.command import Answer, Publisher, command, damage, pod_like_this
from tests.conftest import IsolatedEnv

DAY_S = 86400


@pytest.fixture
def pod(isolated_env: IsolatedEnv) -> Publisher:
    return Publisher(isolated_env.store, detect())


def age(path: Path, seconds: float) -> None:
    """Have an object be older."""
    then = time.time() - seconds
    os.utime(path, (then, then))


def ids(*packs: Path) -> set[str]:
    return {pack.name.partition(".")[0] for pack in packs}


def publish(pod: Publisher, *ages_d: float) -> list[Path]:
    """Packs that are this many days old, each with another unit."""
    packs = []
    for number, days in enumerate(ages_d):
        packs.append(pod.publish({f"triton/KERNEL{number}/": {"launcher.so": b"x" * 1000 * (number + 1)}}))
        age(packs[-1], days * DAY_S)
    return packs


def actions(answer: Answer) -> dict[str, str]:
    return {pack["pack"]: pack["action"] for pack in answer.json["packs"]}


def test_empty_store_has_nothing_to_prune(isolated_env: IsolatedEnv) -> None:
    answer = command("prune", "--older-than", "1d", "--yes")
    assert (answer.exit_code, answer.stdout) == (0, "0 packs marked, 0 packs deleted (0 B); 0 packs stay (0 B)\n")
    assert not isolated_env.store.exists()


def test_dry_run_shows_packs_and_reasons_and_changes_nothing(pod: Publisher) -> None:
    old, new = publish(pod, 40, 1)
    answer = command("prune", "--older-than", "30d", "--dry-run")
    assert answer.exit_code == 0
    [line] = [line for line in answer.stdout.splitlines() if next(iter(ids(old))) in line]
    assert "mark    it is 40.0 days old" in line
    assert next(iter(ids(new))) not in answer.stdout
    assert "1 pack would be marked, 0 packs would be deleted" in answer.stdout
    assert not list(pod.folder.glob("quarantine/*"))


def test_selected_packs_are_ignored_at_once_and_deleted_after_the_grace_period(
    pod: Publisher, isolated_env: IsolatedEnv
) -> None:
    old, new = publish(pod, 40, 1)
    assert actions(command("prune", "--older-than", "30d", "--yes", "--json")) == dict.fromkeys(ids(old), "mark")
    assert old.exists()
    assert load().units == 1
    assert actions(command("prune", "--json")) == {}
    for mark in pod.folder.glob("quarantine/*"):
        age(mark, 3601)
    assert actions(command("prune", "--json")) == dict.fromkeys(ids(old), "delete")
    assert (old.exists(), new.exists()) == (False, True)
    assert not list(pod.folder.glob("quarantine/*"))


def test_save_deletes_pruned_packs(pod: Publisher, isolated_env: IsolatedEnv) -> None:
    [old] = publish(pod, 40)
    assert command("prune", "--older-than", "30d", "--yes").exit_code == 0
    for mark in pod.folder.glob("quarantine/*"):
        age(mark, 3601)
    isolated_env.fill(isolated_env.triton, {"NEW/launcher.so": b"new"})
    assert save().status is OperationStatus.SUCCESS
    assert not old.exists()


def test_pruned_pack_is_restored_within_the_period_of_grace(pod: Publisher) -> None:
    [old] = publish(pod, 40)
    command("prune", "--older-than", "30d", "--yes")
    assert re.search(r"pruned \d+ s ago by \S+@\S+: it is 40.0 days old", command("ls", "--packs").stdout)
    assert "1 to be deleted" in command("ls").stdout
    assert command("reinstate", *ids(old)).exit_code == 0
    assert load().units == 1


def test_without_grace_it_is_deleted_at_once(pod: Publisher) -> None:
    old, _new = publish(pod, 40, 1)
    answer = command("prune", "--older-than", "30d", "--grace", "0", "--yes", "--json")
    assert actions(answer) == dict.fromkeys(ids(old), "delete")
    assert answer.json["packs"][0]["why"] == "it is 40.0 days old"
    assert not old.exists()


def use(pod: Publisher, *ages_d: float) -> list[Path]:
    """Records of use that are this many days old."""
    records = [pod.folder / "used" / f"2020010{number}" for number in range(len(ages_d))]
    for record, days in zip(records, ages_d, strict=True):
        record.parent.mkdir(exist_ok=True)
        record.touch()
        age(record, days * DAY_S)
    return records


def test_packs_of_environments_that_no_pod_uses_are_pruned(pod: Publisher, isolated_env: IsolatedEnv) -> None:
    old, new = publish(pod, 90, 10)
    used = Publisher(isolated_env.store, pod_like_this(torch="2.12.0"))
    unrecorded = Publisher(isolated_env.store, pod_like_this(torch="2.11.0"))
    publish(used, 90)
    publish(unrecorded, 90)
    records = use(pod, 50, 40, 45)
    use(used, 29)
    answer = command("prune", "--unused-for", "30d", "--yes", "--json")
    assert actions(answer) == dict.fromkeys(ids(old), "mark")
    assert answer.json["packs"][0]["why"] == "it was last used 40.0 days ago"
    assert [record.exists() for record in records] == [False, True, False]
    assert new.exists()


@pytest.mark.parametrize("record", ["20200101", "99999999", "2020-01-01", "x" * 100])
@pytest.mark.parametrize("age_d", [-1e5, 0.0, 1e4])
def test_hostile_records_select_no_pack_that_is_younger_than_the_limit(
    pod: Publisher, record: str, age_d: float
) -> None:
    publish(pod, 90, 10)
    path = pod.folder / "used" / record
    path.parent.mkdir()
    path.write_bytes(b"\0" * 100_000)
    age(path, age_d * DAY_S)
    selected = actions(command("prune", "--unused-for", "100d", "--dry-run", "--json"))
    assert selected == {}


def test_size_limit_removes_what_was_used_longest_ago(pod: Publisher, isolated_env: IsolatedEnv) -> None:
    other = Publisher(isolated_env.store, pod_like_this(torch="2.12.0"))
    [used_now] = publish(pod, 90)
    longest_ago, later = publish(other, 60, 50)
    use(pod, 1)
    use(other, 55)
    answer = command("prune", "--max-size", "0MB", "--dry-run", "--json")
    assert set(actions(answer)) == ids(used_now, longest_ago, later)
    config, deadline = Config.from_environment(), Deadline("prune", 60)
    rules = Rules(most_bytes=used_now.stat().st_size + later.stat().st_size)
    [removed] = prune(DirectoryStore(isolated_env.store), config, deadline, rules, pretend=True).packs
    assert ({removed.pack}, removed.why) == (
        ids(longest_ago),
        "the store is over the size limit, and this was used longest ago",
    )


def test_latest_packs_of_each_environment_are_kept(pod: Publisher, isolated_env: IsolatedEnv) -> None:
    packs = publish(pod, 4, 3, 2)
    other = publish(Publisher(isolated_env.store, pod_like_this(torch="2.12.0")), 9)
    answer = command("prune", "--keep", "1", "--grace", "0", "--yes", "--json")
    assert set(actions(answer)) == ids(*packs[:2])
    assert (answer.json["kept_packs"], packs[2].exists(), other[0].exists()) == (2, True, True)


def test_oldest_packs_go_until_the_rest_fits(pod: Publisher, isolated_env: IsolatedEnv) -> None:
    for number in range(4):
        units = {f"triton/K{number}/": {"launcher.so": os.urandom(400_000)}}
        age(pod.publish(units), (10 - number) * DAY_S)
    answer = command("prune", "--max-size", "1MB", "--grace", "0", "--yes", "--json")
    packs = sorted(pod.folder.glob("packs/*"))
    assert (len(actions(answer)), len(packs)) == (2, 2)
    assert sum(pack.stat().st_size for pack in packs) == answer.json["kept_bytes"] <= 1_000_000


def test_without_a_terminal_it_needs_yes(pod: Publisher) -> None:
    [old] = publish(pod, 40)
    answer = command("prune", "--older-than", "30d")
    assert (answer.exit_code, "needs --yes" in answer.stderr) == (2, True)
    assert next(iter(ids(old))) in answer.stderr, "what would go is shown first"
    assert not list(pod.folder.glob("quarantine/*"))


def test_other_namespaces_are_left_alone_if_one_is_named(pod: Publisher, isolated_env: IsolatedEnv) -> None:
    [old] = publish(Publisher(isolated_env.store, detect(), "other"), 40)
    publish(pod, 40)
    answer = command("prune", "--older-than", "1d", "--namespace", "default", "--grace", "0", "--yes", "--json")
    assert len(actions(answer)) == 1
    assert old.exists()


def test_pruned_merged_pack_is_deleted_with_the_packs_merged_into_it(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("B10_MAX_PACKS", "2")
    for number in range(3):
        isolated_env.fill(isolated_env.triton, {f"K{number}/launcher.so": b"%d" % number})
        save()
    states = [line.split()[-1] for line in command("ls", "--packs").stdout.splitlines()[2:]]
    assert states[-1] == "usable"
    answer = command("prune", "--keep", "0", "--grace", "0", "--yes", "--json")
    assert len(actions(answer)) == 4
    assert not list(isolated_env.store.glob("v1/*/*/packs/*"))
    assert load(merge=True).status is OperationStatus.DOES_NOT_EXIST


def test_recalled_packs_stay_because_saves_need_them(pod: Publisher) -> None:
    [old] = publish(pod, 40)
    command("recall", *ids(old))
    assert actions(command("prune", "--older-than", "1d", "--grace", "0", "--yes", "--json")) == {}
    assert old.exists()


def test_damaged_packs_go_by_age(pod: Publisher) -> None:
    old, new = publish(pod, 40, 1)
    damage(old)
    damage(new)
    age(old, 40 * DAY_S)
    assert set(actions(command("prune", "--older-than", "30d", "--grace", "0", "--yes", "--json"))) == ids(old)


def test_remains_of_an_environment_without_packs_are_deleted_after_the_grace_period(
    pod: Publisher, isolated_env: IsolatedEnv
) -> None:
    [old] = publish(pod, 40)
    command("prune", "--older-than", "30d", "--grace", "0", "--yes")
    assert not old.exists()
    assert not (pod.folder / "environment.json").exists()


def test_description_that_a_saver_has_just_written_stays(pod: Publisher) -> None:
    [pack] = publish(pod, 1)
    pack.unlink()
    assert command("prune").exit_code == 0
    assert (pod.folder / "environment.json").exists()


def test_abandoned_staging_files_are_deleted(pod: Publisher, isolated_env: IsolatedEnv) -> None:
    publish(pod, 1)
    staged = isolated_env.store / ".staging" / f"{0:032x}.tmp"
    staged.write_bytes(b"half")
    age(staged, 7200)
    assert command("prune").exit_code == 0
    assert not staged.exists()


def test_read_only_pod_may_only_do_a_dry_run(pod: Publisher, monkeypatch: pytest.MonkeyPatch) -> None:
    [old] = publish(pod, 40)
    monkeypatch.setenv("B10_READ_ONLY", "1")
    before = sorted(pod.store.rglob("*"))
    assert set(actions(command("prune", "--older-than", "1d", "--dry-run", "--json"))) == ids(old)
    assert sorted(pod.store.rglob("*")) == before
    answer = command("prune", "--older-than", "1d", "--yes")
    assert (answer.exit_code, "B10_READ_ONLY=1: this pod may not change the store" in answer.stderr) == (1, True)
    assert old.exists()


@pytest.mark.parametrize(("days", "words"), [(1 / 2, "12 h"), (1 / 96, "15 min"), (1.5, "1.5 days")])
def test_age_below_a_day_has_a_smaller_unit(pod: Publisher, days: float, words: str) -> None:
    publish(pod, days)
    answer = command("prune", "--older-than", "1min", "--dry-run")
    assert f"it is {words} old" in answer.stdout


@pytest.mark.parametrize("option", [("--older-than", "30"), ("--older-than", "x"), ("--max-size", "1kg")])
def test_amount_without_a_known_unit_is_wrong_usage(isolated_env: IsolatedEnv, option: tuple[str, str]) -> None:
    answer = command("prune", *option)
    assert (answer.exit_code, "one of the units" in answer.stderr) == (2, True)
