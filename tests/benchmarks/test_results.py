"""Results files can be read back, and have a reason for every missing figure."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.results import FOLDER, Results, ResultsError, Row, read, read_all


def results() -> Results:
    return Results.begin("load", "Loads", versions={"torch": "2.13.0"}, file_system="tmpfs", command="python load.py")


def test_results_are_equal_after_writing_and_reading(tmp_path: Path) -> None:
    written = results()
    written.add("load, ours", "s", [0.3, 0.1, 0.2], labels={"program": "ours", "kernels": 300}, command="load()")
    written.cannot("load, published", "s", why="no interpreter has it")
    written.write(tmp_path / "load.json")
    found = read(tmp_path / "load.json")
    assert found == written
    assert found.rows[0].median == 0.2


def test_file_holds_command_versions_machine_and_the_runs_of_each_row(tmp_path: Path) -> None:
    written = results()
    written.add("load", "s", [1.0, 2.0])
    written.write(tmp_path / "load.json")
    document = json.loads((tmp_path / "load.json").read_text())
    assert {"CPU", "cores", "memory", "file system"} <= document["machine"].keys()
    assert {"python", "torch"} <= document["versions"].keys()
    assert document["command"] == "python load.py"
    row = document["rows"][0]
    assert (row["runs"], row["median"], row["spread"], row["unit"]) == (2, 1.5, [1.0, 2.0], "s")


@pytest.mark.parametrize(("values", "why"), [((), ""), ((1.0,), "it failed")])
def test_row_needs_values_or_a_reason(values: tuple[float, ...], why: str) -> None:
    with pytest.raises(ResultsError, match="reason"):
        Row("load", "s", values, why)


def test_row_without_values_has_no_median() -> None:
    with pytest.raises(ResultsError, match="it failed"):
        _ = Row("load", "s", (), "it failed").median


def test_two_rows_with_one_name_are_refused() -> None:
    written = results()
    written.add("load", "s", [1.0])
    with pytest.raises(ResultsError, match="two rows"):
        written.cannot("load", "s", why="it failed")


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"schema": 2}', '{"schema": 1, "rows": 3}'])
def test_error_for_an_invalid_file_names_the_file(tmp_path: Path, content: str) -> None:
    path = tmp_path / "load.json"
    path.write_text(content)
    with pytest.raises(ResultsError, match=r"load\.json"):
        read(path)


def test_find_returns_only_measured_rows() -> None:
    written = results()
    written.cannot("first", "s", why="it failed", labels={"program": "ours"})
    written.add("second", "s", [1.0], labels={"program": "ours", "kernels": 30})
    found = written.find(program="ours")
    assert found is not None
    assert found.name == "second"
    assert written.find(program="theirs") is None


def test_committed_results_can_be_read() -> None:
    for name, found in read_all(FOLDER).items():
        assert found.rows, name
