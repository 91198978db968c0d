"""The tables and plots of docs/benchmarks.md. benchmarks/page.md has the text around them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from benchmarks.results import Label, Results
from benchmarks.tables import COLD, MEGA, MODEL, OURS, Selection

Lines = Callable[[Results], Mapping[str, Selection]]
_NAMES = {
    "the same": "equal artifacts",
    "different": "different artifacts",
    "1": "locks on",
    "0": "locks off",
    "ours": "b10-transfer",
    "published": "published 0.4.1",
    "ours, from a local directory": "b10-transfer, local directory",
    "everything kept in place": "cache kept in place",
    "restored by run --": "`b10-compile-cache run`",
    "restored in the background": "`b10-compile-cache &`",
    "restored by published 0.4.1": "published 0.4.1",
    "run, after a save": "`run`, after a save",
    "run, after a load": "`run`, after a load",
    "background, after a save": "`&`, after a save",
    "background, after a load": "`&`, after a load",
}


@dataclass(frozen=True)
class Curves:
    """Panels of curves: a line for each line of the table, against the label ``across``."""

    panels: Mapping[str, Selection]
    across: str
    label: str


@dataclass(frozen=True)
class Bars:
    """Panels of bars: a bar for each line of the table, and optionally the part of it that another row measures."""

    panels: Mapping[str, tuple[Selection, Selection]]
    label: str


@dataclass(frozen=True)
class Section:
    """The table and the plot that answer one question."""

    name: str
    """Of its place in page.md, and of its plot."""
    results: str
    lines: Lines
    """The lines of the table, and the labels that select each."""
    columns: Mapping[str, Selection] = field(default_factory=dict)
    """Empty: the table shows all rows with a limit."""
    corner: str = ""
    plot: Curves | Bars | None = None


def by(*labels: str) -> Lines:
    """A line for each combination of values of some labels, in the order of the rows."""

    def lines(results: Results) -> Mapping[str, Selection]:
        found: dict[str, Selection] = {}
        for row in results.rows:
            if all(label in row.labels for label in labels):
                selection = {label: row.labels[label] for label in labels}
                name = ", ".join(_NAMES.get(str(value), str(value)) for value in selection.values())
                found.setdefault(name, selection)
        return found

    return lines


def _of(measure: str, label: str, values: Iterable[Label], unit: str = "") -> dict[str, Selection]:
    """A column for each value of a label."""
    names = {value: f"{value:,}" if isinstance(value, int) else str(value) for value in values}
    units = {value: unit.removesuffix("s") if value == 1 else unit for value in names}
    return {names[value] + units[value]: {label: value, "measure": measure} for value in names}


STOCK, GPU_MODE = "stock", "patched to the GPU's compile mode"
_TREES = ("300 kernels", "500 MB random", "500 MB random, 2 Gbit/s", "500 MB random, 90 MB/s a connection")
_KERNELS = (30, 300, 3000)

SECTIONS = (
    Section(
        "load",
        "load",
        by("program"),
        {
            **_of("load", "kernels", _KERNELS, " kernels"),
            "process, 300 kernels": {"kernels": 300, "measure": "load process"},
            "peak memory, 3,000 kernels": {"kernels": 3000, "measure": "load peak"},
        },
        "load",
        Curves({"seconds of a load": {"measure": "load"}}, "kernels", "kernels in the tree"),
    ),
    Section(
        "save",
        "load",
        by("program"),
        {
            **_of("save", "kernels", _KERNELS, " kernels"),
            "stored, 300 kernels": {"kernels": 300, "measure": "stored"},
            "stored, 3,000 kernels": {"kernels": 3000, "measure": "stored"},
            "peak memory, 3,000 kernels": {"kernels": 3000, "measure": "save peak"},
        },
        "save",
        Curves({"seconds of a save": {"measure": "save"}}, "kernels", "kernels in the tree"),
    ),
    Section(
        "fleet",
        "fleet",
        by("program"),
        {
            **_of("total", "loaders", (1, 4, 8, 24, 48), " replicas"),
            "slowest / median of 24": {"loaders": 24, "measure": "slowest"},
        },
        "until the last load ends",
        Curves({"seconds until the last load ends": {"measure": "total"}}, "loaders", "replicas"),
    ),
    Section(
        "savers",
        "fleet",
        by("artifacts", "locks"),
        {
            "until the last save ends": {"measure": "total"},
            "packs": {"measure": "packs"},
            "units": {"measure": "units"},
        },
        "save",
    ),
    Section(
        "waiters",
        "fleet",
        by("waiters"),
        {"from the end of the save until the last replica is warm": {"measure": "last after the save"}},
        "replicas",
    ),
    Section(
        "simulate",
        "simulate",
        by("kind", "case"),
        {
            **_of("last warm", "replicas", (10, 1000, 10000), " replicas"),
            "requests per replica (10)": {"replicas": 10, "measure": "requests of a replica"},
            "requests per replica (10,000)": {"replicas": 10000, "measure": "requests of a replica"},
            "MB per replica (10,000)": {"replicas": 10000, "measure": "megabytes of a replica"},
            "time / bandwidth alone (10,000)": {"replicas": 10000, "measure": "last warm / bound"},
        },
        "until the last replica is warm",
        Curves(
            {
                "seconds until the last is warm": {"measure": "last warm"},
                "requests per replica": {"measure": "requests of a replica"},
            },
            "replicas",
            "replicas",
        ),
    ),
    Section(
        "object_store",
        "object_store",
        by("program"),
        _of("process", "tree", _TREES),
        "whole process",
        Bars(
            {tree: ({"tree": tree, "measure": "process"}, {"tree": tree, "measure": "call"}) for tree in _TREES[::3]},
            "seconds of the call, of the process",
        ),
    ),
    Section(
        "rest",
        "rest",
        by("mode"),
        {
            "read": {"measure": "read"},
            "seconds": {"measure": "seconds"},
            "with the first import": {"measure": "first"},
            "process": {"measure": "process"},
        },
        "`B10_RESTORE_REST`",
    ),
    Section(
        "first_call",
        "first_call",
        lambda _results: {name: {"model": MODEL, "program": name} for name in (COLD, OURS, MEGA)},
        {
            "first call": {"measure": "first call"},
            "restore": {"measure": "load"},
            "process": {"measure": "process"},
            "save": {"measure": "save"},
            "stored": {"measure": "stored"},
        },
        "start",
        Bars(
            {"start": ({"measure": "process"}, {"measure": "first call"})}, "seconds of the first call, of the process"
        ),
    ),
    Section(
        "instant",
        "instant",
        by("program"),
        {
            "first call": {"measure": "first call"},
            "`torch.compile(model)`": {"measure": "torch.compile(model)"},
            "load": {"measure": "load"},
            "exec to first result": {"measure": "exec to first result"},
            "uncovered call": {"measure": "uncovered call"},
        },
        "start",
        Bars(
            {"start": ({"measure": "exec to first result"}, {"measure": "first call"})},
            "seconds of the first call, from exec to the first result",
        ),
    ),
    Section(
        "frameworks",
        "frameworks",
        by("model", "start"),
        {
            "first call": {"measure": "first call"},
            "process": {"measure": "process"},
            "process / warm": {"measure": "process / warm"},
            "traces": {"measure": "traced"},
            "hits": {"measure": "hits"},
            "equal": {"measure": "equal"},
        },
        "model, start",
        Bars(
            {"start": ({"measure": "process"}, {"measure": "first call"})}, "seconds of the first call, of the process"
        ),
    ),
    Section(
        "gpu",
        "gpu_cold_start",
        by("start", "part"),
        {
            "first call": {"what": "first call"},
            "FX graph misses": {"what": "FX graph misses"},
            "Triton files compiled": {"what": "Triton kernel files compiled anew"},
            "kernels tuned": {"what": "kernels tuned anew"},
            "step": {"what": "step"},
            "difference from cold": {"what": "difference"},
        },
        "start, part",
    ),
    Section(
        "vllm",
        "vllm",
        by("start"),
        {
            "compile phase": {"set-up": STOCK, "measure": "compile_s"},
            "until ready": {"set-up": STOCK, "measure": "ready_s"},
            "CPU": {"set-up": STOCK, "measure": "cpu_s"},
            "GPU mode: compile phase": {"set-up": GPU_MODE, "measure": "compile_s"},
            "GPU mode: until ready": {"set-up": GPU_MODE, "measure": "ready_s"},
            "GPU mode: CPU": {"set-up": GPU_MODE, "measure": "cpu_s"},
        },
        "start",
        Bars(
            {
                title: ({"set-up": set_up, "measure": "ready_s"}, {"set-up": set_up, "measure": "compile_s"})
                for title, set_up in (("as installed", STOCK), ("GPU mode", GPU_MODE))
            },
            "seconds of the compile phase, until ready",
        ),
    ),
    Section(
        "launcher",
        "launcher",
        by("start"),
        {"in memory": {"measure": "in memory"}, "peak": {"measure": "at most"}, "idle, of a core": {"measure": "idle"}},
        "command",
    ),
    Section(
        "core",
        "core",
        by("section"),
    ),
)
