"""The page's plots, as SVG for light and for dark pages alike: no background, axes and text in a middle tone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from benchmarks.results import Label, Results, Row

MIDDLE = "#7d8590"
"""Contrast of some 4 to 1 against white and against the darkest backgrounds alike."""
COLOURS = {
    "b10-transfer": "#2f81f7",
    "published 0.4.1": "#e5534b",
    "tar -czf": "#b08800",
    "tar, zstd -T0": "#3fa34d",
    "cp -r": "#8b949e",
    "mega-cache": "#a371f7",
    "cold": "#d2691e",
    "mount, a pack is there": "#2f81f7",
    "mount, one compiles": "#1b9e9e",
    "bucket, a pack is there": "#d2691e",
    "bucket, one compiles": "#b08800",
}
PARTS = ("#2f81f7", "#3fa34d", "#b08800", "#e5534b", "#a371f7", "#d2691e", "#1b9e9e", "#c061a0", "#8b949e")
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


def draw(found: Mapping[str, Results], folder: Path, kind: str = "svg", **options: Any) -> list[Path]:
    """Draw what there are results for; the files. ``kind`` ``png`` and ``facecolor`` are for looking at them."""
    made = []
    for name, benchmark, plot in PLOTS:
        if benchmark not in found:
            continue
        with pyplot.rc_context(_STYLE):
            figure = plot(found[benchmark])
            if figure is None:
                continue
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"{name}.{kind}"
            # Without the time of drawing, so that equal results give equal files.
            metadata = {"Date": None} if kind == "svg" else None
            figure.savefig(path, metadata=metadata, bbox_inches="tight", **{"transparent": True, **options})
            pyplot.close(figure)
            made.append(path)
    return made


def load(results: Results) -> Figure | None:
    """Seconds against the size of the tree, for a save and for a load."""
    figure, panels = pyplot.subplots(1, 2, figsize=(9, 3.8), sharey=True)
    sizes = {row.labels["kernels"]: row.median for row in measured(results, measure="size")}
    for panel, measure, title in zip(panels, ("load process", "save process"), ("load", "save"), strict=True):
        for program, rows in by(measured(results, measure=measure), "program").items():
            points = [(sizes[row.labels["kernels"]], row) for row in rows if row.labels.get("kernels") in sizes]
            _curve(panel, str(program), points)
        _logarithmic(panel, sorted(sizes.values()))
        panel.set_title(title)
        panel.set_xlabel("size of the tree (MB)")
    panels[0].set_ylabel("seconds from exec to done")
    return _with_legend(figure, *panels)


def fleet(results: Results) -> Figure | None:
    """Seconds until all loaders are done, against their number."""
    figure, panel = pyplot.subplots(figsize=(6, 3.8))
    numbers = {row.labels["loaders"] for row in measured(results, measure="total") if "loaders" in row.labels}
    for program, rows in by(measured(results, measure="total"), "program").items():
        _curve(panel, str(program), [(float(row.labels["loaders"]), row) for row in rows])
    _logarithmic(panel, sorted(float(number) for number in numbers))
    panel.set_xlabel("processes that load at once")
    panel.set_ylabel("seconds until the last is done")
    return _with_legend(figure, panel)


def simulate(results: Results) -> Figure | None:
    """For each fleet: what a replica asks for, and when the last one is warm, against the number of replicas."""
    panels: Any
    figure, panels = pyplot.subplots(1, 3, figsize=(11, 3.6))
    shown = (
        (panels[0], "requests of a replica", "requests of a replica"),
        (panels[1], "megabytes of a replica", "MB from the store, of a replica"),
        (panels[2], "last warm", "seconds until the last replica is warm"),
    )
    for panel, measure, axis in shown:
        for name, points in _fleets(measured(results, measure=measure)).items():
            _curve(panel, name, points)
        numbers = {float(row.labels["replicas"]) for row in measured(results, measure=measure)}
        _logarithmic(panel, sorted(numbers))
        panel.xaxis.set_major_formatter(FuncFormatter(lambda number, _place: f"{number:,.0f}"))
        panel.set_xlabel("replicas")
        panel.set_ylabel(axis)
    panels[0].set_ylim(bottom=1)
    panels[1].set_ylim(1, 100)
    for kind, rows in by(measured(results, measure="bound"), "kind").items():
        bounds = {float(row.labels["replicas"]): row.median for row in rows}
        panels[2].plot(list(bounds), list(bounds.values()), ls=":", color=MIDDLE, label="bandwidth's bounds")
        panels[2].annotate(
            str(kind), min(bounds.items()), textcoords="offset points", xytext=(14, 0), ha="left", fontsize=8
        )
    return _with_legend(figure, *panels)


def _fleets(rows: Sequence[Row]) -> dict[str, list[tuple[float, Row]]]:
    """Points by the kind of store and by what is there at the beginning."""
    found: dict[str, list[tuple[float, Row]]] = {}
    for row in rows:
        name = f"{row.labels['kind']}, {row.labels['case']}"
        found.setdefault(name, []).append((float(row.labels["replicas"]), row))
    return found


def first_call(results: Results) -> Figure | None:
    """For each model, a bar for each way to start: the first call, and what else the process took."""
    models = by(measured(results, measure="first call"), "model")
    if not models:
        return None
    figure: Figure | None
    figure, panels = pyplot.subplots(1, len(models), figsize=(4.6 * len(models), 3.4), squeeze=False)
    for panel, (model, rows) in zip(panels[0], models.items(), strict=True):
        names = [str(row.labels["program"]) for row in rows]
        colours = [COLOURS.get(name, MIDDLE) for name in names]
        wholes = by(measured(results, measure="process", model=model), "program")
        whole = [
            wholes[name][0].median if name in wholes else row.median for name, row in zip(names, rows, strict=True)
        ]
        panel.barh(names, whole, color=colours, alpha=0.35, label="the rest of the process")
        panel.barh(names, [row.median for row in rows], color=colours, label="first call")
        for place, row in enumerate(rows):
            panel.text(whole[place], place, f" {row.median:.1f} of {whole[place]:.1f} s", va="center", fontsize=8)
        panel.invert_yaxis()
        panel.set_title(str(model))
        panel.set_xlim(0, max(whole) * 1.3)
        panel.set_xlabel("seconds (first call, of exec to done)")
        panel.grid(axis="x")
        if panel is not panels[0][0]:
            panel.tick_params(labelleft=False)
    figure.tight_layout()
    return figure


def breakdown(results: Results) -> Figure | None:
    """The work of each step of a load, in per cent, for each size."""
    sizes = by(measured(results, measure="step"), "kernels")
    bars = {
        f"{kernels:,} kernels" if isinstance(kernels, int) else str(kernels): rows for kernels, rows in sizes.items()
    }
    elapsed = {}
    for kernels in sizes:
        row = results.find(kernels=kernels, measure="total")
        elapsed[f"{kernels:,} kernels" if isinstance(kernels, int) else str(kernels)] = row.median if row else 0.0
    return _stacked(bars, "step", "CPU seconds of all threads; the mark is what a load elapses", elapsed)


def warm_start(results: Results) -> Figure | None:
    """What a process does from exec to done that starts warm."""
    rows = measured(results, measure="phase")
    bars = {str(model): of_model for model, of_model in by(rows, "model").items()}
    return _stacked(bars, "phase", "seconds from exec to done", {})


PLOTS: tuple[tuple[str, str, Callable[[Results], Figure | None]], ...] = (
    ("load", "load", load),
    ("breakdown", "breakdown", breakdown),
    ("fleet", "fleet", fleet),
    ("simulate", "simulate", simulate),
    ("first_call", "first_call", first_call),
    ("warm_start", "first_call", warm_start),
)


def measured(results: Results, **labels: Label) -> list[Row]:
    """Rows with values that have these labels."""
    return [row for row in results.rows if row.values and labels.items() <= dict(row.labels).items()]


def by(rows: Iterable[Row], label: str) -> dict[Label, list[Row]]:
    """Rows by the value of a label, in their order; those without it are left out."""
    groups: dict[Label, list[Row]] = {}
    for row in rows:
        if label in row.labels:
            groups.setdefault(row.labels[label], []).append(row)
    return groups


def _curve(panel: Axes, name: str, points: Sequence[tuple[float, Row]]) -> None:
    """Medians, with bars from the smallest to the largest value."""
    if not points:
        return
    across = [place for place, _row in points]
    medians = [row.median for _place, row in points]
    below = [row.median - row.spread[0] for _place, row in points]
    above = [row.spread[1] - row.median for _place, row in points]
    width = 2.6 if name == "b10-transfer" else 1.5
    panel.errorbar(
        across, medians, yerr=[below, above], marker="o", ms=4, lw=width, capsize=2, label=name, color=COLOURS.get(name)
    )


def _logarithmic(panel: Axes, ticks: Sequence[float]) -> None:
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.set_xticks(list(ticks))
    for axis in (panel.xaxis, panel.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda number, _place: f"{number:.3g}"))
        axis.set_minor_formatter(NullFormatter())
    panel.minorticks_off()
    panel.grid(visible=True)


def _with_legend(figure: Figure, *panels: Axes) -> Figure | None:
    """The figure with one legend for all panels beside them; None if there is nothing to show."""
    named = {name: handle for panel in panels for handle, name in zip(*panel.get_legend_handles_labels(), strict=True)}
    if not named:
        pyplot.close(figure)
        return None
    figure.tight_layout()
    figure.legend(list(named.values()), list(named), loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def _stacked(
    bars: Mapping[str, Sequence[Row]], label: str, axis: str, marks: Mapping[str, float], *, share: float = 0.02
) -> Figure | None:
    """A horizontal bar for each of ``bars``, in a panel with an axis of its own."""
    if not bars:
        return None
    figure: Figure | None
    figure, panels = pyplot.subplots(len(bars), 1, figsize=(8, 1.25 * len(bars) + 0.6), squeeze=False)
    steps = list(dict.fromkeys(str(row.labels[label]) for rows in bars.values() for row in rows))
    colours = dict(zip(steps, PARTS * (1 + len(steps) // len(PARTS)), strict=False))
    for panel, (name, rows) in zip(panels[:, 0], bars.items(), strict=True):
        total = sum(row.median for row in rows)
        left = 0.0
        for row in rows:
            step = str(row.labels[label])
            panel.barh([name], [row.median], left=left, color=colours[step], label=step)
            if row.median > 3.5 * share * total:
                shown = f"{row.median * 1000:.0f} ms" if row.median < 1 else f"{row.median:.1f} s"
                panel.text(left + row.median / 2, 0, shown, ha="center", va="center", fontsize=8, color="white")
            left += row.median
        if mark := marks.get(name):
            panel.plot([mark, mark], [-0.55, 0.55], color=MIDDLE, lw=2.5)
        panel.set_xlim(0, 1.05 * max(left, marks.get(name, 0.0)))
        panel.set_ylim(-0.6, 0.6)
        panel.grid(axis="x")
    panels[-1, 0].set_xlabel(axis)
    handles, names = panels[0, 0].get_legend_handles_labels()
    figure.tight_layout()
    figure.legend(handles, names, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure
