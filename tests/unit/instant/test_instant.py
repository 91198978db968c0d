"""Asking for an instant start: what is answered where it cannot be had, and that nobody pays for it unasked."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner

from b10_transfer import OperationStatus, instant, load, save
from b10_transfer.cli import run
from b10_transfer.environment.frameworks import TorchBuild


def test_without_torch_the_load_says_that_there_is_no_instant_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    assert load(store=tmp_path, instant=True).instant == "torch is not installed"


def test_older_torch_has_no_instant_starts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Also if it has all the parts that are patched: torch 2.12 has."""
    monkeypatch.setattr(instant, "torch_build", lambda: TorchBuild("2.12.1+cu130"))
    report = load(store=tmp_path, instant=True)
    assert report.instant == "torch 2.12.1+cu130 is too old, instant starts need 2.13"


@pytest.mark.parametrize("version", ["2.15.0+cu132", "2.16.0", "3.0.0"])
def test_newer_torch_with_which_the_matrix_has_not_passed_has_no_instant_starts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, version: str
) -> None:
    monkeypatch.setattr(instant, "torch_build", lambda: TorchBuild(version))
    report = load(store=tmp_path, instant=True)
    assert report.instant == f"torch {version} is too new, instant starts need an older one than 2.15"
    assert report.status is OperationStatus.DOES_NOT_EXIST


def test_whatever_torch_lacks_is_said_and_the_load_goes_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(instant, "torch_build", lambda: TorchBuild("2.14.0"))  # whatever is installed
    monkeypatch.setitem(sys.modules, "b10_transfer.instant.hooks", None)
    monkeypatch.delattr(instant, "hooks", raising=False)
    report = load(store=tmp_path, instant=True)
    assert "this torch lacks parts that instant starts need" in report.instant
    assert report.status is OperationStatus.DOES_NOT_EXIST


@pytest.mark.torch
def test_a_torch_that_names_a_parameter_in_another_way_has_no_instant_start(tmp_path: Path) -> None:
    program = f"""
import torch._functorch._aot_autograd.autograd_cache as cache
key = cache.autograd_cache_key
cache.autograd_cache_key = lambda graph, example_inputs, config: key(graph, example_inputs, config)
import b10_transfer
from b10_transfer import instant
from b10_transfer.environment.frameworks import TorchBuild
instant.torch_build = lambda: TorchBuild("2.14.0")
print(b10_transfer.load(store={str(tmp_path)!r}, instant=True).instant)
"""
    environment = os.environ | {"HOME": str(tmp_path)}
    said = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert "this torch's AOTAutograd makes or names its cache entries in another way" in said.stdout


def test_preparing_ends_at_the_deadline_and_counts_in_the_report(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(instant, "prepare", lambda _files, _deadline: threading.Event().wait(60) and "")
    report = load(store=tmp_path, instant=True, deadline_s=0.5)
    assert "preparing instant starts" in report.instant
    assert report.seconds >= 0.5


def test_a_save_that_waits_for_traces_ends_at_the_deadline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(instant, "flush", lambda: threading.Event().wait(60) and 0)
    report = save(store=tmp_path, deadline_s=0.5)
    assert report.status is OperationStatus.ERROR
    assert "writing traces" in report.reason


def test_a_wrong_value_of_the_variable_is_said_and_the_load_goes_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("B10_INSTANT", "perhaps")
    report = load(store=tmp_path)
    assert "B10_INSTANT" in report.instant
    assert report.status is OperationStatus.DOES_NOT_EXIST


def test_a_load_that_is_not_asked_for_an_instant_start_imports_no_torch(tmp_path: Path) -> None:
    program = f"import sys, b10_transfer as b; b.load(store={str(tmp_path)!r}); b.save(store={str(tmp_path)!r})"
    command = [sys.executable, "-c", f"{program}; sys.exit('torch' in sys.modules)"]
    environment = {name: value for name, value in os.environ.items() if name != "B10_INSTANT"}
    assert subprocess.run(command, env=environment | {"HOME": str(tmp_path)}).returncode == 0


def test_run_tells_its_server_by_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    monkeypatch.setenv("B10_INSTANT", "0")
    monkeypatch.setattr("b10_transfer.cli.run.run", lambda *_a, **_k: found.append(os.environ["B10_INSTANT"]))
    monkeypatch.setattr(os, "_exit", lambda _code: None)
    CliRunner().invoke(run.command, ["--instant", "--", "true"])
    assert found == ["1"]
