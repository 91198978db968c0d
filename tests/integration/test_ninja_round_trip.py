"""Real ninja and a real compiler: a restored build is current if it was made from the same, whatever the times say."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import pytest

from b10_transfer import OperationStatus, load, save
from b10_transfer.adapters.ninja import digests
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
    assert f"its source {program.sources / 'main.c'} is missing" in load().reason


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


COMPILE_C = """\
rule compile
  command = cc -MMD -MF $out.d {flags} -c $in -o $out
  depfile = $out.d
  deps = gcc
rule link
  command = cc $in -shared {libraries} -o $out
build main.o: compile {folder}/main.c
build mod.so: link main.o
"""
HEADER_1, HEADER_2 = "#define ANSWER 1\n", "#define ANSWER 2\n"
NAMES_A = "#include <a.h>\nint answer(void) { return ANSWER; }\n"


class Change(NamedTuple):
    """A file that a command reads although ninja does not know it, and what changes about it."""

    files: dict[str, str]
    later: dict[str, str]
    main: str = NAMES_A
    flags: str = ""
    libraries: str = ""
    environ: Mapping[str, str] = MappingProxyType({})
    environ_later: Mapping[str, str] = MappingProxyType({})
    archive: bool = False


def archived(sources: Path) -> None:
    subprocess.run(["cc", "-fPIC", "-c", "x.c", "-o", "x.o"], cwd=sources, check=True)
    subprocess.run(["ar", "rcs", "libx.a", "x.o"], cwd=sources, check=True)


CALLS_X = "int x(void);\nint answer(void) { return x(); }\n"
X_1, X_2 = ({"x.c": f"int x(void) {{ return {number}; }}\n"} for number in (1, 2))
CHANGES = {
    "a system header": Change({"i/a.h": HEADER_1}, {"i/a.h": HEADER_2}, flags="-isystem {sources}/i"),
    "a header of a header": Change(
        {"i/a.h": '#include "b.h"\n', "i/b.h": HEADER_1}, {"i/b.h": HEADER_2}, flags="-isystem {sources}/i"
    ),
    "a header found by a variable": Change(
        {"i/a.h": HEADER_1}, {"i/a.h": HEADER_2}, environ={"C_INCLUDE_PATH": "{sources}/i"}
    ),
    "a header in an earlier folder": Change(
        {"i/b.h": "", "j/a.h": HEADER_1}, {"i/a.h": HEADER_2}, flags="-I{sources}/i -I{sources}/j"
    ),
    "a header that is looked for": Change(
        {"i/b.h": ""},
        {"i/a.h": HEADER_2},
        main='#if __has_include("a.h")\n#include "a.h"\n#else\n#define ANSWER 1\n#endif\n'
        "int answer(void) { return ANSWER; }\n",
        flags="-I{sources}/i",
    ),
    "a header that is read first": Change(
        {"a.h": HEADER_1},
        {"a.h": HEADER_2},
        main="int answer(void) { return ANSWER; }\n",
        flags="-isystem {sources} -include {sources}/a.h",
    ),
    "data in assembly": Change(
        {"data": "1"},
        {"data": "2"},
        main='__asm__(".data\\nd: .incbin \\"{sources}/data\\"\\n.text\\n"); int answer(void) { return 1; }\n',
    ),
    "a static library by its path": Change(X_1, X_2, main=CALLS_X, libraries="{sources}/libx.a", archive=True),
    "a static library by its name": Change(X_1, X_2, main=CALLS_X, libraries="-L{sources} -lx", archive=True),
    "a static library of a variable": Change(
        X_1, X_2, main=CALLS_X, libraries="-lx", environ={"LIBRARY_PATH": "{sources}"}, archive=True
    ),
    "a script of the linker": Change(
        {"script": "{ global: answer; local: *; };\n"},
        {"script": "{ global: *; };\n"},
        main="int answer(void) { return 1; }\n",
        libraries="-Wl,--version-script={sources}/script",
    ),
    "a variable of the compiler": Change(
        {"i/a.h": HEADER_1, "j/a.h": HEADER_2},
        {},
        environ={"CPATH": "{sources}/i"},
        environ_later={"CPATH": "{sources}/j"},
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_build_of_other_files_that_ninja_does_not_know_is_not_restored(
    name: str, isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the next pod they are older, too."""
    change, sources = CHANGES[name], isolated_env.home / "sources"
    extension = isolated_env.home / "extensions" / "mod"
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(extension.parent))

    def write(files: Mapping[str, str], environ: Mapping[str, str]) -> None:
        isolated_env.fill(
            sources, {path: text.replace("{sources}", str(sources)).encode() for path, text in files.items()}
        )
        if change.archive:
            archived(sources)
        for variable, value in environ.items():
            monkeypatch.setenv(variable, value.format(sources=sources))

    def build() -> str:
        flags, libraries = (text.format(sources=sources) for text in (change.flags, change.libraries))
        commands = COMPILE_C.format(flags=f"-fPIC {flags}", libraries=libraries, folder=sources)
        isolated_env.fill(extension, {"build.ninja": commands.encode()})
        return subprocess.run(["ninja"], cwd=extension, capture_output=True, text=True, check=True).stdout.splitlines()[
            -1
        ]

    write(change.files | {"main.c": change.main}, change.environ)
    build()
    assert save().units == 1
    shutil.rmtree(extension)
    assert load().units == 1
    assert build() == CURRENT
    shutil.rmtree(extension)
    write(change.later, change.environ_later)
    for path in sources.rglob("*"):
        os.utime(path, (time.time() - 86400,) * 2)
    assert load().units == 0


def test_response_file_in_a_command_is_refused_with_the_reason(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    sources, extension = isolated_env.home / "sources", isolated_env.home / "extensions" / "mod"
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(extension.parent))
    commands = COMPILE_C.format(flags=f"-fPIC @{sources}/flags", libraries="", folder=sources)
    main = b"int answer(void) { return ANSWER; }\n"
    isolated_env.fill(sources, {"flags": b"-DANSWER=1\n", "main.c": main})
    isolated_env.fill(extension, {"build.ninja": commands.encode()})
    subprocess.run(["ninja"], cwd=extension, capture_output=True, check=True)
    report = save()
    assert (report.status, report.left_for_next_save) == (OperationStatus.SKIPPED, 1)
    assert report.reason == f"{extension}: some of its arguments are in the file {sources}/flags"
    assert f"{report.reason}; it is not saved" in caplog.text


def test_build_that_was_interrupted_is_not_saved(program: Program) -> None:
    """An object is newer than the library: ninja would link it again."""
    program.build()
    (program.sources / "main.h").write_text("#define ANSWER 43\n")
    folder = program.extensions / "mod"
    subprocess.run(["ninja", "main.o"], cwd=folder, capture_output=True, check=True)
    (folder / "lock").touch()
    os.environ["B10_NAMESPACE"] = "another"
    report = save()
    assert report.left_for_next_save == 1
    assert "its build was interrupted" in report.reason


def test_header_behind_a_link_that_was_changed_is_not_recorded(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other folder's file is older than the build, and was not changed."""
    sources, extension = isolated_env.home / "sources", isolated_env.home / "extensions" / "mod"
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(extension.parent))
    isolated_env.fill(sources, {"one/a.h": HEADER_1.encode(), "two/a.h": HEADER_2.encode(), "main.c": NAMES_A.encode()})
    (sources / "i").symlink_to("one")
    commands = COMPILE_C.format(flags=f"-fPIC -I{sources}/i", libraries="", folder=sources)
    isolated_env.fill(extension, {"build.ninja": commands.encode()})
    subprocess.run(["ninja"], cwd=extension, capture_output=True, check=True)
    (sources / "i").unlink()
    (sources / "i").symlink_to("two")
    assert "has changed since main.o was built" in save().reason


def test_copied_build_of_a_header_that_was_replaced_is_not_recorded(program: Program) -> None:
    """A copy has a new time of change. The time of the build stays."""
    program.build()
    older = time.time_ns() - 3600 * SECOND_NS
    (program.sources / "main.h").write_text("#define ANSWER 44\n")
    program.touch("main.h", older)
    subprocess.run(["cp", "-a", program.extensions, f"{program.extensions}-2"], check=True)
    shutil.rmtree(program.extensions)
    Path(f"{program.extensions}-2").rename(program.extensions)
    os.environ["B10_NAMESPACE"] = "another"
    assert save().left_for_next_save == 1


def test_restored_build_is_recorded_again_for_another_store(program: Program) -> None:
    assert load().units == 1
    assert program.build() == CURRENT
    os.environ["B10_NAMESPACE"] = "another"
    assert save().units == 1
    shutil.rmtree(program.extensions)
    assert load().units == 1
    assert program.build() == CURRENT


def test_load_ends_at_its_deadline_while_it_compares_and_places_nothing_later(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = digests.facts

    def read_slowly(path: str, size: int | None = None) -> digests.FileFacts:
        time.sleep(0.4)
        return read(path, size)

    monkeypatch.setattr("b10_transfer.adapters.ninja.fitting.facts", read_slowly)
    monkeypatch.setenv("B10_DEADLINE_SECONDS", "0.3")
    assert load().status is OperationStatus.ERROR
    time.sleep(2)
    assert list(program.extensions.rglob("*.so")) == []
