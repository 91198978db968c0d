"""Write docs/benchmarks.md, its plots and the README's figures from benchmarks/results/.

    python benchmarks/page.py [--check]

benchmarks/page.md holds the text, with places such as ``{{load}}`` for the sections of benchmarks/sections.py.
``--check`` fails if the page or the README is out of date. Without matplotlib (``pip install '.[bench]'``) no plot is
drawn.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs as a script

from benchmarks import tables
from benchmarks.results import FOLDER, Results, read_all
from benchmarks.sections import SECTIONS, Section

ROOT = Path(__file__).resolve().parents[1]
TEMPLATE = Path(__file__).with_name("page.md")


@dataclass(frozen=True)
class Places:
    """The folder of the results, and the files that are generated from them."""

    results: Path
    page: Path
    plots: Path
    readme: Path | None

    @classmethod
    def of_the_project(cls) -> Places:
        return cls(FOLDER, ROOT / "docs" / "benchmarks.md", ROOT / "docs" / "benchmarks", ROOT / "README.md")

    @classmethod
    def within(cls, folder: Path) -> Places:
        """All in one folder, without a README."""
        return cls(folder / "results", folder / "benchmarks.md", folder / "benchmarks", None)


def text(found: Mapping[str, Results], plots: Collection[str] = (), folder: str = "benchmarks") -> str:
    """The page. ``plots`` are the names of the plots in ``folder``."""
    sections = {section.name: _filled(section, found.get(section.results), plots, folder) for section in SECTIONS}
    return re.sub(r"\{\{(\w+)\}\}", lambda place: sections[place.group(1)], TEMPLATE.read_text(encoding="utf-8"))


def _filled(section: Section, results: Results | None, plots: Collection[str], folder: str) -> str:
    """The table and the plot of a section, with the command, the machine and the versions."""
    if not results or not (table := _table(section, results)):
        return f"Open: `make bench ONLY={section.results}` has not run for this page yet."
    plot = f"![{section.name}]({folder}/{section.name}.svg)" if section.name in plots else ""
    notes = results.notes if results.benchmark == "gpu_cold_start" else ""
    first = next(other for other in SECTIONS if other.results == section.results)
    about = _about(results) if section is first else ""
    return "\n\n".join(filter(None, (table, plot, notes, about)))


def _table(section: Section, results: Results) -> str:
    if not section.columns:
        return tables.limits(results)
    return tables.table(results, section.corner, section.lines(results), section.columns)


def _about(results: Results) -> str:
    the, versions = results.machine, ", ".join(f"{name} {version}" for name, version in results.versions.items())
    where = [the.get("GPU", ""), the.get("CPU", ""), f"{the.get('cores')} cores", the.get("file system", "")]
    machine = ", ".join(part for part in where if part and part != "none")
    return f"`make bench ONLY={results.benchmark}`, {results.time[:10]}: {machine}; {versions}."


def page_of(found: Mapping[str, Results], places: Places) -> str:
    """The page, with the plots that exist."""
    return text(found, {plot.stem for plot in places.plots.glob("*.svg")}, places.plots.name)


def write(places: Places) -> None:
    """Write the page, the plots and the README's figures. Raises ResultsError or OSError."""
    found = read_all(places.results)
    try:
        from benchmarks import plots
    except ModuleNotFoundError as error:
        print(f"no plots: {error} (pip install '.[bench]')", file=sys.stderr)
    else:
        plots.draw(found, places.plots)
    places.page.write_text(page_of(found, places), encoding="utf-8")
    if places.readme and (updated := tables.updated_readme(places.readme.read_text(encoding="utf-8"), found)):
        places.readme.write_text(updated, encoding="utf-8")


def out_of_date(places: Places) -> list[str]:
    """The generated files that differ from the results."""
    found = read_all(places.results)
    wanted = {places.page: page_of(found, places)}
    if places.readme:
        readme = places.readme.read_text(encoding="utf-8")
        wanted[places.readme] = tables.updated_readme(readme, found) or readme
    return [path.name for path, content in wanted.items() if path.read_text(encoding="utf-8") != content]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    places = Places.of_the_project()
    if not parser.parse_args().check:
        write(places)
        return 0
    if stale := out_of_date(places):
        print(f"{', '.join(stale)}: out of date; run `make bench-page`", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
