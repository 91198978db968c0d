"""The sections of docs/benchmarks.md: for each question the table, the plot and the facts that a reader needs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from benchmarks.results import Results
from benchmarks.tables import Selection

Lines = Callable[[Results], Mapping[str, Selection]]
_NAMES = {
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
    """One question, and the results that answer it."""

    name: str
    """Name of its plot."""
    results: str
    title: str
    text: str
    lines: Lines
    """The lines of the table, and the labels that select each."""
    columns: Mapping[str, Selection] = field(default_factory=dict)
    """Empty: the table shows all rows with a limit."""
    corner: str = ""
    plot: Curves | Bars | None = None
    otherwise: str = ""
    """Shown without results."""


def by(label: str, *others: str, only: Iterable[str] = ()) -> Lines:
    """A line for each value of one or more labels, in the order of the rows."""

    def lines(results: Results) -> Mapping[str, Selection]:
        found: dict[str, Selection] = {}
        for row in results.rows:
            if all(one in row.labels for one in (label, *others)):
                values = [str(row.labels[one]) for one in (label, *others)]
                if not only or values[0] in only:
                    name = ", ".join(_NAMES.get(one, one) for one in values)
                    found.setdefault(name, {one: row.labels[one] for one in (label, *others)})
        return found

    return lines


def _savers(results: Results) -> Mapping[str, Selection]:
    found: dict[str, Selection] = {}
    for line in by("savers", "artifacts", "locks")(results).values():
        kind = "different artifacts" if line["artifacts"] == "different" else "equal artifacts"
        found[f"{line['savers']} replicas, {kind}, locks {'on' if line['locks'] == '1' else 'off'}"] = line
    return found


def _of(measure: str, label: str, values: Iterable[str | int], unit: str = "") -> dict[str, Selection]:
    return {
        f"{value:,}{unit}" if isinstance(value, int) else value: {label: value, "measure": measure} for value in values
    }


STOCK, GPU_MODE = "stock", "patched to the GPU's compile mode"
_TREES = ("300 kernels", "500 MB random", "500 MB random, 2 Gbit/s", "500 MB random, 90 MB/s a connection")
_KERNELS = (30, 300, 3000)

SECTIONS = (
    Section(
        "load",
        "load",
        "A load",
        """\
The trees are 30, 300 and 3,000 real Triton kernels for an H100 (5, 50 and 577 MB). A load is one call in a new
process. “Process” adds the interpreter and the imports; the published package imports torch. `tar` and `cp` verify
nothing and do not rewrite the absolute paths in Triton's group files. PyTorch's mega-cache saves only artifacts that
the same process compiled: see [the first call](#the-first-call-of-a-compiled-model).""",
        by("program", only=("b10-transfer", "published 0.4.1", "tar -czf", "tar, zstd -T0", "cp -r")),
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
        "A save",
        "The same trees and programs. “Stored” is the size of the store after the save.",
        by("program", only=("b10-transfer", "published 0.4.1", "tar -czf", "tar, zstd -T0", "cp -r")),
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
        "breakdown",
        "breakdown",
        "The steps of a load",
        """\
CPU time of all threads in each step. A second thread places files if a core is idle, so a load takes less time than
the sum. *environment* detects torch, Triton, Python, CPU and device; *list* lists the store; *index* checks the index
of a pack; *fetch* reads the pack; *verify* computes SHA-256; *decompress* runs zstd; *place* creates, writes and
renames files.""",
        by("step"),
        _of("step", "kernels", (30, 300, 3000), " kernels"),
        "CPU time of a step",
    ),
    Section(
        "fleet",
        "fleet",
        "Many replicas load at once",
        """\
Up to 48 processes on one machine import everything, then start their loads at the same moment. They share the cores,
so the time grows with their number for every program. The published package serves one process at a time.""",
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
        "Many replicas save at once",
        """\
Replicas with equal artifacts hold the same 60 kernels. Replicas with different artifacts hold six kernels each. The
benchmark fails if the union of all packs lacks a unit. Without locks (`B10_LOCKS=0`) replicas may publish a unit more
than once.""",
        _savers,
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
        "Replicas wait while one compiles",
        "The store is empty. One replica compiles and saves; the others wait for its pack and load it.",
        by("waiters"),
        {"from the end of the save until the last replica is warm": {"measure": "last after the save"}},
        "replicas",
    ),
    Section(
        "simulate",
        "simulate",
        "Fleets in simulated time",
        """\
A simulation (`python -m tests.simulation`) runs the project's own load, wait and save for every replica, over a
simulated store and clock. No figure depends on this machine. “Bandwidth alone” is replicas
× bytes of the pack / bytes per second.""",
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
        "Loads from a bucket",
        """\
A Ceph gateway on loopback; client, gateway and disks share the cores. b10-transfer runs a whole load: it verifies,
unpacks and writes every file. obstore only fetches the pack into memory, in eight parts at once. boto3 streams the
pack into `tar --zstd -x`. The last two columns limit the network: 2 Gbit/s in total, or 90 MB/s for each connection
as S3 does.""",
        by("program"),
        _of("process", "tree", _TREES),
        "whole process",
        Bars(
            {tree: ({"tree": tree, "measure": "process"}, {"tree": tree, "measure": "call"}) for tree in _TREES[::3]},
            "seconds of the call, of the process",
        ),
    ),
    Section(
        "first_call",
        "first_call",
        "The first call of a compiled model",
        """\
A transformer and a convolutional network on the CPU. The cold start compiles; the others restore its cache in a new
process. “Process” is the whole process, with imports, restore and building the model. The mega-cache holds no
compiled C++, so on a CPU it compiles every kernel again.""",
        by("program"),
        {
            "transformer: first call": {"model": "transformer", "measure": "first call"},
            "restore": {"model": "transformer", "measure": "load"},
            "process": {"model": "transformer", "measure": "process"},
            "conv net: first call": {"model": "conv net", "measure": "first call"},
            "conv net: process": {"model": "conv net", "measure": "process"},
        },
        "start",
        Bars(
            {
                model: ({"model": model, "measure": "process"}, {"model": model, "measure": "first call"})
                for model in ("transformer", "conv net")
            },
            "seconds of the first call, of the process",
        ),
    ),
    Section(
        "phases",
        "first_call",
        "The phases of a warm start",
        "The same starts after a restore by b10-transfer, divided by torch's own events and by the imports.",
        by("phase"),
        {model: {"model": model, "measure": "phase"} for model in ("transformer", "conv net")},
        "phase",
    ),
    Section(
        "instant",
        "instant",
        "Instant starts",
        """\
A decoder of 24 layers on the CPU. An instant start restores traces while `torch.compile(model)` runs, and traces
nothing. It takes longer than an eager start mainly because it imports Dynamo and Inductor ([details](instant.md)).
“Uncovered” is a call with a length that no replica has compiled: it compiles in the foreground.""",
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
        "gpu",
        "gpu_cold_start",
        "On a GPU",
        "FLUX.1 [schnell] with random weights. `python benchmarks/gpu_cold_start.py --help` explains the starts.",
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
        otherwise="Open: `python benchmarks/gpu_cold_start.py` has not run on a GPU for this page yet.",
    ),
    Section(
        "vllm",
        "vllm",
        "A restart of the real vLLM server",
        """\
vLLM on a CPU, as installed and patched to the compile mode that it uses on GPUs. “Cache kept in place” restarts in
the same home. The restored starts begin with an empty home.""",
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
        "Open: `make bench-vllm` has not run for this page yet. [vllm.md](vllm.md) has figures.",
    ),
    Section(
        "launcher",
        "launcher",
        "Memory and CPU of the command beside a server",
        """\
`b10-compile-cache` beside an idle server, after it saved or restored 300 kernels. Limits: 60 MB at any time, 1 % of a
core while idle.""",
        by("start"),
        {"in memory": {"measure": "in memory"}, "peak": {"measure": "at most"}, "idle, of a core": {"measure": "idle"}},
        "command",
    ),
    Section(
        "cli_ready",
        "cli_ready",
        "A load by the command",
        "`b10-compile-cache load` restores 300 kernels, from exec to exit.",
        by("program"),
        {"from exec to exit": {"measure": "from exec to end"}, "CPU": {"measure": "CPU"}},
        "command",
    ),
    Section(
        "core",
        "core",
        "Limits of a load and a save",
        "`make bench ONLY=core` fails if a limit is missed. A ratio is the median of the ratios of one run's rounds.",
        by("section"),
    ),
)
