"""Settings of the command: a wrong value is logged, and the default is used."""

from __future__ import annotations

import logging

import pytest

from b10_transfer.config.launcher import LAUNCHER_VARIABLES, LauncherConfig, read_log_level

DEFAULT = LauncherConfig(None, 1800, 2, 15, 15, 10)
FIELDS = {
    "B10_TRANSFER_TIMEOUT_S": "timeout_s",
    "B10_TRANSFER_INTERVAL_S": "interval_s",
    "B10_QUIET_SECONDS": "quiet_s",
    "B10_START_WITHIN_SECONDS": "start_within_s",
    "B10_LAST_SAVE_SECONDS": "last_save_s",
}


def test_nothing_set_is_the_defaults() -> None:
    assert LauncherConfig.from_environment({}) == DEFAULT
    assert LauncherConfig.from_environment({variable.name: "" for variable in LAUNCHER_VARIABLES}) == DEFAULT
    assert read_log_level({}) == "INFO"


@pytest.mark.parametrize(("name", "field"), FIELDS.items())
def test_number_of_seconds_is_taken(name: str, field: str) -> None:
    assert getattr(LauncherConfig.from_environment({name: "0.25"}), field) == 0.25


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "soon", "86401", "1e99"])
@pytest.mark.parametrize("name", FIELDS)
def test_wrong_number_is_logged_and_the_default_used(caplog: pytest.LogCaptureFixture, name: str, value: str) -> None:
    assert LauncherConfig.from_environment({name: value}) == DEFAULT
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert name in record.getMessage()
    assert value in record.getMessage()


def test_wrong_url_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    name = "B10_TRANSFER_VLLM_URL"
    assert LauncherConfig.from_environment({name: "https://h:1/health"}).url == "https://h:1/health"
    assert not caplog.records
    assert LauncherConfig.from_environment({name: "localhost:8000"}).url is None
    assert "localhost:8000" in caplog.text


def test_log_level_ignores_case_and_a_wrong_one_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    name = "B10_TRANSFER_CLI_LOGLEVEL"
    assert read_log_level({name: "debug"}) == "DEBUG"
    assert not caplog.records
    assert read_log_level({name: "LOUD"}) == "INFO"
    assert "LOUD" in caplog.text


def test_server_of_a_pod_that_waits_for_another_is_held_back_as_long() -> None:
    assert LauncherConfig.from_environment({"B10_WAIT_FOR_COMPILE_SECONDS": "600"}).start_within_s == 615
    assert LauncherConfig.from_environment({"B10_WAIT_FOR_COMPILE_SECONDS": "soon"}) == DEFAULT
