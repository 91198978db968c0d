"""The exit code of a program that cannot be started."""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path

import pytest

from b10_transfer.launcher.processes import why_not_started
from tests.users import another_user


def start(program: str) -> tuple[int, str]:
    """Start a program that cannot be started, as a user who cannot search every folder."""
    with another_user(12345) if os.geteuid() == 0 else nullcontext(), pytest.raises(OSError) as raised:
        os.posix_spawnp(program, [program], {})
    return why_not_started(program, raised.value)


def test_folder_that_cannot_be_searched_makes_no_program_exist(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o000)
    monkeypatch.setenv("PATH", f"{closed}:/usr/bin:/bin")
    assert start("no-such-program") == (127, "No such file or directory")
    closed.chmod(0o700)


def test_program_that_may_not_be_executed_is_another_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no program\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert start("text") == (126, "Permission denied")
    assert start(str(tmp_path / "text")) == (126, "Permission denied")
