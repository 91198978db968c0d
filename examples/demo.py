"""Compiles a transformer cold in one process, and starts it warm and instantly in two others.

    python examples/demo.py [--layers N] [--store DIR]

The processes, called replicas, run :func:`replica`, as a service would at its start. Each has its own empty cache
directories; they share only the store. torch's own counters show whether the second replica compiled anything and
whether the third one traced anything: graphs traced, and hits and misses of the FX-graph and AOTAutograd caches.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from subprocess import PIPE, Popen

import torch
from rich.box import SIMPLE
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch.nn import functional

from b10_transfer import OperationStatus, load, save

WIDTH, HEADS, VOCABULARY, CONTEXT = 256, 8, 1024, 64
TOLERANCE = 1e-5


class Block(nn.Module):
    """One pre-norm transformer layer."""

    def __init__(self) -> None:
        super().__init__()
        self.norm_1, self.norm_2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        q, k, v = self.qkv(self.norm_1(x)).view(batch, length, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, length, WIDTH))
        y: Tensor = x + self.down(functional.gelu(self.up(self.norm_2(x))))
        return y


class Transformer(nn.Module):
    """Token ids in, logits of the next token out."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.embedding, self.position = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, VOCABULARY)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens) + self.position.weight[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(self.norm(x))
        return logits


@dataclass(frozen=True)
class Outcome:
    """The report of one replica."""

    compile_s: float
    """Duration of ``torch.compile(model)``. In an instant start it restores traces."""
    first_call_s: float
    loaded: str
    why_loaded: str
    saved: str
    why_saved: str
    artifacts: str
    fx_graph: list[int]
    """Hits and misses, as torch counts them."""
    aot_autograd: list[int]
    traced: int
    """Number of graphs that Dynamo traced."""

    @property
    def is_all_hits(self) -> bool:
        return all(hits > 0 and misses == 0 for hits, misses in (self.fx_graph, self.aot_autograd))

    @property
    def is_nothing_traced(self) -> bool:
        return self.traced == 0 and not any(self.fx_graph + self.aot_autograd)


class DemoError(Exception):
    """The demo failed."""


def replica(folder: Path, layers: int, *, instant: bool) -> None:
    """The start of a service: load, compile, warm up, save what was compiled."""
    _announce("loads artifacts from the store")
    loaded = load(instant=instant)  # load_compile_cache() does the same and returns only the status

    _announce("builds its model")
    torch.manual_seed(0)
    transformer = Transformer(layers).eval()
    started = time.perf_counter()
    model = torch.compile(transformer)
    compile_s = time.perf_counter() - started
    tokens = torch.randint(VOCABULARY, (2, CONTEXT))

    _announce("calls the model for the first time")
    started = time.perf_counter()
    with torch.no_grad():
        output = model(tokens)
    first_call_s = time.perf_counter() - started

    _announce("saves its new artifacts to the store")
    saved = save()

    has_published = saved.status is OperationStatus.SUCCESS
    done = saved if has_published else loaded
    outcome = Outcome(
        compile_s=compile_s,
        first_call_s=first_call_s,
        loaded=loaded.status.name,
        why_loaded=loaded.reason,
        saved=saved.status.name,
        why_saved=saved.reason,
        artifacts=f"{'saved' if has_published else 'restored'} {done.units} units\n"
        f"{done.bytes / 1e6:.0f} MB in {done.seconds:.2f} s",
        fx_graph=_hits_and_misses("inductor", "fxgraph_cache"),
        aot_autograd=_hits_and_misses("aot_autograd", "autograd_cache"),
        traced=counters["stats"]["unique_graphs"],
    )
    torch.save(output, folder / "output.pt")
    (folder / "outcome.json").write_text(json.dumps(asdict(outcome)))


def _announce(phase: str) -> None:
    """Name the next step to the demo, which reads this process's standard output."""
    print(phase, flush=True)


def _hits_and_misses(group: str, cache: str) -> list[int]:
    return [counters[group][f"{cache}_hit"], counters[group][f"{cache}_miss"]]


def run_replica(
    folder: Path, layers: int, shared: dict[str, str], show: Callable[[str], None], *, instant: bool
) -> Outcome:
    """Run :func:`replica` in a new process that shares only the store with the other replicas."""
    folder.mkdir()
    own = {
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"),
        "TRITON_CACHE_DIR": str(folder / "triton"),
        "LOCAL_WORK_DIR": str(folder),
        "TMPDIR": str(folder),
    }
    command = [sys.executable, __file__, "replica", str(folder), str(layers), "instant" if instant else "warm"]
    environment = os.environ | shared | own
    log = folder / "stderr.txt"
    with log.open("w") as stderr, Popen(command, env=environment, stdout=PIPE, stderr=stderr, text=True) as run:
        for phase in run.stdout or ():
            show(phase.strip())
    if run.returncode != 0:
        raise DemoError(f"a replica ended with exit status {run.returncode}:\n{log.read_text()[-4000:]}")
    return Outcome(**json.loads((folder / "outcome.json").read_text()))


@contextmanager
def display(name: str, console: Console) -> Iterator[Callable[[str], None]]:
    """Yield a function that shows a replica's next step: in a live line on a terminal, in plain lines elsewhere."""
    columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task(f"{name} replica starts", total=1)
        started = time.perf_counter()

        def show(phase: str) -> None:
            progress.update(task, description=f"{name} replica {phase}")
            if not console.is_terminal:
                print(f"{time.perf_counter() - started:6.1f} s  {name} replica {phase}", flush=True)

        yield show
        progress.update(task, description=f"{name} replica is done", completed=1)


def table(outcomes: dict[str, Outcome]) -> Table:
    heads = ("start", "torch.\ncompile", "first\ncall", "artifacts", "graphs\ntraced", "FX graph\nhit/miss")
    note = "The precompiled C++ header follows after the load: units and sizes of loads leave it out."
    rows = Table(*heads, "AOT\nhit/miss", box=SIMPLE, pad_edge=False, caption=note, caption_justify="left")
    for name, outcome in outcomes.items():
        looked_up = ("{}/{}".format(*counts) for counts in (outcome.fx_graph, outcome.aot_autograd))
        seconds = f"{outcome.compile_s:.1f} s", f"{outcome.first_call_s:.2f} s"
        rows.add_row(name, *seconds, outcome.artifacts, str(outcome.traced), *looked_up)
    return rows


def demonstrate(store: Path, work: Path, layers: int, console: Console) -> None:
    """Run the replicas. Raises :class:`DemoError` if the second compiled, the third traced, or the outputs differ."""
    shared = {
        "B10_STORE": str(store),
        # A new namespace for each run, so that the first replica starts cold also in a kept store.
        "B10_NAMESPACE": f"demo-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}",
    }
    outcomes = {}
    # The cold replica records its traces for the instant one. The warm one does not need them.
    for name, instant in (("cold", True), ("warm", False), ("instant", True)):
        with display(name, console) as show:
            outcomes[name] = run_replica(work / name, layers, shared, show, instant=instant)
        if name == "cold" and outcomes[name].saved != "SUCCESS":
            raise DemoError(f"the cold replica did not save ({outcomes[name].saved}): {outcomes[name].why_saved}")
    console.print(table(outcomes))
    cold, warm, instantly = outcomes.values()
    for name in ("warm", "instant"):
        if outcomes[name].loaded != "SUCCESS":
            raise DemoError(f"the {name} replica did not load ({outcomes[name].loaded}): {outcomes[name].why_loaded}")
    if not warm.is_all_hits:
        raise DemoError("the warm replica compiled: not all of its cache look-ups were hits")
    if not instantly.is_nothing_traced:
        raise DemoError("the instant replica traced; its log says why (docs/instant.md)")
    faster = {name: f"{cold.first_call_s / outcomes[name].first_call_s:,.0f} times as fast" for name in outcomes}
    print(
        f"The warm start compiled nothing; its first call was {faster['warm']}. The instant start traced nothing:\n"
        f"{faster['instant']}. The outputs are {compare(work, tuple(outcomes))}."
    )


def compare(work: Path, names: tuple[str, ...]) -> str:
    """Say in words how equal the outputs are. Raises :class:`DemoError` if they differ."""
    first, *others = (torch.load(work / name / "output.pt") for name in names)
    difference = max(float((first - other).abs().max()) for other in others)
    if not difference <= TOLERANCE:
        raise DemoError(f"the replicas computed different outputs (difference {difference:g})")
    return (
        "bitwise equal" if all(torch.equal(first, other) for other in others) else f"equal to within {difference:.0e}"
    )


def main(arguments: list[str]) -> int:
    if arguments[:1] == ["replica"]:
        replica(Path(arguments[1]), int(arguments[2]), instant=arguments[3] == "instant")
        return 0
    parser = argparse.ArgumentParser(
        description="Compile a transformer cold, save, and start it warm and instantly elsewhere."
    )
    parser.add_argument("--layers", type=int, default=8, help="depth of the transformer (%(default)s)")
    parser.add_argument("--store", type=Path, help="a directory to use as store and keep (default: a temporary one)")
    options = parser.parse_args(arguments)
    console = Console(force_terminal=sys.stdout.isatty())
    with tempfile.TemporaryDirectory(prefix="b10-transfer-demo-", dir="/tmp", ignore_cleanup_errors=True) as temporary:
        work = Path(temporary)
        store = options.store.resolve() if options.store else work / "store"
        store.mkdir(parents=True, exist_ok=True)
        try:
            demonstrate(store, work, options.layers, console)
        except DemoError as error:
            print(f"The demo failed: {error}", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            return 130
    if options.store:
        print(f"The store is kept: {store}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
