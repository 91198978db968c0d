"""``b10-compile-cache doctor``: its checks and its advice."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from b10_transfer import load
from b10_transfer.environment import detect
from b10_transfer.environment.frameworks import TorchBuild
from tests.command import Publisher, command
from tests.conftest import IsolatedEnv


@pytest.fixture(autouse=True)
def torch_is_installed(isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests must not depend on an installed torch."""
    monkeypatch.setattr("b10_transfer.inspection.doctor.torch_build", lambda: TorchBuild("2.13.0"))
    monkeypatch.delenv("B10_TEST_EVERYTHING", raising=False)


def checks(*arguments: str) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for check in command("doctor", "--json", *arguments).json["checks"]:
        found.setdefault(check["name"], []).append(check)
    return found


def test_sound_pod_and_store_pass(isolated_env: IsolatedEnv) -> None:
    answer = command("doctor")
    assert answer.exit_code == 0
    assert {line.split()[0] for line in answer.stdout.splitlines()} == {"ok"}


def test_json_is_healthy_and_a_list_of_checks(isolated_env: IsolatedEnv) -> None:
    found = command("doctor", "--json").json
    assert found.keys() == {"healthy", "checks"}
    assert found["healthy"] is True
    assert found["checks"][0] == {"name": "settings", "state": "OK", "seen": "every setting is usable", "advice": ""}


def test_nothing_of_a_doctor_is_left_that_ls_or_load_would_find(isolated_env: IsolatedEnv) -> None:
    command("doctor")
    assert [path for path in isolated_env.store.rglob("*") if path.is_file()] == []
    assert command("ls", "--json").json["environments"] == []
    assert load().status.name == "DOES_NOT_EXIST"


def test_all_wrong_settings_are_reported_at_once(isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = {
        "MAX_CACHE_SIZE_MB": "0",
        "B10_MERGE": "yes",
        "TORCHINDUCTOR_CACHE_DIR": "/etc",
        "B10_DEADLINE_SECONDS": "-1",
        "B10_CACHES": "nonsense",
    }
    for name, value in wrong.items():
        monkeypatch.setenv(name, value)
    answer = command("doctor", "--json")
    assert answer.exit_code == 1
    told = [check for check in answer.json["checks"] if check["name"] == "settings"]
    assert {check["state"] for check in told} == {"PROBLEM"}
    assert {check["seen"].partition("=")[0] for check in told} == set(wrong)
    assert {check["advice"].removeprefix("correct ").partition(",")[0] for check in told} == set(wrong)


def test_store_that_is_wrongly_set_is_not_replaced_by_another(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("B10_STORE", "ftp://host/store")
    found = checks()
    assert found["store"][0]["seen"] == "not checked"
    assert "write" not in found


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("MAX_CACHE_SIZE_MB", "9999", "above its cap"),
        ("B10_TRANSFER_TIMEOUT_S", "soon", "B10_TRANSFER_TIMEOUT_S='soon' is not usable"),
        ("B10_TRANSFER_CLI_LOGLEVEL", "LOUD", "B10_TRANSFER_CLI_LOGLEVEL='LOUD' is not usable"),
        ("B10_NAMESPCE", "x", "B10_NAMESPCE is set"),
    ],
)
def test_setting_that_is_replaced_or_ignored_is_a_warning(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, name: str, value: str, words: str
) -> None:
    monkeypatch.setenv(name, value)
    answer = command("doctor", "--json")
    assert answer.exit_code == 0
    [check] = [check for check in answer.json["checks"] if check["state"] == "WARNING"]
    assert (check["name"], words in check["seen"]) == ("settings", True)


def test_misspelt_variable_gets_a_suggestion(isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("B10_NAMESPCE", "x")
    assert "B10_NAMESPACE" in checks()["settings"][0]["advice"]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(["--namespace", "a b"], 2), (["--store", "ftp://host/store"], 1), (["--deadline", "-1"], 2)],
)
def test_argument_that_is_not_usable_is_an_error(isolated_env: IsolatedEnv, arguments: list[str], code: int) -> None:
    answer = command("doctor", *arguments)
    assert (answer.exit_code, answer.stdout) == (code, "")
    assert "is not usable" in answer.stderr


def test_volume_that_is_not_mounted_is_a_problem_and_the_rest_is_checked(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("B10_STORE", str(isolated_env.home / "missing" / "store"))
    assert command("doctor").exit_code == 1
    found = checks()
    assert [check["state"] for check in found["store"]] == ["OK", "PROBLEM"]
    assert "is the volume mounted?" in found["store"][1]["seen"]
    assert found["work directory"][0]["state"] == found["key"][0]["state"] == "OK"


def test_store_that_is_a_file_is_a_problem(isolated_env: IsolatedEnv) -> None:
    isolated_env.store.write_text("")
    assert command("doctor").exit_code == 1


def test_work_directory_that_cannot_be_written_is_a_problem(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_WORK_DIR", "/app/none")
    monkeypatch.setattr("b10_transfer.inspection.doctor._nearest_folder", lambda _path: Path("/proc"))
    answer = command("doctor")
    assert answer.exit_code == 1
    assert "problem  work directory" in answer.stdout
    assert "-> saves fail: make it writable, or set LOCAL_WORK_DIR" in answer.stdout


def test_cache_that_cannot_be_written_is_a_problem(isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    access = "b10_transfer.inspection.doctor.os.access"
    monkeypatch.setattr(access, lambda path, _mode, **_options: ".triton" not in str(path))
    (isolated_env.home / ".triton").mkdir()
    [check] = checks()["cache triton"]
    assert (check["state"], "nothing can be restored to" in check["seen"]) == ("PROBLEM", True)
    assert check["advice"] == "make it writable, or point TRITON_CACHE_DIR elsewhere"


def test_cache_of_another_user_is_a_warning(isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    isolated_env.fill(isolated_env.triton, {"KERNEL/launcher.so": b"x"})
    # Only for these checks: the package must still take the folders for this user's own.
    monkeypatch.setattr("b10_transfer.inspection.doctor.os", SimpleNamespace(**vars(os) | {"geteuid": lambda: 4711}))
    [check] = checks()["cache triton"]
    assert (check["state"], "this command runs as user 4711" in check["seen"]) == ("WARNING", True)


def test_contents_of_caches_are_shown(isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    isolated_env.fill(isolated_env.triton, {"KERNEL/launcher.so": b"x"})
    monkeypatch.setenv("B10_CACHES", "triton,inductor")
    found = checks()
    assert found["cache triton"][0]["seen"] == f"1 unit, 0.0 MB in {isolated_env.triton}"
    assert found["caches"][0]["seen"] == "empty and writable: inductor"
    assert found["caches"][1]["seen"].startswith("B10_CACHES leaves out ")


def test_missing_torch_is_a_problem(isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("b10_transfer.inspection.doctor.torch_build", TorchBuild)
    answer = command("doctor")
    assert answer.exit_code == 1
    assert "B10_PYTHON" in answer.stdout


def test_torch_for_a_device_that_is_not_there_is_a_warning(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    if detect().parts["accelerator"] != "cpu":
        pytest.skip("there is a device")
    monkeypatch.setattr("b10_transfer.inspection.doctor.torch_build", lambda: TorchBuild("2.13.0", cuda="13.0"))
    assert "torch is built for CUDA 13.0, but no device was found" in checks()["key"][0]["seen"]


def test_per_pod_variables_are_a_warning(isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_NIXL_SIDE_CHANNEL_PORT", "5600")
    answer = command("doctor")
    assert answer.exit_code == 0
    assert "warning  per-pod variables" in answer.stdout


def test_pod_that_only_reads_writes_nothing(isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("B10_READ_ONLY", "1")
    assert command("doctor").exit_code == 0
    assert not isolated_env.store.exists()


def test_logging_is_as_it_was_afterwards(isolated_env: IsolatedEnv) -> None:
    logger = logging.getLogger("b10_transfer.config")
    before = logger.handlers[:], logger.propagate
    command("doctor")
    assert (logger.handlers, logger.propagate) == before


def test_store_in_use_passes_and_keeps_what_it_has(isolated_env: IsolatedEnv) -> None:
    pack = Publisher(isolated_env.store, detect()).publish()
    assert command("doctor").exit_code == 0
    assert pack.exists()
    assert command("explain").exit_code == 0


def test_space_that_a_restore_needs_is_compared_with_what_there_is(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    Publisher(isolated_env.store, detect()).publish()
    [sound] = checks()["room for a load"]
    assert sound["state"] == "OK"
    monkeypatch.setattr("b10_transfer.local.room._BLOCK_BYTES", 1 << 60)
    answer = command("doctor")
    assert answer.exit_code == 1
    assert "-> free some space, or point TRITON_CACHE_DIR at a larger file system" in answer.stdout


def test_one_cause_is_reported_once(isolated_env: IsolatedEnv) -> None:
    isolated_env.home.chmod(0o777)
    answer = command("doctor")
    assert answer.exit_code == 1
    assert answer.stdout.count(f"every user can write to {isolated_env.home} ") == 1
    assert "caches are left out: " in answer.stdout
