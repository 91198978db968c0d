"""The plots of the page, as SVG that suits light and dark backgrounds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from benchmarks.results import Label, Results
from benchmarks.sections import SECTIONS, Bars, Curves, Section

MIDDLE = "#7d8590"
"""A grey with enough contrast on white and on dark backgrounds."""
COLOURS = {
    "b10-transfer": "#2f81f7",
    "published 0.4.1": "#e5534b",
    "tar -czf": "#b08800",
    "tar, zstd -T0": "#3fa34d",
    "cp -r": "#8b949e",
    "mega-cache": "#a371f7",
    "cold": "#d2691e",
}
_STYLE: Any = {
    "svg.hashsalt": "b10-transfer",
    "font.size": 10,
    "text.color": MIDDLE,
    "axes.edgecolor": MIDDLE,
    "axes.labelcolor": MIDDLE,
    "axes.titlecolor": MIDDLE,
    "xtick.color": MIDDLE,
    "ytick.color": MIDDLE,
    "grid.color": MIDDLE,
    "grid.alpha": 0.3,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "legend.frameon": False,
}


def draw(found: Mapping[str, Results], folder: Path) -> list[Path]:
    """Draw the plot of every section with results. Equal results give equal files."""
    made = []
    for section in SECTIONS:
        if section.results not in found or section.plot is None:
            continue
        with pyplot.rc_context(_STYLE):
            results, plot = found[section.results], section.plot
            figure = _curves(results, section, plot) if isinstance(plot, Curves) else _bars(results, section, plot)
            if figure is None:
                continue
            folder.mkdir(parents=True, exist_ok=True)
            figure.tight_layout()
            made.append(folder / f"{section.name}.svg")
            figure.savefig(made[-1], metadata={"Date": None}, bbox_inches="tight", transparent=True)
            pyplot.close(figure)
    return made


def _curves(results: Results, section: Section, plot: Curves) -> Figure | None:
    """Medians against a label, with bars from the smallest to the largest value; both axes are logarithmic."""
    panels: Any
    figure, panels = pyplot.subplots(1, len(plot.panels), figsize=(2 + 3.6 * len(plot.panels), 3.6), squeeze=False)
    handles: dict[str, Any] = {}
    for panel, (title, selection) in zip(panels[0], plot.panels.items(), strict=True):
        ticks: set[Label] = set()
        for name, line in section.lines(results).items():
            rows = [row for row in results.select(**line, **selection) if row.values and plot.across in row.labels]
            if not rows:
                continue
            x = [row.labels[plot.across] for row in rows]
            y = [row.median for row in rows]
            error = [[row.median - min(row.values) for row in rows], [max(row.values) - row.median for row in rows]]
            width = 2.6 if name == "b10-transfer" else 1.5
            colour = COLOURS.get(name)
            handles[name] = panel.errorbar(x, y, yerr=error, marker="o", ms=4, lw=width, capsize=2, color=colour)
            ticks |= set(x)
        panel.set(xscale="log", yscale="log", title=title, xlabel=plot.label, xticks=sorted(ticks, key=float))
        for axis in (panel.xaxis, panel.yaxis):
            axis.set_major_formatter(FuncFormatter(lambda number, _place: f"{number:,.6g}"))
            axis.set_minor_formatter(NullFormatter())
        panel.minorticks_off()
        panel.grid(visible=True)
    if not handles:
        pyplot.close(figure)
        return None
    figure.legend(list(handles.values()), list(handles), loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def _bars(results: Results, section: Section, plot: Bars) -> Figure | None:
    """A horizontal bar for each line; the darker part of a bar is the second measure."""
    lines = section.lines(results)
    shown = {
        title: {name: row for name, line in lines.items() if (row := results.find(**line, **whole))}
        for title, (whole, _part) in plot.panels.items()
    }
    shown = {title: rows for title, rows in shown.items() if rows}
    if not shown:
        return None
    panels: Any
    height = 0.9 + 0.32 * max(map(len, shown.values()))
    figure, panels = pyplot.subplots(1, len(shown), figsize=(1.5 + 3.8 * len(shown), height), squeeze=False)
    for panel, (title, rows) in zip(panels[0], shown.items(), strict=True):
        selected = plot.panels[title][1]
        for place, (name, row) in enumerate(rows.items()):
            part = results.find(**lines[name], **selected) if selected else None
            colour = COLOURS.get(name, COLOURS["b10-transfer"])
            panel.barh([place], [row.median], color=colour, alpha=0.35 if part else 1.0)
            text = f" {row.median:.3g} s"
            if part:
                panel.barh([place], [part.median], color=colour)
                text = f" {part.median:.3g} of {row.median:.3g} s"
            panel.text(row.median, place, text, va="center", fontsize=8)
        panel.set_yticks(range(len(rows)), list(rows))
        panel.invert_yaxis()
        panel.set(title=title, xlabel=plot.label, xlim=(0, 1.45 * max(row.median for row in rows.values())))
        panel.grid(axis="x")
    return figure
