"""The key is that of the interpreter that ``B10_PYTHON`` names."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from b10_transfer import OperationStatus, load
from b10_transfer.environment import detect
from b10_transfer.environment.frameworks import torch_build, triton_version
from b10_transfer.environment.interpreter import interpreter
from b10_transfer.errors import ConfigurationError
from tests.command import command
from tests.conftest import IsolatedEnv


@pytest.fixture
def other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Python with a torch of its own: this one, by a script that adds a folder to its path."""
    packages = tmp_path / "packages"
    for name, file, text in (
        ("torch", "version.py", '__version__ = "2.99.0+cu130"\ncuda: str | None = "13.0"\n'),
        ("torch", "__init__.py", "raise SystemExit('imported')"),
        ("triton", "__init__.py", "__version__ = '3.99'\nraise SystemExit('imported')"),
    ):
        (packages / name).mkdir(parents=True, exist_ok=True)
        (packages / name / file).write_text(text)
    python = tmp_path / "bin" / "python3"
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\nPYTHONPATH={packages} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    return python


def test_key_names_the_torch_of_the_chosen_interpreter(other: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("B10_PYTHON", str(other))
    found = detect()
    assert (found.parts["torch"], found.parts["triton"]) == ("2.99.0+cu130", "3.99")
    assert found.parts["python"] == sys.implementation.cache_tag
    assert found.recorded["interpreter"] == str(other)


def test_without_a_choice_it_is_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("B10_PYTHON", raising=False)
    assert interpreter().executable == sys.executable


def test_this_interpreter_gives_the_same_key_however_it_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("B10_PYTHON", raising=False)
    expected = (torch_build(), triton_version(), detect().id)
    monkeypatch.setenv("B10_PYTHON", sys.executable)
    assert (torch_build(), triton_version(), detect().id) == expected


@pytest.mark.parametrize("kind", ["missing", "not executable", "fails", "no Python", "silent"])
def test_what_is_no_interpreter_is_an_error_that_names_the_variable(
    isolated_env: IsolatedEnv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    path = tmp_path / "python"
    if kind != "missing":
        answer = {"fails": "exit 3", "no Python": "echo hello", "silent": "exit 0"}.get(kind, "")
        path.write_text(f"#!/bin/sh\n{answer}\n")
        path.chmod(0o644 if kind == "not executable" else 0o755)
    monkeypatch.setenv("B10_PYTHON", str(path))
    with pytest.raises(ConfigurationError, match="B10_PYTHON"):
        interpreter()
    report = load()
    assert report.status is OperationStatus.ERROR
    assert "B10_PYTHON" in report.reason
    for name in ("info", "explain", "doctor"):
        answered = command(name)
        assert answered.exit_code == 1
        assert "B10_PYTHON" in answered.stdout + answered.stderr


def test_code_of_the_working_directory_is_not_taken_for_torch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "version.py").write_text('__version__ = "6.6.6"')
    (tmp_path / "torch" / "__init__.py").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("B10_PYTHON", sys.executable)
    assert torch_build().version != "6.6.6"
    assert os.getcwd() == str(tmp_path)
