"""Back to a known good state: ``verify``, ``recall`` and ``reinstate``."""

from __future__ import annotations

import json
import logging
import re
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

from b10_transfer import OperationStatus, load, save
from b10_transfer.cli.main import main
from b10_transfer.repository.order import published_ms

if TYPE_CHECKING:
    from tests.conftest import IsolatedEnv, ReadTree


def command(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


def published(pack_id: str) -> datetime:
    return datetime.fromtimestamp(published_ms(pack_id) / 1000)


@pytest.fixture
def two_saves(isolated_env: IsolatedEnv) -> tuple[str, str]:
    """A good pack, and a later bad one."""
    isolated_env.fill(isolated_env.triton, {"GOOD/a.so": b"good"})
    good = save().pack
    isolated_env.fill(isolated_env.triton, {"BAD/a.so": b"bad"})
    return good, save().pack


def restored(monkeypatch: pytest.MonkeyPatch, read_tree: ReadTree, root: Path) -> dict[str, bytes]:
    """What a new pod gets."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(root))
    load()
    return read_tree(root)


def test_recalled_pack_is_not_loaded_until_it_is_restored(
    two_saves: tuple[str, str], monkeypatch: pytest.MonkeyPatch, read_tree: ReadTree, tmp_path: Path
) -> None:
    _, bad = two_saves
    result = command("recall", bad, "--why", "canary failed")
    assert (result.exit_code, bad in result.output) == (0, True)
    assert restored(monkeypatch, read_tree, tmp_path / "one") == {"GOOD/a.so": b"good"}
    assert command("reinstate", bad).exit_code == 0
    assert restored(monkeypatch, read_tree, tmp_path / "two") == {"GOOD/a.so": b"good", "BAD/a.so": b"bad"}


def test_everything_since_a_time_is_recalled(
    two_saves: tuple[str, str], monkeypatch: pytest.MonkeyPatch, read_tree: ReadTree, tmp_path: Path
) -> None:
    result = command("recall", "--since", published(two_saves[0]).strftime("%Y-%m-%dT%H:%M:%S"))
    assert all(pack in result.output for pack in two_saves)
    assert restored(monkeypatch, read_tree, tmp_path / "one") == {}


def test_packs_published_before_a_time_are_not_recalled(two_saves: tuple[str, str]) -> None:
    result = command("recall", "--since", "2199-01-01")
    assert (result.exit_code, "nothing to recall" in result.output) == (0, True)


def test_pod_that_restored_a_recalled_unit_does_not_publish_it_again(
    isolated_env: IsolatedEnv, two_saves: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    assert command("recall", two_saves[1]).exit_code == 0
    with caplog.at_level(logging.WARNING, "b10_transfer"):
        logging.getLogger("b10_transfer").propagate = True  # the command has taken it
        assert save().status is OperationStatus.SKIPPED
    assert "not published, because recalled from the store: 1 unit" in caplog.text
    isolated_env.fill(isolated_env.triton, {"NEW/a.so": b"new"})
    assert save().units == 1


def test_recalled_unit_that_was_compiled_anew_to_other_content_is_published(
    isolated_env: IsolatedEnv, two_saves: tuple[str, str]
) -> None:
    assert command("recall", two_saves[1]).exit_code == 0
    isolated_env.fill(isolated_env.triton, {"BAD/a.so": b"mended"})
    report = save()
    assert (report.status, report.units) == (OperationStatus.SUCCESS, 1)


def test_pack_that_is_not_there_is_an_error_and_nothing_is_recalled(
    two_saves: tuple[str, str], monkeypatch: pytest.MonkeyPatch, read_tree: ReadTree, tmp_path: Path
) -> None:
    result = command("recall", two_saves[1], "000000000000-0000000000000000")
    assert result.exit_code == 1
    assert "`ls --packs` lists them" in result.stderr
    assert len(restored(monkeypatch, read_tree, tmp_path / "one")) == 2


def test_second_recall_and_reinstating_without_a_mark_do_nothing(two_saves: tuple[str, str]) -> None:
    assert "nothing to reinstate" in command("reinstate", two_saves[0]).output
    command("recall", two_saves[0])
    assert "nothing to recall" in command("recall", two_saves[0]).output


def test_recall_without_a_pack_is_wrong_usage(two_saves: tuple[str, str]) -> None:
    assert command("recall").exit_code == 2


def test_json_lists_the_changed_packs(two_saves: tuple[str, str]) -> None:
    [marked] = json.loads(command("recall", two_saves[1], "--json").stdout)
    assert (marked["pack"], marked["namespace"]) == (two_saves[1], "default")
    [restored] = json.loads(command("reinstate", two_saves[1], "--json").stdout)
    assert restored == marked


def test_listing_shows_recalled_packs(two_saves: tuple[str, str]) -> None:
    command("recall", two_saves[1])
    assert "recalled" in command("ls", "--packs").output


# verify


def test_verify_of_a_store_that_does_not_exist_is_an_error(isolated_env: IsolatedEnv) -> None:
    result = command("verify", "--json")
    assert result.exit_code == 1
    assert f"could not verify {isolated_env.store}: it does not exist; check B10_STORE or --store" in result.stderr
    isolated_env.store.mkdir()
    assert command("verify").exit_code == 0


def pack_file(isolated_env: IsolatedEnv, pack_id: str) -> Path:
    [path] = isolated_env.store.rglob(f"packs/{pack_id}.tar.zst")
    return path


def test_sound_store_passes(two_saves: tuple[str, str]) -> None:
    result = command("verify")
    assert (result.exit_code, "2 packs" in result.output, "every byte is as published" in result.output) == (
        0,
        True,
        True,
    )


def test_damage_in_the_middle_of_a_pack_is_found(isolated_env: IsolatedEnv, two_saves: tuple[str, str]) -> None:
    path = pack_file(isolated_env, two_saves[0])
    data = bytearray(path.read_bytes())
    data[10] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)
    assert "damaged" not in command("ls", "--packs").output  # the index alone is sound
    result = command("verify")
    assert (result.exit_code, two_saves[0] in result.output, "1 fails" in result.output) == (1, True, True)


def test_pack_without_a_trusted_signature_fails(two_saves: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("B10_TRUSTED_KEYS", "b10-public:" + "A" * 43 + "=")
    result = command("verify", "--json")
    assert result.exit_code == 1
    [environment] = json.loads(result.stdout)["environments"]
    assert {pack["state"] for pack in environment["packs"]} == {"untrusted"}


def test_recalled_pack_is_no_failure(two_saves: tuple[str, str]) -> None:
    command("recall", two_saves[0])
    result = command("verify")
    assert result.exit_code == 0
    assert re.fullmatch(r"1 pack, .*: every byte is as published; 1 other, marked or newer, not read\n", result.output)


@pytest.fixture
def merged(two_saves: tuple[str, str], isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """The two, a third, and the pack they were merged into; the three are deleted with the next."""
    monkeypatch.setenv("B10_MAX_PACKS", "2")
    isolated_env.fill(isolated_env.triton, {"THIRD/a.so": b"third"})
    third = save().pack
    [merged] = {path.name.partition(".")[0] for path in isolated_env.store.glob("v1/*/*/packs/*")} - {*two_saves, third}
    monkeypatch.setenv("B10_GRACE_SECONDS", "0")
    monkeypatch.setenv("B10_MAX_PACKS", "0")
    isolated_env.fill(isolated_env.triton, {"FOURTH/a.so": b"fourth"})
    fourth = save().pack
    assert len(list(isolated_env.store.glob("v1/*/*/packs/*"))) == 2
    return (*two_saves, third, merged, fourth)


def test_pack_that_was_merged_and_deleted_is_recalled_by_its_id(
    merged: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, read_tree: ReadTree, tmp_path: Path
) -> None:
    everything = restored(monkeypatch, read_tree, tmp_path / "before")
    assert command("recall", merged[1]).exit_code == 0
    without = {path: data for path, data in everything.items() if path != "BAD/a.so"}
    assert restored(monkeypatch, read_tree, tmp_path / "two") == without
    assert save().status is OperationStatus.SKIPPED, "nor is it published again"
    assert command("reinstate", merged[1]).exit_code == 0
    assert restored(monkeypatch, read_tree, tmp_path / "three") == everything


def test_merged_pack_is_recalled_with_all_that_was_merged_into_it(
    merged: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, read_tree: ReadTree, tmp_path: Path
) -> None:
    assert command("recall", merged[3]).exit_code == 0
    assert restored(monkeypatch, read_tree, tmp_path / "one") == {"FOURTH/a.so": b"fourth"}
    assert command("reinstate", merged[3]).exit_code == 0
    assert len(restored(monkeypatch, read_tree, tmp_path / "two")) == 4


def test_since_recalls_only_later_parts_of_a_merged_pack(
    merged: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    when = published(merged[2])

    def years_apart(pack_id: str) -> int:
        return published_ms(pack_id) if pack_id >= merged[2] else 0

    monkeypatch.setattr("b10_transfer.maintenance.recall.published_ms", years_apart)
    answer = command("recall", "--since", when.replace(microsecond=0).strftime("%Y-%m-%dT%H:%M:%S"))
    assert {merged[2] in answer.output, merged[4] in answer.output} == {True}
    assert not any(pack in answer.output for pack in (merged[0], merged[1]))


@pytest.mark.parametrize(("old", "new"), [("quarantine", "recall"), ("restore", "reinstate")])
def test_old_name_of_a_command_works_and_names_the_new_one(two_saves: tuple[str, str], old: str, new: str) -> None:
    if old == "restore":
        command("recall", two_saves[1])
    result = command(old, two_saves[1])
    assert result.exit_code == 0
    assert result.stderr == f"`{old}` is an old name of `{new}`\n"
    assert old not in {line.split(" ")[2] for line in command("--help").output.splitlines() if line.startswith("  ")}


@pytest.mark.parametrize("since", ["0001-01-01", "9999-12-31", "1970-01-01"])
def test_any_time_can_be_named_and_ids_may_be_of_any_time(
    two_saves: tuple[str, str], isolated_env: IsolatedEnv, since: str
) -> None:
    [packs] = isolated_env.store.glob("v1/*/*/packs")
    (packs / "ffffffffffff-ffffffffffffffff.tar.zst").write_bytes(b"")
    answer = command("recall", "--since", since)
    assert answer.exit_code == 0
    assert "ffffffffffff" in answer.stdout, "its id says the year 10889"
