"""No content of a store makes a load take more than 400 MB of memory, or more of the disk than is configured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from b10_transfer import OperationStatus, load, save
from b10_transfer.environment import detect
from tests.command import command
from tests.security.hostile_packs import EMPTY, HostileStore, files, kernels, unit

if TYPE_CHECKING:
    from tests.conftest import IsolatedEnv

MOST_MB = 400
GOOD = {"GOOD/kernel.so": b"good"}


class Outcome(NamedTuple):
    """What a process reported."""

    status: str
    peak_mb: int
    units: int
    lines: list[str]


def in_a_process(operation: str) -> Outcome:
    program = Path(__file__).with_name("loading.py")
    ran = subprocess.run([sys.executable, program, operation], capture_output=True, text=True, check=True)
    return Outcome(*json.loads(ran.stdout))


@pytest.fixture
def hostile(isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> HostileStore:
    """A store with one good pack, older than all that are hostile."""
    hostile = HostileStore(isolated_env.store, detect())
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "saver"))
    isolated_env.fill(tmp_path / "saver", GOOD)
    assert save().status is OperationStatus.SUCCESS
    [pack] = hostile.folder.iterdir()
    pack.rename(hostile.folder / "018bcfe56800-0000000000000000.tar.zst")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(isolated_env.triton))
    return hostile


def deep(hostile: HostileStore) -> None:
    """Every path names 500 folders."""
    hostile.add(files(20_000, folders=470))


def values(element: str) -> Callable[[HostileStore], None]:
    """An index that is one long list."""

    def add(hostile: HostileStore) -> None:
        sound = hostile.index([], []).decode()
        listed = (element + ",") * ((60 << 20) // (len(element) + 1)) + element
        for _ in range(3):
            hostile.add_index(sound.replace('"units":[]', f'"units":[[{listed}]]').encode())
            hostile.add_index(sound.replace('"recorded":{}', f'"recorded":[{listed}]').encode())

    return add


def wide_text(hostile: HostileStore) -> None:
    """One character beyond Latin-1 makes a text four times as large."""
    sound = hostile.index([], []).decode()
    long = "x" * (60 << 20)
    for _ in range(3):
        hostile.add_index(sound.replace('"recorded":{}', f'"recorded":{{"a":"\\ud83d\\ude00{long}"}}').encode())
        hostile.add_index(sound.replace('"recorded":{}', f'"recorded":{{"a":"\U0001f600{long}"}}').encode())


RESULTS = "inductor/memoizer_cache.json"
"""A file that collects results: a load merges those of all packs."""


def nested_lists(size: int) -> bytes:
    """Many short lists, deep in others: indented they would be ten times as large."""
    return b'{"a":' + b"[" * 30 + b"[]," * (size // 3) + b"[]" + b"]" * 30 + b"}"


def many_tables(number: int, size: int) -> bytes:
    return ("{" + ",".join(f'"{number}_{n}":{{}}' for n in range(size // 14)) + "}").encode()


def results(make: Callable[[int, int], bytes], size: int, count: int = 2) -> Callable[[HostileStore], None]:
    """Packs of results that a load merges."""

    def add(hostile: HostileStore) -> None:
        for number in range(count):
            hostile.add_file(RESULTS, make(number, size))

    return add


SHAPES: dict[str, Callable[[HostileStore], object]] = {
    "huge signatures in sparse files": lambda hostile: [hostile.add_extension(200 << 20) for _ in range(20)],
    "one index of 200,000 files": lambda hostile: hostile.add(files(200_000, size=0)),
    "many indexes of 200,000 files": lambda hostile: [hostile.add(files(200_000, f"P{n}")) for n in range(3)],
    "many indexes of 90,000 files in kernels": lambda hostile: [
        hostile.add(list(kernels(11_000, f"P{n}X"))) for n in range(12)
    ],
    "2,000 packs of 300 files": lambda hostile: [hostile.add(files(300, f"P{n}")) for n in range(2000)],
    "paths of 490 folders": deep,
    "lists in an index": values("[]"),
    "objects in an index": values("{}"),
    "numbers in an index": values("1234"),
    "texts in an index": values('"ab"'),
    "wide texts in an index": wide_text,
    "15,000 frames of one byte": lambda hostile: hostile.add(files(15_000, size=1), frames=15_000),
    "long equal names": lambda hostile: [
        hostile.add(files(40_000, f"P{n}", folders=3, folder="d" * 200)) for n in range(4)
    ],
    "100,000 files that no compiler writes": lambda hostile: [
        hostile.add(files(1000, f"P{n}", suffix=".token")) for n in range(100)
    ],
    "a group file of 1 GiB": lambda hostile: hostile.add(
        [unit("triton/K", "folder", [["triton/K/__grp__k.json", 1 << 30, 0o644, 0, 0, EMPTY]])], 1 << 30
    ),
    "results of 16 MB in lists": results(lambda _, size: nested_lists(size), 16_000_000),
    "results of 1 MB in lists": results(lambda _, size: nested_lists(size), 1_000_000, 30),
    "results of 16 MB in tables": results(many_tables, 16_000_000),
    "results of 3 MB in tables": results(many_tables, 3_000_000, 12),
    "results of 16 MB in one text": results(lambda n, size: f'{{"{n}":"{"x" * size}"}}'.encode(), 16_000_000, 20),
}


_MANY = "00,000 files", "90,000", "2,000 packs", "equal names"
SLOW = {shape for shape in SHAPES if any(part in shape for part in _MANY)}
"""The shapes of which a load restores a hundred thousand files or more."""
slow = pytest.mark.skipif("B10_HAMMER_SECONDS" not in os.environ, reason="takes a minute: make hammer")


def shapes() -> list[object]:
    return [pytest.param(shape, marks=slow) if shape in SLOW else shape for shape in SHAPES]


@pytest.mark.parametrize("shape", shapes())
def test_load_takes_less_than_400_mb_of_memory(hostile: HostileStore, isolated_env: IsolatedEnv, shape: str) -> None:
    SHAPES[shape](hostile)
    found = in_a_process("load")
    assert found.peak_mb < MOST_MB, found
    if shape not in SLOW or found.status == "SUCCESS":  # on a busy machine its deadline ends the load
        assert found.status == "SUCCESS", found
        assert (isolated_env.triton / "GOOD/kernel.so").exists(), "the good pack was not used"
    assert len(found.lines) <= 8, found.lines


@pytest.mark.parametrize(
    "size", [pytest.param(16_000_000, id="over the limit"), pytest.param(1_000_000, id="within the limit")]
)
def test_save_beside_hostile_results_publishes_its_own(
    hostile: HostileStore, isolated_env: IsolatedEnv, size: int
) -> None:
    for _ in range(2):
        hostile.add_file(RESULTS, nested_lists(size))
    isolated_env.fill(isolated_env.inductor, {"memoizer_cache.json": b'{"mine": 1}'})
    found = in_a_process("save")
    assert found.peak_mb < MOST_MB, found
    assert (found.status, found.units) == ("SUCCESS", 1), found
    (isolated_env.inductor / "memoizer_cache.json").unlink()
    assert load().status is OperationStatus.SUCCESS
    assert json.loads((isolated_env.inductor / "memoizer_cache.json").read_bytes())["mine"] == 1


def test_merged_results_are_no_larger_than_the_results_in_packs(
    hostile: HostileStore, isolated_env: IsolatedEnv
) -> None:
    files = [json.dumps({f"k{number}": [1e15, "\u20ac"]}, separators=(",", ":")).encode() for number in range(3)]
    for data in files:
        hostile.add_file(RESULTS, data.replace(b"1000000000000000.0", b"1e15"))
    load()
    merged = (isolated_env.inductor / "memoizer_cache.json").read_bytes()
    assert len(merged) <= sum(map(len, files))
    assert "k2" in json.loads(merged)


def test_save_takes_less_than_400_mb_of_memory(hostile: HostileStore, isolated_env: IsolatedEnv) -> None:
    for number in range(2):  # more than a save takes
        hostile.add(files(200_000, f"P{number}"))
    isolated_env.fill(isolated_env.triton, {"MINE/kernel.so": b"mine"})
    found = in_a_process("save")
    assert found.peak_mb < MOST_MB, found
    assert found.status == "SUCCESS", found


def test_load_takes_no_more_of_the_disk_than_is_configured(
    hostile: HostileStore, isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each pack is a few kilobytes in the store, and fits by itself."""
    monkeypatch.setenv("B10_MAX_RESTORE_MB", "100")
    for number in range(10):
        path = f"triton/BIG{number}/zeros.so"
        hostile.add([unit(f"triton/BIG{number}", "folder", [[path, 30 << 20, 0o644, 0, 0, EMPTY]])], 30 << 20)
    report = load()
    restored = sum(path.stat().st_blocks * 512 for path in isolated_env.triton.rglob("*"))
    assert restored <= 100 << 20
    assert report.status is OperationStatus.SUCCESS
    assert set(report.restored) == {"triton/GOOD", *(f"triton/BIG{n}" for n in (7, 8, 9))}, (
        "older ones that fit are used"
    )
    assert "B10_MAX_RESTORE_MB" in report.rejected_packs[0]


def test_files_and_folders_without_content_count_as_what_they_take(
    hostile: HostileStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("B10_MAX_RESTORE_MB", "10")
    hostile.add(files(1000, "WIDE"))
    hostile.add(files(300, "DEEP", folders=20))
    report = load()
    assert {name.split("/")[1].split("X")[0] for name in report.restored} == {"WIDE", "GOOD"}


@slow
def test_50000_bad_packs_make_one_line_everywhere(hostile: HostileStore, isolated_env: IsolatedEnv) -> None:
    make_one_line_everywhere(hostile, isolated_env, 50_000)


def test_more_bad_packs_than_a_load_opens_make_one_line_everywhere(
    hostile: HostileStore, isolated_env: IsolatedEnv
) -> None:
    make_one_line_everywhere(hostile, isolated_env, 6_000)


def make_one_line_everywhere(hostile: HostileStore, isolated_env: IsolatedEnv, number: int) -> None:
    first = hostile.path()
    first.write_bytes(b"no pack" * 100)
    for _ in range(number):
        os.link(first, hostile.path())
    report = load(deadline_s=300)
    assert report.ignored_packs == number + 2
    assert len(report.rejected_packs) == 1
    for words in (f"{number + 2} packs (", f"{number - 4094} not read", "4096 damaged"):
        assert words in report.rejected_packs[0]
    isolated_env.fill(isolated_env.triton, {"MINE/kernel.so": b"mine"})
    for operation in ("load", "save"):
        found = in_a_process(operation)
        assert found.peak_mb < MOST_MB
        assert len(found.lines) <= 4, found.lines
    for arguments in (("explain",), ("ls",), ("ls", "--packs"), ("verify", "--deadline", "300")):
        answer = command(*arguments)
        assert len((answer.stdout + answer.stderr).splitlines()) < 40, arguments
