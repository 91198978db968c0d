"""Stores of every released version stay readable: they are listed, verified, loaded from, recalled and reinstated.

A folder in stores/ is never changed; a new version adds one (``write_store.py``).
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from b10_transfer import OperationStatus, load, save
from b10_transfer.operations import load as loading
from b10_transfer.operations import save as saving
from tests.command import command
from tests.conftest import IsolatedEnv, read_tree_of

from .write_store import ENVIRONMENT, GRAPH, GROUP, NAMESPACE, UNUSED, Writer, files_of, kernel

STORES = Path(__file__).parent / "stores"
UNITS = {GRAPH, *map(kernel, "ABF" + UNUSED)}
"""The units of packs without marks."""


@dataclass(frozen=True)
class Golden:
    """A copy of a released version's store, which the settings name."""

    store: Path
    key: Path
    roles: Mapping[str, str]
    """The ids of its packs, by what they are."""


@pytest.fixture(params=[*sorted(path.name for path in STORES.iterdir()), "written now"])
def golden(
    request: pytest.FixtureRequest, isolated_env: IsolatedEnv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Golden:
    folder = tmp_path / "golden"
    if request.param == "written now":
        folder.mkdir()
        Writer(folder).write(folder)
    else:
        # With new times: a save deletes pruned packs an hour after their marks were made, also in an old checkout.
        shutil.copytree(STORES / request.param, folder, copy_function=shutil.copyfile)
    monkeypatch.setenv("B10_STORE", str(folder / "store"))
    monkeypatch.setenv("B10_NAMESPACE", NAMESPACE)
    for operation in (loading, saving):
        monkeypatch.setattr(operation, "identify", lambda **_: ENVIRONMENT)
    return Golden(folder / "store", folder / "key.pub", json.loads((folder / "roles.json").read_text()))


def test_load_restores_packs_without_marks(golden: Golden, isolated_env: IsolatedEnv) -> None:
    report = load()
    assert (report.status, report.rejected_packs) == (OperationStatus.SUCCESS, ())
    assert set(report.restored) == UNITS
    assert set(report.packs) == {golden.roles["merged"], golden.roles["signed"]}
    assert read_tree_of(isolated_env.inductor) == below("inductor", files_of(GRAPH))
    restored = read_tree_of(isolated_env.triton)
    for unit in UNITS - {GRAPH}:
        for name, data in below("triton", files_of(unit)).items():
            if "__grp__" not in name:  # it names this machine's paths
                assert restored[name] == data


def test_load_with_a_trusted_key_restores_the_signed_pack(
    golden: Golden, isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("B10_TRUSTED_KEYS", str(golden.key))
    report = load()
    assert (report.status, report.restored) == (OperationStatus.SUCCESS, (kernel("F"),))


def test_states_are_listed_and_no_pack_fails_to_verify(golden: Golden) -> None:
    listed = command("ls", "--json")
    assert (listed.exit_code, listed.stderr) == (0, "")
    [environment] = listed.json["environments"]
    assert environment["parts"] == dict(ENVIRONMENT.parts)
    states = {pack["id"]: pack["state"] for pack in environment["packs"]}
    assert {role: states[pack_id] for role, pack_id in golden.roles.items()} == {
        "first": "superseded",
        "second": "superseded",
        "merged": "usable",
        "recalled": "recalled",
        "damaged": "set aside",
        "pruned": "pruned",
        "signed": "usable",
        "recalled, signed": "recalled",
    }
    verified = command("verify")
    assert (verified.exit_code, ": every byte is as published" in verified.stdout) == (0, True)


@pytest.mark.parametrize(
    ("role", "unit"), [("recalled", kernel("C")), ("recalled, signed", kernel("G")), ("pruned", kernel("E"))]
)
def test_marked_pack_is_loaded_once_it_is_reinstated(golden: Golden, role: str, unit: str) -> None:
    assert command("reinstate", golden.roles[role]).exit_code == 0
    assert unit in load().restored


def test_damaged_pack_is_found_damaged_once_it_is_reinstated(golden: Golden) -> None:
    assert command("reinstate", golden.roles["damaged"]).exit_code == 0
    verified = command("verify")
    assert verified.exit_code == 1
    assert golden.roles["damaged"] in verified.stdout


def test_recall_of_a_merged_pack_withholds_its_units(golden: Golden) -> None:
    assert command("recall", golden.roles["first"]).exit_code == 0
    assert set(load().restored) == {kernel("B"), kernel("F")}


def test_units_that_the_recorded_start_did_not_use_may_stay_in_the_store(
    golden: Golden, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("B10_RESTORE_REST", "never")
    report = load()
    assert set(report.rest) == set(map(kernel, UNUSED))
    assert set(report.restored) == UNITS - set(report.rest)


def test_member_of_the_group_loads_the_recorded_packs(golden: Golden, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("B10_GROUP", GROUP)
    report = load()
    assert report.group == "followed"
    assert set(report.restored) == UNITS


def test_save_adds_to_the_store_and_deletes_nothing(
    golden: Golden, isolated_env: IsolatedEnv, caplog: pytest.LogCaptureFixture
) -> None:
    before = read_tree_of(golden.store)
    load()
    isolated_env.fill(isolated_env.triton, below("triton", files_of(kernel("J"))))
    report = save()
    assert (report.status, report.units) == (OperationStatus.SUCCESS, 1)
    assert before.items() <= read_tree_of(golden.store).items()
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


def below(root: str, files: Mapping[str, bytes]) -> dict[str, bytes]:
    """The files by their paths below a cache root."""
    return {name.removeprefix(f"{root}/"): data for name, data in files.items()}
