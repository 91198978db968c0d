"""The page of benchmarks and the README's figures agree with the results."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import page, tables
from benchmarks.results import Label, Results
from benchmarks.sections import SECTIONS


def load_results(*, published: bool = True) -> Results:
    results = Results.begin("load", "Save and load", versions={}, file_system="tmpfs", command="python load.py")
    results.add("size", "MB", [49.8], labels={"kernels": 300, "measure": "size"})
    results.add("files", "", [2400], labels={"kernels": 300, "measure": "files"})
    for program, seconds in {"b10-transfer": [0.1, 0.09, 0.12], "published 0.4.1": [1.1], "cp -r": [0.101]}.items():
        for measure in ("load", "load process"):
            labels: dict[str, Label] = {"kernels": 300, "measure": measure, "program": program}
            if program == "published 0.4.1" and not published:
                results.cannot(f"{measure} {program}", "s", why="no interpreter | has it\nat all", labels=labels)
            else:
                results.add(f"{measure} {program}", "s", seconds, labels=labels)
    return results


def text(*found: Results) -> str:
    return page.text({results.benchmark: results for results in found})


def test_table_shows_medians_with_the_smallest_and_the_largest_value() -> None:
    assert "| b10-transfer | 100 ms (90 to 120) |" in text(load_results())


def test_page_names_the_command_and_the_file_system() -> None:
    shown = text(load_results())
    assert "`make bench ONLY=load`" in shown
    assert "tmpfs" in shown


def test_missing_figure_has_its_reason_below_the_table() -> None:
    shown = text(load_results(published=False))
    assert "| published 0.4.1 | not run |" in shown
    assert "Not run: published 0.4.1: no interpreter \\| has it." in shown
    assert "at all" not in shown


def test_table_has_no_column_without_rows() -> None:
    shown = text(load_results())
    assert "300 kernels" in shown
    assert "3,000 kernels |" not in shown


def test_page_without_results_explains_how_to_get_some() -> None:
    shown = text()
    assert "make bench" in shown
    assert "python benchmarks/kernels.py 300 --target sm_90" in shown
    assert "`make bench ONLY=gpu_cold_start` has not run for this page yet" in shown


def test_gpu_results_replace_the_sentence_that_they_are_open() -> None:
    results = Results.begin("gpu_cold_start", "FLUX on an H200", versions={}, file_system="ext4", notes="Model: flux")
    labels: dict[str, Label] = {"start": "cold", "part": "transformer", "what": "first call"}
    results.add("cold", "s", [100.0], labels=labels)
    shown = text(results)
    assert "| cold, transformer | 100.0 s |" in shown
    assert "Model: flux" in shown
    assert "ONLY=gpu_cold_start` has not run" not in shown


def test_rows_with_limits_are_listed_with_their_limits() -> None:
    results = Results.begin("core", "Core", versions={}, file_system="tmpfs")
    results.add("load / cp -r", "x", [1.6], at_most=1.5, detail="300 ms / 200 ms")
    assert "| load / cp -r | 1.60× | at most 1.5 x: FAILED |" in text(results)
    assert results.missed


def test_plots_are_shown_if_they_exist(tmp_path: Path) -> None:
    places = page.Places.within(tmp_path)
    found = {"load": load_results()}
    assert "![" not in page.page_of(found, places)
    places.plots.mkdir()
    (places.plots / "load.svg").touch()
    assert "](benchmarks/load.svg)" in page.page_of(found, places)


def test_readme_gets_figures_between_its_markers() -> None:
    readme = f"before\n{tables.BEGIN}\nold\n{tables.END}\nafter\n"
    shown = tables.updated_readme(readme, {"load": load_results()})
    assert shown is not None
    assert shown.startswith("before\n")
    assert shown.endswith("\nafter\n")
    assert "old" not in shown
    assert "**100 ms (90 to 120)**" in shown
    assert "published 0.4.1 1.10 s: 11 times as long" in shown
    assert "`cp -r` 101 ms: the same" in shown
    assert "`make bench ONLY=load`" in shown


def test_readme_omits_programs_that_did_not_run() -> None:
    readme = f"{tables.BEGIN}\n{tables.END}"
    shown = tables.updated_readme(readme, {"load": load_results(published=False)})
    assert shown is not None
    assert "published" not in shown


def test_readme_is_unchanged_without_results() -> None:
    assert tables.updated_readme(f"{tables.BEGIN}\nold\n{tables.END}", {}) is None


def test_committed_page_and_readme_agree_with_the_committed_results() -> None:
    assert page.out_of_date(page.Places.of_the_project()) == []


def test_committed_page_is_complete_and_short() -> None:
    places = page.Places.of_the_project()
    shown = places.page.read_text(encoding="utf-8")
    assert "{{" not in shown
    assert len(shown.splitlines()) < 300


def test_template_has_a_place_for_every_section() -> None:
    template = page.TEMPLATE.read_text(encoding="utf-8")
    assert [section.name for section in SECTIONS if f"{{{{{section.name}}}}}" not in template] == []


def test_plots_are_drawn_from_partial_results_and_are_reproducible(tmp_path: Path) -> None:
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
