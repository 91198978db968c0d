"""Which functions are not recorded again, and when they are after all."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("torch")

import torch

from b10_transfer.instant import refusals
from b10_transfer.instant.files import read, write_refusal
from b10_transfer.instant.refusals import Attempt, Refusal

pytestmark = pytest.mark.torch


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    (tmp_path / "refused_helper.py").write_text("SCALE = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(refusals, "_known", {})
    module = importlib.import_module("refused_helper")
    yield module
    del sys.modules["refused_helper"]


def refused(owner: object, module: ModuleType) -> Refusal:
    attempt = Attempt.begin(owner)
    attempt.note("code ran", is_lasting=True)
    attempt.files.add(str(module.__file__))
    refusal = attempt.refusal()
    assert refusal is not None
    return refusal


def test_refusal_holds_in_a_process_with_the_same_code_and_the_same_kinds_of_parts(helper: ModuleType) -> None:
    refusal = refused(torch.nn.Linear(2, 2), helper)
    assert refusal.holds(torch.nn.Linear(2, 2))
    assert refusal.name == refused(torch.nn.Linear(2, 2), helper).name


def test_changed_file_ends_it(helper: ModuleType) -> None:
    refusal = refused(None, helper)
    Path(str(helper.__file__)).write_text("SCALE = 2\n")
    refusals._known.clear()
    assert not refusal.holds(None)
    assert refused(None, helper).name != refusal.name


def test_missing_file_ends_it(helper: ModuleType) -> None:
    refusal = refused(None, helper)
    Path(str(helper.__file__)).unlink()
    refusals._known.clear()
    assert not refusal.holds(None)


def test_model_with_another_kind_of_attribute_is_tried_again(helper: ModuleType) -> None:
    refusal = refused(torch.nn.Linear(2, 2), helper)
    other = torch.nn.Linear(2, 2)
    other.in_features = 2.0  # type: ignore[assignment]
    assert not refusal.holds(other)


def test_another_version_of_the_project_tries_again(helper: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    refusal = refused(None, helper)
    monkeypatch.setattr(refusals, "__version__", "99")
    assert not refusal.holds(None)


def test_reason_of_one_process_is_not_remembered() -> None:
    attempt = Attempt.begin(None)
    attempt.note("code ran", is_lasting=True)
    attempt.note("another profiler is active", is_lasting=False)
    assert attempt.refusal() is None


def test_function_in_no_file_is_tried_again() -> None:
    attempt = Attempt.begin(None)
    attempt.note("code ran", is_lasting=True)
    attempt.files.add("/nowhere/generated.py")
    assert attempt.refusal() is None


def test_refusal_is_written_once(tmp_path: Path, helper: ModuleType) -> None:
    refusal = refused(None, helper)
    assert write_refusal(refusal, tmp_path / "key")
    assert not write_refusal(refusal, tmp_path / "key")
    [file] = (tmp_path / "key").iterdir()
    assert read(file) == refusal
