"""``b10-compile-cache stats`` sums up the loads and saves of a pod."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from b10_transfer import OperationStatus, load, save
from b10_transfer.environment import detect
from b10_transfer.local import statistics
from b10_transfer.local.state import state_folder
from tests.command import Publisher, command
from tests.conftest import IsolatedEnv


@pytest.fixture
def notes(isolated_env: IsolatedEnv) -> Path:
    return state_folder() / "statistics.jsonl"


def test_pod_without_operations_has_none(notes: Path) -> None:
    answer = command("stats")
    assert (answer.exit_code, answer.stdout) == (0, "no load or save has ended on this pod\n")
    assert command("stats", "--json").json["hit_ratio"] is None


def test_loads_and_saves_of_all_processes_are_counted(isolated_env: IsolatedEnv, notes: Path) -> None:
    assert load().status is OperationStatus.DOES_NOT_EXIST
    isolated_env.fill(isolated_env.triton, {"KERNEL/a.so": b"x" * 1000})
    saved = save()
    assert save().status is OperationStatus.SKIPPED
    shutil.rmtree(isolated_env.triton)
    program = "import b10_transfer as b; assert b.load_compile_cache().name == 'SUCCESS'; b.load_compile_cache()"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
    found = command("stats", "--json").json
    assert (found["hits"], found["misses"], found["partial_hits"], found["hit_ratio"]) == (1, 1, 0, 0.5)
    assert found["loads"]["by_status"] == {"DOES_NOT_EXIST": 1, "SKIPPED": 1, "SUCCESS": 1}
    assert (found["loads"]["units"], found["loads"]["bytes"]) == (1, 1000)
    assert found["saves"]["by_status"] == {"SKIPPED": 1, "SUCCESS": 1}
    assert (found["saves"]["bytes"], found["saves"]["packed_bytes"]) == (1000, saved.packed_bytes)
    assert found["loads"]["seconds"] >= found["loads"]["longest_s"] > 0
    shown = command("stats", "--zero").stdout
    assert "hit ratio      50 %" in shown
    assert "restored       1 unit, 1.0 kB, " in shown
    assert command("stats").stdout == "no load or save has ended on this pod\n"


def test_partial_hit_is_counted_as_such(isolated_env: IsolatedEnv, notes: Path) -> None:
    publisher = Publisher(isolated_env.store, detect())
    publisher.publish()
    pack = publisher.publish({"triton/OTHER/": {"launcher.so": b""}}).name.removesuffix(".tar.zst")
    assert command("recall", pack).exit_code == 0
    assert load().partial
    assert "hits         1, 1 of them partial" in command("stats").stdout


def test_lines_of_other_versions_and_torn_lines_are_left_out(isolated_env: IsolatedEnv, notes: Path) -> None:
    load()
    before = command("stats", "--json").json
    with notes.open("ab") as file:
        file.write(b'{"operation": "load", "status": "MAYBE"}\n[]\n{"operation": "evict"}\n\xff\n' + b"[" * 9000)
    assert command("stats", "--json").json == before


def test_notes_have_a_bounded_size(isolated_env: IsolatedEnv, notes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "_MOST_BYTES", 1000)
    for _ in range(30):
        load()
    assert sum(path.stat().st_size for path in notes.parent.iterdir()) <= 2 * 1200
    assert 5 < command("stats", "--json").json["loads"]["count"] < 20


def test_folder_that_others_can_write_to_is_neither_written_nor_read(isolated_env: IsolatedEnv, notes: Path) -> None:
    load()
    os.chmod(notes.parent, 0o777)
    size = notes.stat().st_size
    assert load().status is OperationStatus.DOES_NOT_EXIST
    assert notes.stat().st_size == size
    answer = command("stats")
    assert (answer.exit_code, "other users could write to it" in answer.stderr) == (1, True)


def test_link_in_place_of_the_notes_is_not_followed(isolated_env: IsolatedEnv, notes: Path, tmp_path: Path) -> None:
    load()
    notes.unlink()
    notes.symlink_to(tmp_path / "elsewhere")
    assert load().status is OperationStatus.DOES_NOT_EXIST
    assert not (tmp_path / "elsewhere").exists()
