"""``b10-compile-cache info``: this pod, and what a load and a save would do."""

from __future__ import annotations

import pytest

from b10_transfer import OperationStatus, load, save
from b10_transfer.environment import detect
from tests.command import Publisher, command
from tests.conftest import IsolatedEnv


@pytest.fixture
def this_pod(isolated_env: IsolatedEnv) -> Publisher:
    return Publisher(isolated_env.store, detect())


def test_every_part_of_the_key_is_shown(isolated_env: IsolatedEnv) -> None:
    answer = command("info")
    assert answer.exit_code == 0
    for name, value in detect().parts.items():
        assert f"\n  {name.ljust(18)}  {value or 'none'}\n" in answer.stdout
    assert f"environment  {detect().id}" in answer.stdout


def test_recorded_facts_are_separate_from_compared_parts(isolated_env: IsolatedEnv) -> None:
    found = command("info", "--json").json
    assert found["parts"] == dict(detect().parts)
    assert found["recorded"] == dict(detect().recorded)


@pytest.mark.parametrize(
    ("arguments", "variables", "origin"),
    [
        (["--store", "elsewhere"], {}, "given to this command"),
        ([], {}, "B10_STORE"),
        ([], {"B10_STORE": ""}, "the default; it is not shared between machines"),
    ],
)
def test_setting_that_chose_the_store_is_named(
    isolated_env: IsolatedEnv,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    variables: dict[str, str],
    origin: str,
) -> None:
    monkeypatch.chdir(isolated_env.home)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert command("info", "--json", *arguments).json["store_from"] == origin


def test_json_counts_local_and_stored_units_of_each_cache(this_pod: Publisher, isolated_env: IsolatedEnv) -> None:
    this_pod.publish()
    isolated_env.fill(isolated_env.triton, {"MINE/launcher.so": b"12345", "MINE/lock": b"", "HALF/k.ptx": b""})
    found = command("info", "--json").json
    assert found.keys() == {
        "version",
        "store",
        "store_from",
        "store_error",
        "namespace",
        "environment_id",
        "parts",
        "recorded",
        "remarks",
        "caches",
        "packs",
        "load",
        "save",
        "per_pod_variables",
        "additions",
    }
    caches = {cache["name"]: cache for cache in found["caches"]}
    assert caches["triton"] == {
        "name": "triton",
        "title": "Triton's kernels outside Inductor",
        "path": str(isolated_env.triton),
        "exists": True,
        "units": 1,
        "files": 1,
        "bytes": 5,
        "unfinished": 1,
        "unrecognised": 0,
        "in_use": True,
        "error": "",
        "stored": {"units": 1, "files": 1, "bytes": 600},
        "lacks": {"units": 1, "files": 1, "bytes": 600},
    }
    assert (caches["inductor"]["exists"], caches["inductor"]["in_use"]) == (False, False)
    assert found["packs"] == 1
    load = {"status": "SUCCESS", "reason": "would restore", "units": 1, "files": 1, "bytes": 700, "partial": ""}
    assert found["load"] == load
    assert found["save"] == load | {"reason": "would publish", "bytes": 5}


@pytest.mark.parametrize("merge", [False, True])
@pytest.mark.parametrize("local", [{}, {"OTHER/launcher.so": b"x"}, {"KERNEL/launcher.so": b"x"}], ids=str)
@pytest.mark.parametrize("published", [False, True])
def test_forecast_equals_the_result(
    this_pod: Publisher,
    isolated_env: IsolatedEnv,
    monkeypatch: pytest.MonkeyPatch,
    merge: bool,
    local: dict[str, bytes],
    published: bool,
) -> None:
    monkeypatch.setenv("B10_MERGE", str(int(merge)))
    monkeypatch.setenv("B10_CACHES", "triton")
    isolated_env.fill(isolated_env.triton, local)
    if published:
        this_pod.publish()
    forecast = command("info", "--json").json
    saved = save()
    assert (forecast["save"]["status"], forecast["save"]["units"]) == (saved.status.name, saved.units)
    if saved.status is OperationStatus.SUCCESS:
        forecast = command("info", "--json").json
    loaded = load()
    assert (forecast["load"]["status"], forecast["load"]["units"]) == (loaded.status.name, loaded.units)


def test_pod_that_only_reads_would_publish_nothing(isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    isolated_env.fill(isolated_env.triton, {"KERNEL/launcher.so": b"x"})
    monkeypatch.setenv("B10_READ_ONLY", "1")
    assert command("info", "--json").json["save"]["status"] == save().status.name == "SKIPPED"


def test_store_that_cannot_be_read_leaves_the_pod_to_be_shown(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    isolated_env.fill(isolated_env.triton, {"KERNEL/launcher.so": b"x"})
    monkeypatch.setenv("B10_STORE", str(isolated_env.home / "missing" / "store"))
    answer = command("info")
    assert answer.exit_code == 1
    assert "is the volume mounted?" in answer.stderr
    assert f"environment  {detect().id}" in answer.stdout
    found = command("info", "--json").json
    assert (found["packs"], found["load"]["status"], found["save"]["status"]) == (None, "ERROR", "ERROR")
    assert {cache["name"]: cache["units"] for cache in found["caches"]}["triton"] == 1


def test_unreadable_root_is_reported_with_the_others(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    isolated_env.fill(isolated_env.inductor, {"fxgraph/ey/key/graph": b"x"})
    isolated_env.triton.mkdir(parents=True)
    # A name that is too long fails for root, too; permissions do not.
    monkeypatch.setenv("TRITON_CACHE_DIR", str(isolated_env.triton / ("x" * 300)))
    caches = {cache["name"]: cache for cache in command("info", "--json").json["caches"]}
    assert "File name too long" in caches["triton"]["error"]
    assert caches["inductor"]["units"] == 1


def test_setting_that_is_not_usable_is_an_error(isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAX_CACHE_SIZE_MB", "many")
    answer = command("info")
    assert (answer.exit_code, answer.stdout) == (1, "")
    assert "MAX_CACHE_SIZE_MB" in answer.stderr


def test_cache_that_a_variable_puts_where_it_must_not_be_has_an_error(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/etc")
    caches = {cache["name"]: cache for cache in command("info", "--json").json["caches"]}
    assert "TORCHINDUCTOR_CACHE_DIR='/etc' is not usable" in caches["inductor"]["error"]
    assert caches["triton"]["error"] == ""


def test_info_writes_nothing(isolated_env: IsolatedEnv) -> None:
    command("info")
    assert not isolated_env.store.exists()
    assert not list(isolated_env.home.iterdir())


def test_recalled_units_are_not_forecast_to_be_published(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    isolated_env.fill(isolated_env.triton, {"KERNEL/launcher.so": b"x"})
    command("recall", save().pack)
    assert command("info", "--json").json["save"]["status"] == save().status.name == "SKIPPED"
