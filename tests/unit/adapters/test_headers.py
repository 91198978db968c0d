"""Inductor's precompiled headers: two files of one stem, finished once the compiled one is there and unlocked."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from b10_transfer.adapters.base import Unit, UnitKind
from b10_transfer.adapters.headers import HeadersAdapter

ADAPTER = HeadersAdapter()
UNIT = Unit("cabc123", UnitKind.STEM)
FILES = ["cabc123.h", "cabc123.h.gch"]


@pytest.mark.parametrize("path", FILES)
def test_header_and_its_compiled_form_are_one_unit(path: str) -> None:
    assert ADAPTER.unit_of(path) == UNIT


@pytest.mark.parametrize("path", ["locks/cabc123.lock", "cabc123.lock", ".hidden", "cabc123.h.1.tmp", "deeper/x.h.gch"])
def test_file_that_is_no_artifact_belongs_to_no_unit(path: str) -> None:
    assert ADAPTER.unit_of(path) is None


def test_no_folder_holds_artifacts() -> None:
    assert ADAPTER.skips_folder("locks")
    assert ADAPTER.skips_folder("deeper")


def test_header_is_complete_once_it_is_compiled(tmp_path: Path) -> None:
    assert ADAPTER.is_complete(tmp_path, UNIT, FILES)
    assert not ADAPTER.is_complete(tmp_path, UNIT, FILES[:1])


def test_header_is_incomplete_while_its_lock_is_held(tmp_path: Path) -> None:
    (tmp_path / "locks").mkdir()
    descriptor = os.open(tmp_path / "locks" / "cabc123.lock", os.O_CREAT | os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    assert not ADAPTER.is_complete(tmp_path, UNIT, FILES)
    os.close(descriptor)
    assert ADAPTER.is_complete(tmp_path, UNIT, FILES)
