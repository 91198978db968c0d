"""Real ninja and a real compiler: a restored build is current if it was made from the same, whatever the times say."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from b10_transfer import OperationStatus, load, save
from tests.conftest import IsolatedEnv

BUILD = """\
ninja_required_version = 1.3
cc = {cc}
cflags = -DNAME=mod -I{sources} $
    -fPIC
rule compile
  command = $cc -MMD -MF $out.d $cflags -c $in -o $out $post_cflags
  depfile = $out.d
  deps = gcc
rule link
  command = $cc $in $ldflags -o $out
ldflags = -shared
build main.o: compile {sources}/main.c
build inline.o: compile {folder}/inline.c
build mod.so: link main.o inline.o
default mod.so
"""
CURRENT = "ninja: no work to do."
PLACES = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
"""The search path of programs: ninja may be in the tests' own environment."""
SECOND_NS = 10**9


@pytest.fixture(autouse=True)
def tools(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", PLACES)
    for tool in ("ninja", "cc"):
        if shutil.which(tool) is None:
            message = f"needs {tool}"
            pytest.fail(message) if os.environ.get("B10_TEST_EVERYTHING") else pytest.skip(message)


class Program:
    """A program that builds an extension from sources of its own as PyTorch does: it writes the commands each time."""

    def __init__(self, folder: Path) -> None:
        self.sources = folder / "sources"
        self.extensions = folder / "extensions"
        self.compiler = "cc"
        self.sources.mkdir()
        (self.sources / "main.c").write_text('#include "main.h"\nint answer(void) { return ANSWER; }\n')
        (self.sources / "main.h").write_text("#define ANSWER 42\n")

    def build(self) -> str:
        """Build; the last line that ninja says."""
        folder = self.extensions / "mod"
        folder.mkdir(parents=True, exist_ok=True)
        commands = BUILD.format(folder=folder, sources=self.sources, cc=self.compiler)
        for name, text in {"build.ninja": commands, "inline.c": "int inline_answer(void) { return 7; }\n"}.items():
            if not (folder / name).exists() or (folder / name).read_text() != text:
                (folder / name).write_text(text)
        run = subprocess.run(["ninja"], cwd=folder, capture_output=True, text=True, check=True)
        return run.stdout.splitlines()[-1]

    def touch(self, name: str, time_ns: int) -> None:
        """Set the time of a source."""
        os.utime(self.sources / name, ns=(time_ns, time_ns))


@pytest.fixture
def program(isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch) -> Program:
    """A program whose extension is in the store, and in no cache."""
    program = Program(isolated_env.home)
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(program.extensions))
    assert program.build() != CURRENT
    assert program.build() == CURRENT
    assert save().status is OperationStatus.SUCCESS
    shutil.rmtree(program.extensions)
    return program


@pytest.mark.parametrize("hours_ago", [24, 0])
def test_build_is_current_if_its_sources_are_the_same_at_any_time(program: Program, hours_ago: int) -> None:
    time_ns = time.time_ns() - hours_ago * 3600 * SECOND_NS
    program.touch("main.h", time_ns)
    program.touch("main.c", time_ns)
    assert load().status is OperationStatus.SUCCESS
    assert program.build() == CURRENT
    assert save().reason.startswith("nothing new")


@pytest.mark.parametrize("name", ["main.c", "main.h"])
@pytest.mark.parametrize("hours_ago", [24, 0])
def test_build_of_other_sources_is_not_restored(
    program: Program, caplog: pytest.LogCaptureFixture, name: str, hours_ago: int
) -> None:
    text = (program.sources / name).read_text()
    (program.sources / name).write_text(text + "// other\n")
    program.touch(name, time.time_ns() - hours_ago * 3600 * SECOND_NS)
    with caplog.at_level(logging.WARNING):
        report = load()
    assert report.status is OperationStatus.DOES_NOT_EXIST
    assert f"{program.sources / name} has another content here" in report.reason
    assert f"{program.sources / name} has another content here" in caplog.text
    assert list(program.extensions.rglob("*.so")) == []
    assert program.build() != CURRENT


def test_source_that_changes_after_the_load_is_built(program: Program) -> None:
    """Also if it is older than the build was when it was saved."""
    time_ns = time.time_ns() - 3600 * SECOND_NS
    for name in ("main.c", "main.h"):
        program.touch(name, time_ns)
    assert load().status is OperationStatus.SUCCESS
    (program.sources / "main.h").write_text("#define ANSWER 43\n")
    program.touch("main.h", time_ns + 1_000_000)
    assert program.build() != CURRENT


def test_missing_source_is_named(program: Program) -> None:
    program.sources.rename(program.sources.parent / "elsewhere")
    assert f"{program.sources / 'main.c'} is missing" in load().reason


def test_build_of_another_compiler_is_not_restored(program: Program, tmp_path: Path) -> None:
    """The path is the same, so ninja would take it as current."""
    script = tmp_path / "bin" / "cc"
    script.parent.mkdir()
    script.write_text('#!/bin/sh\nexec /usr/bin/cc "$@"\n')
    script.chmod(0o755)
    os.environ["PATH"] = f"{script.parent}{os.pathsep}{PLACES}"
    assert "the program cc is another one here" in load().reason


def test_build_is_current_in_a_cache_at_another_path(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    program.extensions = program.extensions.parent / "another"
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(program.extensions))
    assert load().status is OperationStatus.SUCCESS
    assert program.build() == CURRENT


def test_source_that_was_replaced_after_the_build_is_not_recorded(program: Program) -> None:
    """By an older file, which ninja does not notice."""
    assert program.build() != CURRENT
    older = time.time_ns() - 3600 * SECOND_NS
    (program.sources / "main.h").write_text("#define ANSWER 44\n")
    program.touch("main.h", older)
    assert program.build() == CURRENT
    os.environ["B10_NAMESPACE"] = "another"
    assert save().left_for_next_save == 1


def test_source_of_the_future_is_not_trusted(program: Program) -> None:
    """Ninja would not notice what is written to it until then."""
    program.touch("main.h", time.time_ns() + 3600 * SECOND_NS)
    assert "a time in the future" in load().reason
