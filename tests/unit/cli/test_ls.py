"""``b10-compile-cache ls`` lists a store."""

from __future__ import annotations

import re

import pytest

from b10_transfer.environment import detect
from tests.command import UNITS, Publisher, command, damage, pod_like_this
from tests.conftest import IsolatedEnv


@pytest.fixture
def this_pod(isolated_env: IsolatedEnv) -> Publisher:
    return Publisher(isolated_env.store, detect())


@pytest.fixture
def other_pod(isolated_env: IsolatedEnv) -> Publisher:
    return Publisher(isolated_env.store, pod_like_this(torch="2.12.0+cpu"), "other-team")


def test_missing_store_is_reported(isolated_env: IsolatedEnv) -> None:
    answer = command("ls")
    assert (answer.exit_code, answer.stdout) == (0, f"{isolated_env.store} does not exist yet\n")
    assert not isolated_env.store.exists()


def test_store_that_exists_and_is_empty_holds_no_packs(isolated_env: IsolatedEnv) -> None:
    isolated_env.store.mkdir()
    assert command("ls").stdout == f"{isolated_env.store} holds no packs\n"


def test_volume_that_is_not_mounted_is_an_error_on_stderr(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("B10_STORE", str(isolated_env.home / "missing" / "store"))
    answer = command("ls")
    assert (answer.exit_code, answer.stdout) == (1, "")
    assert "is the volume mounted?" in answer.stderr
    assert command("ls", "--json").json.keys() == {"error"}


@pytest.mark.parametrize(
    ("variable", "value"),
    [("B10_DEADLINE_SECONDS", "soon"), ("B10_STORE", "ftp://host/store"), ("MAX_CACHE_SIZE_MB", "0")],
)
def test_setting_that_is_not_usable_is_named(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    answer = command("ls")
    assert answer.exit_code == 1
    assert variable in answer.stderr


@pytest.mark.parametrize("name", ["load", "save", "ls", "info", "explain", "verify", "prune", "clear"])
@pytest.mark.parametrize(("option", "value"), [("--deadline", "-1"), ("--deadline", "nan"), ("--namespace", "a b")])
def test_value_that_an_option_cannot_have_is_wrong_usage_and_names_the_option(
    isolated_env: IsolatedEnv, name: str, option: str, value: str
) -> None:
    answer = command(name, option, value)
    assert answer.exit_code == 2
    assert f"Invalid value for '{option}': '{value}' is not usable: it must be" in answer.stderr


@pytest.mark.parametrize("arguments", [["--deadline", "x"], ["--nonsense"], ["argument"]])
def test_wrong_usage_has_an_exit_code_of_its_own(isolated_env: IsolatedEnv, arguments: list[str]) -> None:
    assert command("ls", *arguments).exit_code == 2


def test_numbers_of_a_pack_whose_index_is_not_read_are_left_out(this_pod: Publisher) -> None:
    pack = this_pod.publish().name.removesuffix(".tar.zst")
    assert command("recall", pack).exit_code == 0
    [line] = [line for line in command("ls", "--packs").stdout.splitlines() if pack in line]
    assert re.search(r" ago +\d[\d.]* k?B  recalled", line)


def test_each_environment_is_a_line_and_this_pods_is_marked(this_pod: Publisher, other_pod: Publisher) -> None:
    this_pod.publish()
    this_pod.publish({"triton/OTHER/": {"launcher.so": b""}})
    other_pod.publish()
    title, headings, *lines, total = command("ls").stdout.splitlines()
    assert title == str(this_pod.store)
    assert headings.split() == ["NAMESPACE", "ENVIRONMENT", "WHAT", "PACKS", "UNITS", "FILES", "SIZE", "NEWEST", "USED"]
    assert len(lines) == 2
    assert total.startswith("2 environments, 3 packs, ")
    assert lines[0].startswith(f"default     {this_pod.environment.id}  torch {detect().parts['torch']}, ")
    assert lines[0].endswith("this pod")
    assert lines[1].startswith(f"other-team  {other_pod.environment.id}  torch 2.12.0+cpu, ")
    assert not lines[1].endswith("this pod")


def test_namespace_without_packs_names_the_others(this_pod: Publisher) -> None:
    this_pod.publish()
    answer = command("ls", "--namespace", "nope")
    assert answer.stdout == f"no packs in namespace nope; namespaces in {this_pod.store}: default\n"


def test_mistyped_subcommand_is_suggested(isolated_env: IsolatedEnv) -> None:
    answer = command("explian")
    assert answer.exit_code == 2
    assert "No such command 'explian'. Did you mean explain?" in answer.stderr


def test_namespace_shows_that_one_alone(this_pod: Publisher, other_pod: Publisher) -> None:
    this_pod.publish()
    other_pod.publish()
    found = command("ls", "--namespace", "other-team", "--json").json
    assert [environment["namespace"] for environment in found["environments"]] == ["other-team"]


def test_b10_namespace_hides_no_other(
    this_pod: Publisher, other_pod: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    this_pod.publish()
    other_pod.publish()
    monkeypatch.setenv("B10_NAMESPACE", "other-team")
    assert len(command("ls", "--json").json["environments"]) == 2


def test_json_is_complete(this_pod: Publisher) -> None:
    pack = this_pod.publish()
    found = command("ls", "--json").json
    assert found.keys() == {"store", "exists", "environment_id", "environments", "errors", "namespaces"}
    assert (found["store"], found["exists"]) == (str(this_pod.store), True)
    assert found["environment_id"] == this_pod.environment.id
    [environment] = found["environments"]
    [stored] = environment.pop("packs")
    size, modified = pack.stat().st_size, pack.stat().st_mtime
    assert environment == {
        "namespace": "default",
        "id": this_pod.environment.id,
        "parts": dict(this_pod.environment.parts),
        "this_pod": True,
        "units": 2,
        "files": 2,
        "bytes": 1300,
        "packed_bytes": size,
        "newest_s": modified,
        "used_s": None,
        "caches": {
            "inductor": {"units": 1, "files": 1, "bytes": 700},
            "triton": {"units": 1, "files": 1, "bytes": 600},
        },
    }
    assert stored == {
        "id": pack.name.removesuffix(".tar.zst"),
        "state": "usable",
        "why": "",
        "published_s": modified,
        "packed_bytes": size,
        "units": 2,
        "files": 2,
        "bytes": 1300,
        "superseded_by": "",
        "recalled_in_part": False,
        "marked_by": "",
        "marked_s": None,
    }


def test_unit_in_two_packs_counts_once(this_pod: Publisher) -> None:
    this_pod.publish()
    this_pod.publish()
    [environment] = command("ls", "--json").json["environments"]
    assert (environment["units"], len(environment["packs"])) == (2, 2)


def test_damaged_and_set_aside_packs_have_their_states(this_pod: Publisher) -> None:
    sound, damaged, aside = (this_pod.publish() for _ in range(3))
    damage(damaged)
    (this_pod.folder / "quarantine").mkdir()
    (this_pod.folder / "quarantine" / aside.name.removesuffix(".tar.zst")).write_text("{}")
    [environment] = command("ls", "--json").json["environments"]
    states = {pack["id"]: pack["state"] for pack in environment["packs"]}
    assert states == {
        sound.name.removesuffix(".tar.zst"): "usable",
        damaged.name.removesuffix(".tar.zst"): "damaged",
        aside.name.removesuffix(".tar.zst"): "set aside",
    }
    assert environment["units"] == len(UNITS)
    assert "3 (2 unusable)" in command("ls").stdout


def test_packs_shows_a_line_for_each(this_pod: Publisher) -> None:
    packs = [this_pod.publish(), this_pod.publish()]
    damage(packs[1])
    _title, headings, first, second = command("ls", "--packs").stdout.splitlines()
    assert headings.split()[-1] == "STATE"
    assert packs[0].name.removesuffix(".tar.zst") in first
    assert first.endswith("usable")
    assert "damaged: " in second


def test_pack_over_this_pods_limit_is_too_large(this_pod: Publisher, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = bytes(range(256)) * 8192
    this_pod.publish({"triton/KERNEL/": {"launcher.so": bytes(byte ^ index % 251 for index, byte in enumerate(noise))}})
    pack = next(this_pod.folder.glob("packs/*"))
    with open(pack, "ab") as file:
        file.truncate(2 * 1024 * 1024)
    monkeypatch.setenv("MAX_CACHE_SIZE_MB", "1")
    [environment] = command("ls", "--json").json["environments"]
    assert environment["packs"][0]["state"] == "too large"


@pytest.mark.parametrize("description", [b"", b"{}", b"\xff", b'{"id": "0", "parts": {"torch": "9"}}'])
def test_lost_description_is_made_up_for_by_a_pack(this_pod: Publisher, description: bytes) -> None:
    this_pod.publish()
    (this_pod.folder / "environment.json").write_bytes(description)
    [environment] = command("ls", "--json").json["environments"]
    assert environment["parts"] == dict(this_pod.environment.parts)


def test_foreign_objects_are_ignored(this_pod: Publisher) -> None:
    pack = this_pod.publish()
    for folder in ("v1/.leases", "v1/default/not an id", f"v1/default/{'0' * 32}/packs", "v2/x", "v1/-x/y"):
        (this_pod.store / folder).mkdir(parents=True, exist_ok=True)
    (pack.parent / "notes.txt").write_text("mine")
    (this_pod.store / "v1" / "file").write_text("mine")
    found = command("ls", "--json").json
    assert [(environment["id"], len(environment["packs"])) for environment in found["environments"]] == [
        (this_pod.environment.id, 1)
    ]


def test_nothing_in_a_store_can_steer_a_terminal(this_pod: Publisher) -> None:
    hostile = Publisher(this_pod.store, pod_like_this(torch="\x1b[31mred\x07", device="\u202e"))
    hostile.publish()
    shown = command("ls").stdout
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert "\\x1b[31mred\\x07" in shown


def test_ls_writes_nothing(this_pod: Publisher) -> None:
    this_pod.publish()
    before = {path: path.stat().st_mtime_ns for path in this_pod.store.rglob("*")}
    command("ls")
    command("ls", "--packs")
    assert {path: path.stat().st_mtime_ns for path in this_pod.store.rglob("*")} == before


@pytest.mark.parametrize("subcommand", ["ls", "verify"])
def test_unreadable_environment_is_an_error_and_the_others_are_listed(this_pod: Publisher, subcommand: str) -> None:
    this_pod.publish()
    broken = this_pod.store / "v1" / "default" / ("f" * 32)
    broken.mkdir()
    (broken / "packs").write_text("no folder")
    answer = command(subcommand, "--json")
    assert answer.exit_code == 1
    assert [environment["id"] for environment in answer.json["environments"]] == [this_pod.environment.id]
    assert f"error: could not list {broken}/packs: Not a directory" in answer.stderr
