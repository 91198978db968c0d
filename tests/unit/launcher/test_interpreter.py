"""The server's interpreter is found from its command line."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from b10_transfer.environment.frameworks import TorchBuild
from b10_transfer.launcher import interpreter as finder
from b10_transfer.launcher.interpreter import python_of, use_interpreter_of, use_interpreter_of_known_server


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the PATH, with an interpreter of another environment."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("B10_PYTHON", "")  # so that a value which the code sets is removed after the test
    monkeypatch.delenv("B10_PYTHON")
    program(tmp_path, "python3.99", f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    return tmp_path


def program(folder: Path, name: str, text: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    "beginning",
    [
        "#!{python}\n",
        "#! {python} -s\n",
        "#!/usr/bin/env python3.99\n",
        "#!/bin/sh\n'''exec' \"{python}\" \"$0\" \"$@\"\n' '''\n",
        "#!/bin/sh\n'''exec' {python} \"$0\" \"$@\"\n' '''\n",
    ],
    ids=["plain", "option", "env", "long path", "long path without quotes"],
)
def test_interpreter_of_a_script_is_found(programs: Path, beginning: str) -> None:
    python = str(programs / "python3.99")
    program(programs, "serve-it", beginning.format(python=python) + "print()\n")
    assert python_of(["serve-it", "model"]) == python
    assert python_of([str(programs / "serve-it")]) == python


def test_interpreter_that_is_named_itself_is_found(programs: Path) -> None:
    assert python_of(["python3.99", "-m", "server"]) == str(programs / "python3.99")
    assert python_of([sys.executable, "-m", "server"]) == sys.executable


@pytest.mark.parametrize(
    "text", [b"", b"\x7fELF\x02\x01", b"#!/bin/sh\necho\n", b"#!", b"#!/usr/bin/env\n", b"#!/no/python3\n"]
)
def test_other_programs_have_none(programs: Path, text: bytes) -> None:
    program(programs, "serve-it", text)
    assert python_of(["serve-it"]) is None


@pytest.mark.parametrize("arguments", [[], ["there-is-no-such-program"], ["/"]])
def test_what_does_not_exist_has_none(arguments: list[str]) -> None:
    assert python_of(arguments) is None


def test_other_interpreter_decides_the_key(programs: Path) -> None:
    use_interpreter_of(["python3.99"])
    assert os.environ["B10_PYTHON"] == str(programs / "python3.99")


def test_this_interpreter_is_not_started_again(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finder, "ask", lambda _path: pytest.fail("it was started"))
    use_interpreter_of([sys.executable, "-m", "server"])
    assert "B10_PYTHON" not in os.environ


def test_choice_of_the_user_stays(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("B10_PYTHON", "/chosen")
    use_interpreter_of(["python3.99"])
    assert os.environ["B10_PYTHON"] == "/chosen"


def test_interpreter_that_does_not_run_changes_nothing(programs: Path, caplog: pytest.LogCaptureFixture) -> None:
    program(programs, "python3.99", "#!/bin/sh\nexit 1\n")
    use_interpreter_of(["python3.99"])
    assert "B10_PYTHON" not in os.environ
    assert sys.executable in caplog.text


@pytest.mark.parametrize(("version", "expected"), [("", True), ("2.13.0", False)], ids=["without torch", "with torch"])
def test_server_on_the_path_decides_for_a_command_without_torch(
    programs: Path, monkeypatch: pytest.MonkeyPatch, version: str, expected: bool
) -> None:
    program(programs, "sglang", "#!/usr/bin/env python3.99\n")
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    monkeypatch.setattr(finder, "torch_build", lambda: TorchBuild(version))
    use_interpreter_of_known_server()
    assert (os.environ.get("B10_PYTHON") == str(programs / "python3.99")) is expected
