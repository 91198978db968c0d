"""The benchmarks' page and the README's figures say what the results say, and no more."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import figures, page
from benchmarks.results import Label, Results


def load_results(*, published: bool = True) -> Results:
    results = Results.begin("load", "Save and load", versions={}, file_system="tmpfs", command="python load.py")
    results.add("size", "MB", [49.8], labels={"kernels": 300, "measure": "size"})
    results.add("files", "", [2400], labels={"kernels": 300, "measure": "files"})
    for program, seconds in {"b10-transfer": [0.1, 0.09, 0.12], "published 0.4.1": [1.1], "cp -r": [0.05]}.items():
        for measure in ("load", "load process"):
            labels: dict[str, Label] = {"kernels": 300, "measure": measure, "program": program}
            if program == "published 0.4.1" and not published:
                results.cannot(f"{measure} {program}", "s", why="no interpreter | has it\nat all", labels=labels)
            else:
                results.add(f"{measure} {program}", "s", seconds, labels=labels)
    return results


def text(*found: Results) -> str:
    return page.text({results.benchmark: results for results in found}, {}, "benchmarks")


def test_page_shows_a_table_of_medians_with_their_spread() -> None:
    assert "| b10-transfer | 100 ms (90 to 120) |" in text(load_results())


def test_page_names_command_and_machine() -> None:
    shown = text(load_results())
    assert "`python load.py`" in shown
    assert "tmpfs" in shown


def test_row_that_could_not_run_says_why_within_its_cell() -> None:
    shown = text(load_results(published=False))
    assert "| published 0.4.1 | not run |" in shown
    assert "no interpreter \\| has it" in shown
    assert "at all" not in shown


def test_page_without_results_still_tells_how_to_get_some() -> None:
    shown = text()
    assert "make bench" in shown
    assert "benchmarks/corpus.py --kernels 300 --target sm_90 OUT" in shown
    assert "no GPU has run" in shown


def test_gpu_results_take_the_place_that_is_left_for_them() -> None:
    results = Results.begin("gpu_cold_start", "FLUX on an H200", versions={}, file_system="ext4")
    results.add("cold", "s", [100.0])
    shown = text(results)
    assert "## FLUX on an H200" in shown
    assert "no GPU has run" not in shown


def test_benchmark_that_nobody_foresaw_is_shown_with_all_its_rows() -> None:
    results = Results.begin("another", "Another one", versions={}, file_system="tmpfs")
    results.add("packs", "", [3, 4, 3])
    assert "| packs | 3 (3 to 4) | 3 |" in text(results)


def test_plots_are_shown_where_they_exist(tmp_path: Path) -> None:
    places = page.Places.within(tmp_path)
    found = {"load": load_results()}
    assert "![" not in page.page_of(found, places)
    places.plots.mkdir()
    (places.plots / "load.svg").touch()
    assert "](benchmarks/load.svg)" in page.page_of(found, places)


def test_readme_gets_its_figures_between_the_marks() -> None:
    readme = f"before\n{figures.BEGIN}\nold\n{figures.END}\nafter\n"
    shown = figures.updated(readme, {"load": load_results()})
    assert shown is not None
    assert shown.startswith("before\n")
    assert shown.endswith("\nafter\n")
    assert "old" not in shown
    assert "**100 ms (90 to 120)**" in shown
    assert "published 0.4.1 1.10 s: 11 times as long" in shown
    assert "`make bench ONLY=load`" in shown


def test_readme_leaves_out_what_was_not_measured() -> None:
    readme = f"{figures.BEGIN}\n{figures.END}"
    shown = figures.updated(readme, {"load": load_results(published=False)})
    assert shown is not None
    assert "published" not in shown


def test_readme_stays_as_it_is_without_results() -> None:
    assert figures.updated(f"{figures.BEGIN}\nold\n{figures.END}", {}) is None


def test_committed_page_says_what_the_committed_results_say() -> None:
    assert page.out_of_date(page.Places.of_the_project()) == []


def test_plots_are_drawn_from_whatever_there_is(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from benchmarks import plots

    drawn = plots.draw({"load": load_results(published=False)}, tmp_path)
    assert [path.name for path in drawn] == ["load.svg"]
    first = drawn[0].read_bytes()
    assert b"<svg" in first
    assert plots.draw({"load": load_results(published=False)}, tmp_path)[0].read_bytes() == first
    empty = Results.begin("fleet", "Many", versions={}, file_system="tmpfs")
    empty.cannot("24 loaders", "s", why="it failed", labels={"loaders": 24, "measure": "total", "program": "x"})
    assert plots.draw({"fleet": empty}, tmp_path) == []
