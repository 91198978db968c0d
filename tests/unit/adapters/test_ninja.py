"""Which libraries ninja has finished, and the records of what they were made from. (Real ninja: tests/integration.)"""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from b10_transfer.adapters.base import Unit, UnitKind
from b10_transfer.adapters.ninja import has_built_library
from b10_transfer.adapters.ninja.files import (
    Dependencies,
    command_hash,
    read_dependencies,
    read_log,
    write_dependencies,
)
from b10_transfer.adapters.ninja.manifest import Edge, edges
from b10_transfer.adapters.ninja.programs import program_files, programs_of
from b10_transfer.adapters.ninja.records import Record
from b10_transfer.adapters.torch_extensions import TorchExtensionsAdapter
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


@pytest.mark.parametrize(
    ("length", "murmur", "rapid"),
    [
        (1, "2e49d2477c6737f0", "a2da22321247804b"),
        (3, "f2d1360f1675bfb3", "bae980166742c4ce"),
        (8, "61593a6fe38ba7e8", "8f507c8ac2677406"),
        (16, "6cf406fe306b52f8", "8732a2ee5bb4306c"),
        (17, "c7c6fa710cc5a22e", "4fa7e7782158064d"),
        (33, "68b8d98ec65ac3b3", "ae8cf6307e8efe99"),
        (48, "499a21bbd0c6aacb", "8761d8c1b7c744ea"),
        (49, "324f6eef533bf4c0", "8d106f582097a89b"),
        (97, "663b1e19e573425", "f928c34f2467462d"),
        (250, "fd06d8931e5ae9d9", "cf061980280615df"),
    ],
)
def test_command_has_the_hash_that_ninja_gives_it(length: int, murmur: str, rapid: str) -> None:
    """As ninja 1.11.1 and 1.13.2 logged them."""
    command = (": " + "abcdefghijklmnopqrstuvwxyz" * 10)[:length]
    assert (f"{command_hash(5, command):x}", f"{command_hash(7, command):x}") == (murmur, rapid)


def test_commands_are_those_that_ninja_runs() -> None:
    text = """\
ninja_required_version = 1.3
# flags
cxx = g++
cflags = -O2 $
    -I/a$ b -Dx=$$y
flags = before
rule compile
  command = $cxx $cflags ${extra} $flags -c $in -o $out
  extra = -g
rule link
  command = $cxx $in -o $out

build a.o b.d: compile ./src/../a$ b.cpp | x.h y.h || folder
  flags = own $cxx
build mod.so: link a.o
build all: phony mod.so
flags = after
default mod.so
"""
    command = "g++ -O2 -I/a b -Dx=$y -g own g++ -c 'a b.cpp' -o a.o b.d"
    assert edges(text) == [
        Edge(("a.o", "b.d"), ("a b.cpp", "x.h", "y.h"), command),
        Edge(("mod.so",), ("a.o",), "g++ a.o -o mod.so"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        *("include other.ninja\n", "build a: r b\n", "build a b\n", "rule r\n  command\n", "  a = b\n", "build $:\n"),
        "rule r\n  command = $x\n  x = $command\nbuild a: r\n",
    ],
)
def test_commands_that_are_not_understood_are_refused(text: str) -> None:
    with pytest.raises(ValueError):
        edges(text)


def test_dependencies_are_read_as_they_were_written() -> None:
    found = {"a.o": Dependencies(3, ("/usr/a.h", "b.h", "/usr/long/c.hpp")), "b.o": Dependencies(1 << 60, ("b.h",))}
    data = write_dependencies(found)
    assert read_dependencies(data) == found
    whole = {0}
    for length in range(17, len(data)):
        try:
            whole.add(len(read_dependencies(data[:length])))
        except ValueError as error:
            assert "middle" in str(error)
    assert whole == {0, 1}


@pytest.mark.parametrize(
    "log", [b"", b"# ninja log v4\n", b"\xff", b"# ninja log v7\n1\t2\n", b"# ninja log v7\n1\t2\tx\ty\tz\n"]
)
def test_other_log_is_refused(log: bytes) -> None:
    with pytest.raises(ValueError):
        read_log(log)


LOOKUPS = hashlib.sha256(b"").hexdigest()
"""Of a command without headers and libraries."""
RECORD: dict[str, Any] = {
    "version": 7,
    "commands": {"mod.so": "cc"},
    "inputs": [],
    "depends": {},
    "programs": {},
    "lookups": {"mod.so": LOOKUPS},
    "environ": {},
}


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"commands": {"../../outside.so": "cc"}}, "not part of it"),
        ({"commands": {"/etc/passwd": "cc"}}, "not part of it"),
        ({"commands": {"..": "cc"}}, "not part of it"),
        ({"commands": {"other.so": "cc"}}, "not part of it"),
        ({"commands": {"mod.so\0x": "cc"}}, "not part of it"),
        ({"commands": {"mod.so": 1}}, "is not a text"),
        ({"commands": []}, "not a record"),
        ({"commands": {"mod.so": "\ud800"}}, "surrogates"),
        ({"inputs": [["/dev/zero", 0, "00"]]}, "cannot be read"),
        ({"inputs": [["/proc/self/mem", 0, "00"]]}, "another content"),
        ({"inputs": [["fifo", 0, "00"]]}, "cannot be read"),
        ({"inputs": [["source.cpp", 6, "00"]]}, "another content"),
        ({"inputs": [["x" * 5000, 6, "00"]]}, "cannot be read"),
        ({"inputs": [["a"]]}, ""),
        ({"inputs": [["a", float("inf"), ""]]}, "not a record"),
        ({"depends": {"mod.so": [7]}}, "not a record"),
        ({"programs": {"sh": ["00"]}}, "another one here"),
        ({"programs": {"sh": 3}}, "not a record"),
        ({"inputs": [["/dev/null/../passwd", -1, ""]]}, "cannot be read"),
        ({"inputs": [["source.cpp", -1, ""]]}, "another content"),
        ({"inputs": [[f"{'/.' * n}/big", 1 << 28, "00"] for n in range(9)]}, "are larger than"),
        ({"lookups": {}}, "at other paths"),
        ({"lookups": {"mod.so": "00"}}, "at other paths"),
        ({"lookups": 3}, "not a record"),
        ({"commands": {"mod.so": "cc 'a"}}, "not a command"),
        ({"commands": {"mod.so": "cc @source.cpp"}}, "some of its arguments"),
        ({"environ": {"NVCC_APPEND_FLAGS": "-DA=1"}}, "NVCC_APPEND_FLAGS was -DA=1 where it was built, and is not set"),
        ({"version": None}, "not a record"),
    ],
)
def test_hostile_record_restores_nothing(tmp_path: Path, fill: FillTree, changed: dict[str, Any], reason: str) -> None:
    """And changes, reads and waits for no other file."""
    adapter, unit = TorchExtensionsAdapter(), Unit("mod", UnitKind.FOLDER)
    (tmp_path / "outside.so").write_bytes(b"")
    staged = tmp_path / "staged"
    fill(staged / "mod", {".ninja_log": json.dumps(RECORD).encode(), "mod.so": b"", "source.cpp": b"source"})
    fit = adapter.fitting(tmp_path / "cache", staged, lambda: None)
    assert fit(unit) == ""
    lookups = {"lookups": dict.fromkeys(changed.get("commands", RECORD["commands"]), LOOKUPS)}
    (staged / "mod" / ".ninja_log").write_text(json.dumps(RECORD | lookups | changed))
    os.mkfifo(staged / "mod" / "fifo")
    before = os.stat(tmp_path / "outside.so")
    found = fit(unit)
    assert found
    assert reason in found
    assert os.stat(tmp_path / "outside.so") == before


def test_build_that_was_saved_without_a_record_is_not_restored(tmp_path: Path, fill: FillTree) -> None:
    fill(tmp_path / "mod", {".ninja_log": LOG + LINKED, "mod.so": b""})
    reason = TorchExtensionsAdapter().fitting(tmp_path / "cache", tmp_path, lambda: None)(Unit("mod", UnitKind.FOLDER))
    assert reason == "it was saved without digests of its sources"


def test_paths_of_the_cache_are_replaced_where_a_path_begins() -> None:
    command = "cc -I/ext/inc -I /me/ext/inc -isystem/ext/sys -DX=/ext/x -Wl,-rpath,/ext/lib '/ext/a b.c' /ext-2/b.c"
    record = Record(7, {"mod.so": command}, {}, {"/ext/a.h": (1, "00")}, {}, {}, {"CPATH": "/ext/inc:/next/inc"})
    found = Record.decode(Path("/other"), record.encode(Path("/ext")))
    assert found.commands["mod.so"] == (
        "cc -I/other/inc -I /me/ext/inc -isystem/other/sys -DX=/other/x -Wl,-rpath,/other/lib '/other/a b.c' /ext-2/b.c"
    )
    assert list(found.inputs) == ["/other/a.h"]
    assert found.environ == {"CPATH": "/other/inc:/next/inc"}


def test_command_that_looks_as_if_it_held_a_path_of_the_cache_is_refused() -> None:
    with pytest.raises(ValueError, match="zero byte"):
        Record(7, {"mod.so": "cc -D'X=\\u0000'"}, {}, {}, {}, {}, {}).encode(Path("/ext"))


@pytest.mark.parametrize(
    "text",
    [
        "a0 = aaaaaaaaaa\n" + "".join(f"a{n + 1} = $a{n}$a{n}\n" for n in range(40)),
        "rule r\n a0 = a\n"
        + "".join(f" a{n + 1} = $a{n}$a{n}\n" for n in range(18))
        + " command = $a18\nbuild o: r i\n",
        f"rule r\n command = {'$in ' * 20_000}\nbuild o: r {'i' * 10_000}\n",
        "rule r\n command = cc\n depfile = d\nbuild o: r i\n",
    ],
    ids=["file scope", "rule scope", "a long input", "a depfile that ninja does not keep"],
)
def test_manifest_that_would_take_much_memory_or_hides_headers_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        edges(text)


@pytest.mark.parametrize("name", [".ninja_deps", "build.ninja"])
@pytest.mark.parametrize("kind", ["pipe", "link", "folder"])
def test_file_of_ninja_that_is_no_regular_file_is_not_waited_for(
    tmp_path: Path, fill: FillTree, name: str, kind: str
) -> None:
    files = {".ninja_log": LOG + LINKED, "mod.so": b"", "build.ninja": b"rule r\n command = cc\nbuild mod.so: r\n"}
    fill(tmp_path / "mod", {path: data for path, data in files.items() if path != name})
    odd = tmp_path / "mod" / name
    if kind == "pipe":
        os.mkfifo(odd)
    elif kind == "link":
        odd.symlink_to("/dev/zero")
    else:
        odd.mkdir()
    with pytest.raises(ValueError, match=re.escape(name)):
        TorchExtensionsAdapter().to_portable(tmp_path, "mod/.ninja_log", files[".ninja_log"], ["mod/mod.so"])


@pytest.mark.parametrize(
    ("command", "environ", "programs"),
    [
        ("nvcc -c a.cu -o a.o", {}, ["nvcc", "gcc"]),
        ("/cuda/bin/nvcc -ccbin g++-12 -c a.cu -o a.o", {}, ["/cuda/bin/nvcc", "g++-12"]),
        ("nvcc -ccbin=g++-12 -c a.cu -o a.o", {"NVCC_CCBIN": "clang"}, ["nvcc", "g++-12"]),
        ("nvcc --compiler-bindir /usr/bin -c a.cu -o a.o", {}, ["nvcc", "/usr/bin/gcc"]),
        ("nvcc -c a.cu -o a.o", {"NVCC_CCBIN": "clang"}, ["nvcc", "clang"]),
        ("ccache g++ -c a.cu -o a.o", {}, ["ccache", "g++"]),
    ],
)
def test_programs_are_those_that_the_command_starts(command: str, environ: dict[str, str], programs: list[str]) -> None:
    edge = Edge(("a.o",), ("a.cu",), command)
    assert list(programs_of(edge, command.split(), environ)) == programs


def test_command_of_a_shell_is_refused() -> None:
    with pytest.raises(ValueError, match="a shell starts"):
        list(programs_of(Edge(("a.o",), ("a.c",), ""), ["/bin/sh", "-c", "cc -c a.c"], {}))


def test_files_of_a_program_are_all_that_may_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A launcher starts the next compiler of its name, and a script starts scripts."""
    scripts = {
        "first/g++": "#!/bin/sh\nexec real-g++ -DA=1\n",
        "second/g++": "",
        "second/real-g++": '#!/bin/sh\nexec /opt/none "$@"\nexec $HOME/x-cc\n',
        "second/flags": "",
        "second/dirname": "",
    }
    for name, text in scripts.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "second"))
    found = {Path(path).name for path in program_files(f"{tmp_path}/first/g++", "/")}
    assert {"g++", "real-g++"} <= found
    assert "dirname" not in found
    assert f"{tmp_path}/second/g++" in program_files(f"{tmp_path}/first/g++", "/")
