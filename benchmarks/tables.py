"""Results as Markdown tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from benchmarks.results import Label, Results, Row

_SECONDS_IN_MS = 1.0


def value(row: Row) -> str:
    """A row's median, and in brackets its smallest and largest value if they differ when written."""
    if not row.values:
        return "not run"
    scale, digits, unit = _shown(row)
    smallest, largest = (_number(limit * scale, digits) for limit in row.spread)
    median = _number(row.median * scale, digits)
    spread = f" ({smallest} to {largest})" if row.runs > 1 and smallest != largest else ""
    return f"{median}{unit}{spread}"


def _shown(row: Row) -> tuple[float, int, str]:
    """By what to multiply, how many decimals to write, and the unit."""
    unit = f" {row.unit}" if row.unit else ""
    if row.unit == "s":
        if row.median < _SECONDS_IN_MS:
            return 1000, 0 if row.median >= 0.01 else 1, " ms"
        return 1, 2 if row.median < 10 else 1, " s"
    if row.unit == "x":
        return 1, 2 if row.median < 10 else 1, " ×"
    if not row.unit:
        return 1, 0 if all(one == int(one) for one in (row.median, *row.values)) else 1, ""
    return 1, 0 if row.median >= 100 else 1 if row.median >= 1 else 2, unit


def _number(number: float, digits: int) -> str:
    return f"{number:,.{digits}f}"


def every_row(results: Results) -> str:
    """A table of all rows, with their runs and what was run."""
    lines = ["| what | median (smallest to largest) | runs | |", "|---|---:|---:|---|"]
    for row in results.rows:
        remarks = [f"`{row.command}`" if row.command else "", row.detail, _first_line(row.why_not)]
        remark = "; ".join(_plain(part) for part in remarks if part)
        lines.append(f"| {_plain(row.name)} | {value(row)} | {row.runs or ''} | {remark} |")
    return "\n".join(lines)


def _first_line(why: str) -> str:
    return why.strip().splitlines()[0][:300] if why.strip() else ""


def _plain(part: str) -> str:
    """Without what would end a cell."""
    return part.replace("|", "\\|").replace("\n", " ")


def pivot(rows: Iterable[Row], down: str, across: str, corner: str, heading: Callable[[Label], str] = str) -> str:
    """A table with a line for each value of one label and a column for each of another; the order is the rows' own."""
    cells: dict[tuple[Label, Label], str] = {}
    lines: dict[Label, None] = {}
    columns: dict[Label, None] = {}
    for row in rows:
        if down in row.labels and across in row.labels:
            line, column = row.labels[down], row.labels[across]
            lines[line] = columns[column] = None
            cells.setdefault((line, column), value(row))
    if not lines:
        return ""
    table = ["| " + " | ".join([corner, *(heading(column) for column in columns)]) + " |"]
    table.append("|---" + "|---:" * len(columns) + "|")
    for line in lines:
        table.append("| " + " | ".join([str(line), *(cells.get((line, column), "") for column in columns)]) + " |")
    return "\n".join(table)


def summary(results: Results) -> str:
    """The tables by which people compare, for benchmarks that have some; all rows come below it."""
    make = _SUMMARIES.get(results.benchmark)
    return make(results) if make else ""


_NAMES = {
    "process": "exec to done",
    "save process": "save, exec to done",
    "load process": "load, exec to done",
    "stored": "in the store",
    "save peak": "peak memory, save",
    "load peak": "peak memory, load",
    "compile_s": "compile phase",
    "ready_s": "ready after",
    "cpu_s": "CPU until then",
}


def _named(measure: Label) -> str:
    return _NAMES.get(str(measure), str(measure))


def _load(results: Results) -> str:
    parts = []
    for kernels in dict.fromkeys(row.labels["kernels"] for row in results.rows if "kernels" in row.labels):
        rows = [row for row in results.rows if row.labels.get("kernels") == kernels]
        sizes = {str(row.labels.get("measure")): value(row) for row in rows}
        table = pivot(rows, "program", "measure", "", _named)
        if table:
            title = f"**{kernels:,} kernels**" if isinstance(kernels, int) else f"**{kernels} kernels**"
            parts.append(f"{title}: {sizes.get('files', '?')} files, {sizes.get('size', '?')}\n\n{table}")
    return "\n\n".join(parts)


def _fleet(results: Results) -> str:
    loaders = [row for row in results.rows if "loaders" in row.labels]
    parts = []
    for measure, title in (("total", "Seconds until all have loaded"), ("slowest", "The slowest in medians")):
        rows = [row for row in loaders if row.labels.get("measure") == measure]
        if table := pivot(rows, "loaders", "program", "loaders"):
            parts.append(f"**{title}**\n\n{table}")
    savers = [row for row in results.rows if "savers" in row.labels]
    lines = []
    for row in savers:
        who = (
            f"{row.labels['savers']}, {row.labels['artifacts']}, locks {'on' if row.labels['locks'] == '1' else 'off'}"
        )
        lines.append(Row(row.name, row.unit, row.values, row.why_not, {**row.labels, "who": who}))
    if table := pivot(lines, "who", "measure", "savers"):
        parts.append(f"**Savers at once**\n\n{table}")
    waiters = [row for row in results.rows if "waiters" in row.labels]
    if table := pivot(waiters, "waiters", "measure", "waiters, one of whom compiles"):
        parts.append(f"**Compile once**\n\n{table}")
    return "\n\n".join(parts)


def _simulate(results: Results) -> str:
    parts = []
    for measure in ("requests of a replica", "megabytes of a replica", "last warm", "last warm / bound"):
        rows = [
            Row(
                row.name,
                row.unit,
                row.values,
                row.why_not,
                {**row.labels, "fleet": f"{row.labels['kind']}, {row.labels['case']}"},
            )
            for row in results.rows
            if row.labels.get("measure") == measure
        ]
        if table := pivot(rows, "fleet", "replicas", "replicas", lambda replicas: f"{replicas:,}"):
            parts.append(f"**{measure.capitalize()}**\n\n{table}")
    return "\n\n".join(parts)


def _object_store(results: Results) -> str:
    parts = []
    for tree in dict.fromkeys(row.labels["tree"] for row in results.rows):
        rows = [row for row in results.rows if row.labels["tree"] == tree]
        if table := pivot(rows, "program", "measure", str(tree)):
            parts.append(table)
        if table := pivot(rows, "against", "measure", f"{tree}: ours against"):
            parts.append(table)
    return "\n\n".join(parts)


def _first_call(results: Results) -> str:
    parts = []
    for model in dict.fromkeys(row.labels["model"] for row in results.rows if "model" in row.labels):
        rows = [
            row for row in results.rows if row.labels.get("model") == model and row.labels.get("measure") != "phase"
        ]
        if table := pivot(rows, "program", "measure", "", _named):
            parts.append(f"**{str(model).capitalize()}**\n\n{table}")
        rows = [
            row for row in results.rows if row.labels.get("model") == model and row.labels.get("measure") == "phase"
        ]
        if table := pivot(rows, "model", "phase", "a warm start after our load"):
            parts.append(table)
    return "\n\n".join(parts)


def _breakdown(results: Results) -> str:
    rows = [row for row in results.rows if row.labels.get("measure") == "step"]
    return pivot(rows, "step", "kernels", "work of a step", lambda kernels: f"{kernels:,} kernels")


def _instant(results: Results) -> str:
    return pivot(results.rows, "program", "measure", "start")


def _launcher(results: Results) -> str:
    return pivot(results.rows, "start", "measure", "")


def _vllm(results: Results) -> str:
    parts = []
    for set_up in dict.fromkeys(str(row.labels["set-up"]) for row in results.rows):
        rows = [row for row in results.rows if row.labels["set-up"] == set_up]
        if table := pivot(rows, "start", "measure", "", _named):
            parts.append(f"**{set_up[:1].upper()}{set_up[1:]}**\n\n{table}")
    return "\n\n".join(parts)


_SUMMARIES = {
    "load": _load,
    "fleet": _fleet,
    "simulate": _simulate,
    "object_store": _object_store,
    "first_call": _first_call,
    "instant": _instant,
    "breakdown": _breakdown,
    "vllm": _vllm,
    "launcher": _launcher,
}
