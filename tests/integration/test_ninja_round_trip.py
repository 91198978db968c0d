"""Real ninja and a real compiler: ninja takes a restored build as current, but only at the same path."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from b10_transfer import OperationStatus, load, save
from tests.conftest import IsolatedEnv

BUILD = """\
rule compile
  command = cc -MMD -MF $out.d -fPIC -c $in -o $out
  depfile = $out.d
  deps = gcc
rule link
  command = cc -shared $in -o $out
build main.o: compile {folder}/main.c
build mod.so: link main.o
default mod.so
"""
CURRENT = "ninja: no work to do."
PLACES = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
"""The search path of programs: ninja may be in the tests' own environment."""


@pytest.fixture(autouse=True)
def tools() -> None:
    for tool in ("ninja", "cc"):
        if shutil.which(tool, path=PLACES) is None:
            message = f"needs {tool}"
            pytest.fail(message) if os.environ.get("B10_TEST_EVERYTHING") else pytest.skip(message)


def built(extensions: Path) -> str:
    """Build an extension as PyTorch does, which writes the commands each time; the last line that ninja says."""
    folder = extensions / "mod"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "build.ninja").write_text(BUILD.format(folder=folder))
    if not (folder / "main.c").exists():
        (folder / "main.c").write_text("#include <stddef.h>\nint answer(void) { return 42; }\n")
    ninja = shutil.which("ninja", path=PLACES) or "ninja"
    return subprocess.run([ninja], cwd=folder, capture_output=True, text=True, check=True).stdout.splitlines()[-1]


@pytest.fixture
def extensions(isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store that holds an extension, and the empty directory where it was built."""
    path = isolated_env.home / "extensions"
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(path))
    assert built(path) != CURRENT
    assert built(path) == CURRENT
    assert save().status is OperationStatus.SUCCESS
    shutil.rmtree(path)
    return path


def test_restored_extension_is_current_to_ninja(extensions: Path) -> None:
    assert load().status is OperationStatus.SUCCESS
    assert built(extensions) == CURRENT


def test_extension_restored_elsewhere_is_built_anew(extensions: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = extensions.parent / "elsewhere"
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(elsewhere))
    assert load().status is OperationStatus.SUCCESS
    assert built(elsewhere) != CURRENT
    assert built(elsewhere) == CURRENT


def test_restored_extension_is_built_anew_for_a_newer_source(extensions: Path) -> None:
    assert load().status is OperationStatus.SUCCESS
    os.utime(extensions / "mod" / "main.c")
    assert built(extensions) != CURRENT
