"""Which libraries ninja has finished, as its log says."""

from __future__ import annotations

from pathlib import Path

import pytest

from b10_transfer.adapters.ninja import has_built_library
from tests.conftest import FillTree

LOG = b"# ninja log v7\n0\t22760\t1795449921525260545\tmain.o\t607128015deae6ac\n"
LINKED = b"22760\t23066\t1795449944286738074\tmod.so\tcdcaf21747c84c49\n"
LINKED_ELSEWHERE = b"22760\t23066\t1795449944286738074\t/root/.cache/ext/mod/mod.so\tcdcaf21747c84c49\n"


@pytest.mark.parametrize("linked", [LINKED, LINKED_ELSEWHERE])
def test_library_is_built_once_the_log_names_it(tmp_path: Path, fill: FillTree, linked: bytes) -> None:
    fill(tmp_path, {".ninja_log": LOG})
    assert not has_built_library(tmp_path, ["mod/main.o", "mod/mod.so"])
    fill(tmp_path, {".ninja_log": LOG + linked})
    assert has_built_library(tmp_path, ["mod/main.o", "mod/mod.so"])


def test_library_without_a_log_is_not_built(tmp_path: Path) -> None:
    assert not has_built_library(tmp_path, ["mod/mod.so"])


def test_objects_alone_are_no_library(tmp_path: Path, fill: FillTree) -> None:
    fill(tmp_path, {".ninja_log": LOG + LINKED})
    assert not has_built_library(tmp_path, ["mod/main.o"])
    assert not has_built_library(tmp_path, [])


def test_log_that_is_no_log_names_nothing(tmp_path: Path, fill: FillTree) -> None:
    fill(tmp_path, {".ninja_log": b"\xff\x00mod.so\tmod.so\n" * 3})
    assert not has_built_library(tmp_path, ["mod/mod.so"])
