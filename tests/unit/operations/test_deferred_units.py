"""A load returns before it restores what no start needs at once, and counts it nowhere."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest

from b10_transfer import OperationStatus, cache_report, load, save
from b10_transfer.adapters.inductor import default_inductor_dir
from b10_transfer.local import placing, restore
from b10_transfer.local.staging import StagedTree
from tests.conftest import IsolatedEnv

GRAPH = {"fxgraph/ab/fabkey/graph": b"a graph"}
HEADER = {"ckey.h": b"source", "ckey.h.gch": b"compiled" * 1000}


@pytest.fixture
def headers(isolated_env: IsolatedEnv) -> Path:
    """Where the headers of a new pod belong. The store has a graph and a header."""
    headers = default_inductor_dir() / "precompiled_headers"
    isolated_env.fill(isolated_env.inductor, GRAPH)
    isolated_env.fill(headers, HEADER)
    assert save().units == 2
    shutil.rmtree(headers)
    return headers


def finish_loads() -> None:
    for thread in threading.enumerate():
        if thread.name == "b10-transfer-load":
            thread.join(60)


def test_load_returns_before_it_restores_headers(
    isolated_env: IsolatedEnv, headers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    returned = threading.Event()
    write = StagedTree.write

    def write_later(tree: StagedTree, parts: list[tuple[object, ...]]) -> None:
        if any("ckey.h" in str(part[0]) for part in parts):
            assert returned.wait(60)
        write(tree, parts)  # type: ignore[arg-type]

    monkeypatch.setattr(StagedTree, "write", write_later)
    shutil.rmtree(isolated_env.inductor)
    report = load()
    assert (report.status, report.units, report.files, report.bytes) == (OperationStatus.SUCCESS, 1, 1, 7)
    assert not (headers / "ckey.h.gch").exists()
    returned.set()
    finish_loads()
    assert {name: (headers / name).read_bytes() for name in HEADER} == HEADER
    assert [(use.cache, use.restored, use.compiled) for use in cache_report().caches] == [("inductor", 1, 0)]


def test_headers_alone_are_restored_before_a_load_returns(headers: Path) -> None:
    assert load(merge=True).units == 1
    assert (headers / "ckey.h.gch").exists()


def test_error_after_the_report_is_a_warning(
    isolated_env: IsolatedEnv, headers: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    place = placing.place

    def fail(root: object, *arguments: object) -> None:
        if "headers" in str(root):
            raise OSError(28, "No space left on device")
        place(root, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(restore, "place", fail)
    shutil.rmtree(isolated_env.inductor)
    assert load().units == 1
    finish_loads()
    assert "No space left on device" in caplog.text
    assert sorted(path.name for path in headers.iterdir()) == ["locks"]
