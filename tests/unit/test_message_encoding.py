"""Every log handler can write messages with any bytes of a path or a variable."""

from __future__ import annotations

import logging

import pytest

from b10_transfer.errors import ConfigurationError, CorruptPackError, StoreError
from b10_transfer.notices import Notices

PATH = "/cache/\udcff"


def test_notice_escapes_bytes_that_are_not_utf_8(caplog: pytest.LogCaptureFixture) -> None:
    Notices().log(logging.getLogger("b10_transfer"), logging.WARNING, f"{PATH} is left out")
    assert caplog.messages == ["/cache/\\udcff is left out"]


def test_rule_of_a_setting_escapes_bytes_that_are_not_utf_8() -> None:
    assert str(ConfigurationError("B10_STORE", PATH, f"{PATH} is no store")).isascii()


@pytest.mark.parametrize(
    "error", [StoreError("read", "a\x1b[2J", "b\nINFO c"), CorruptPackError("id", "a\x1b[2J b\nINFO c")]
)
def test_error_begins_no_line_and_controls_no_terminal(error: Exception) -> None:
    assert str(error).isprintable()
    assert r"a\x1b[2J" in str(error)
    assert r"b\nINFO c" in str(error)
