"""Results of tuning that several pods collected reach every pod that loads."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from b10_transfer import OperationStatus, load, save
from b10_transfer.adapters import accumulation
from b10_transfer.adapters.accumulation import Results
from b10_transfer.environment import detect
from b10_transfer.repository.union import Union
from tests.conftest import IsolatedEnv
from tests.security.hostile_packs import HostileStore
from tests.shapes import SHA256

FILE = f"cache/{SHA256}"


@pytest.fixture
def pod(isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch) -> Any:
    def start(name: str) -> Path:
        root = isolated_env.home / ".cache" / name
        monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(root))
        return root

    return start


def tune(root: Path, **shapes: int) -> None:
    path = root / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    table: Any = json.loads(path.read_text()) if path.exists() else {"system": {"hash": SHA256}, "cache": {"mm": {}}}
    table["cache"]["mm"] |= shapes
    path.write_text(json.dumps(table, indent=4))


def shapes(root: Path) -> dict[str, int]:
    found: dict[str, int] = json.loads((root / FILE).read_text())["cache"]["mm"]
    return found


def test_pods_that_tuned_different_shapes_give_all_of_them_to_the_next(pod: Any) -> None:
    tune(pod("first"), a=1)
    assert save().status is OperationStatus.SUCCESS
    second = pod("second")
    assert load().units == 1
    tune(second, b=2)
    assert save().status is OperationStatus.SUCCESS
    tune(pod("third"), c=3, a=9)  # it never loaded
    assert save().status is OperationStatus.SUCCESS
    assert save().status is OperationStatus.SKIPPED
    last = pod("last")
    assert load().units == 1
    assert shapes(last) == {"a": 9, "b": 2, "c": 3}
    assert save().status is OperationStatus.SKIPPED


def test_replicas_that_save_at_once_lose_nothing(pod: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each publishes what it has: neither has seen the other's pack."""
    from b10_transfer.repository.union import Union

    tune(pod("first"), a=1)
    assert save().status is OperationStatus.SUCCESS
    with monkeypatch.context() as patch:
        patch.setattr(Union, "units", property(lambda _union: {}))
        tune(pod("second"), b=2)
        assert save().status is OperationStatus.SUCCESS
    assert load().status is OperationStatus.SKIPPED
    last = pod("last")
    assert load().units == 1
    assert shapes(last) == {"a": 1, "b": 2}


def test_merging_packs_keeps_all_results(pod: Any, monkeypatch: pytest.MonkeyPatch, isolated_env: IsolatedEnv) -> None:
    monkeypatch.setenv("B10_MAX_PACKS", "2")
    monkeypatch.setenv("B10_GRACE_SECONDS", "0")
    for number in range(5):
        tune(pod(f"pod{number}"), **{f"s{number}": number})
        assert save().status is OperationStatus.SUCCESS
    assert len(list(isolated_env.store.glob("v1/*/*/packs/*"))) < 5
    last = pod("last")
    assert load().units == 1
    assert shapes(last) == {f"s{number}": number for number in range(5)}


def test_load_that_merges_adds_results_to_a_file_that_is_there(pod: Any) -> None:
    tune(pod("first"), a=1, b=1)
    save()
    second = pod("second")
    tune(second, b=2, c=3)
    assert load().status is OperationStatus.SKIPPED
    assert load(merge=True).units == 1
    assert shapes(second) == {"a": 1, "b": 2, "c": 3}
    before = (second / FILE).stat()
    assert load(merge=True).units == 0
    assert (second / FILE).stat().st_mtime_ns == before.st_mtime_ns


def test_file_that_its_compiler_changes_meanwhile_is_left_to_it(pod: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    merge = Results.merge

    tune(pod("first"), a=1)
    save()
    second = pod("second")
    tune(second, b=2)

    def merge_slowly(results: Results, older: bytes, newer: bytes) -> bytes:
        tune(second, late=1)
        return merge(results, older, newer)

    monkeypatch.setattr(Results, "merge", merge_slowly)
    load(merge=True)
    assert shapes(second) == {"b": 2, "late": 1}


@pytest.mark.parametrize("content", ["{", "[1]", ""], ids=["half", "a list", "empty"])
def test_malformed_results_are_not_published_first(
    pod: Any, caplog: pytest.LogCaptureFixture, isolated_env: IsolatedEnv, content: str
) -> None:
    """The pod that tunes next has them published, and the one after it finds those."""
    first = pod("first")
    isolated_env.fill(first, {FILE: content.encode(), "fxgraph/ab/fabkey/graph": b"a graph"})
    assert save().units == 1
    assert "is not saved" in caplog.text
    tune(pod("second"), a=1)
    assert save().units == 1
    third = pod("third")
    assert load().units == 2
    assert shapes(third) == {"a": 1}


@pytest.mark.parametrize("content", ["{", "[1]", ""], ids=["half", "a list", "empty"])
def test_malformed_results_are_not_published_over_sound_ones(
    pod: Any, caplog: pytest.LogCaptureFixture, content: str
) -> None:
    tune(pod("first"), a=1)
    save()
    (pod("second") / "cache").mkdir(parents=True)
    (pod("second") / FILE).write_text(content)
    assert save().status is OperationStatus.SKIPPED
    assert "is not saved" in caplog.text
    last = pod("last")
    load()
    assert shapes(last) == {"a": 1}


def test_a_load_looks_for_further_publications_only_of_files_that_collect_results(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looking for them at every unit made the time of a load grow with the square of their number."""
    isolated_env.fill(isolated_env.triton, {f"KEY{number}/a.so": b"a" for number in range(3)})
    assert save().status is OperationStatus.SUCCESS
    searched: list[str] = []
    versions = Union.versions

    def search(union: Union, name: str) -> Any:
        searched.append(name)
        return versions(union, name)

    monkeypatch.setattr(Union, "versions", search)
    monkeypatch.setenv("TRITON_CACHE_DIR", str(isolated_env.home / "elsewhere"))
    assert load().units == 3
    assert searched == []


def test_merged_results_keep_the_time_of_the_latest(pod: Any) -> None:
    """A later time would make them look compiled here."""
    for number, name in enumerate(("first", "second")):
        tune(pod(name), **{name: number})
        os.utime(pod(name) / FILE, (1_700_000_000 + number,) * 2)
        save()
    last = pod("last")
    load()
    assert shapes(last) == {"first": 0, "second": 1}
    assert (last / FILE).stat().st_mtime == 1_700_000_001


def test_more_results_than_a_merge_takes_are_published_and_the_newest_restored(
    pod: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accumulation, "MOST_MEMORY", 500_000)
    for name in ("first", "second", "third"):
        tune(pod(name), **{f"{name}{number}": number for number in range(1500)})
        assert save().status is OperationStatus.SUCCESS
    last = pod("last")
    assert load().units == 1
    found = shapes(last)
    assert sum(key.startswith("third") for key in found) == 1500
    assert len(found) == 3000


@pytest.mark.parametrize("content", ["{", "[1]", ""], ids=["half", "a list", "empty"])
def test_malformed_results_of_the_only_publication_are_not_restored(
    isolated_env: IsolatedEnv, caplog: pytest.LogCaptureFixture, content: str
) -> None:
    isolated_env.fill(isolated_env.inductor, {"fxgraph/ab/fabkey/graph": b"a graph"})
    save()
    shutil.rmtree(isolated_env.inductor)
    HostileStore(isolated_env.store, detect()).add_file(f"inductor/{FILE}", content.encode())
    assert load().units == 1
    assert not (isolated_env.inductor / FILE).exists()
    assert f"results of 1 pack in inductor/{FILE} are left out" in caplog.text


@pytest.mark.parametrize("link", [False, True], ids=["a folder", "a link"])
def test_unit_whose_place_is_taken_is_not_reported_as_restored(pod: Any, tmp_path: Path, link: bool) -> None:
    tune(pod("first"), a=1)
    save()
    taken = pod("second") / FILE
    taken.parent.mkdir(parents=True)
    taken.symlink_to(tmp_path / "missing") if link else taken.mkdir()
    for _ in range(2):
        report = load(merge=True)
        assert (report.units, report.restored) == (0, ())
        assert report.status is OperationStatus.SKIPPED


def test_results_that_cannot_be_written_do_not_affect_the_rest(
    pod: Any, isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("first", "second"):
        tune(pod(name), **{name: 1})
        save()
    isolated_env.fill(isolated_env.triton, {"KERNEL/a.so": b"a"})
    save()
    shutil.rmtree(isolated_env.triton)
    last = pod("last")

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("b10_transfer.local.restore._replace_content", fail)
    report = load()
    assert report.restored == ("triton/KERNEL",)
    assert str(last) in report.partial
    assert not (last / FILE).exists()
