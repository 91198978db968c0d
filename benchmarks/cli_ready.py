"""How soon artifacts are in place by the command: ``b10-compile-cache load`` from exec to its end, imports included,
against the published b10-transfer 0.4.1's ``b10-compile-cache``, which loads and ends.

The tree is 300 real Triton kernels for an H100, compiled without one: 2,424 files of 50 MB. ::

    .venv/bin/python benchmarks/cli_ready.py --peer .venv/peer/bin/python --results benchmarks/results/cli_ready.json

Both in turns, each time in a fresh process and into a fresh folder; medians are compared. Exit status 1 if the bound is
missed.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs as a script

from benchmarks import corpus
from benchmarks.measure import Bench, OperationFailed, Program, differences, extent, ours, published
from benchmarks.results import Results
from benchmarks.results import Row as ResultRow
from benchmarks.table import at_least, at_most, to_text
from benchmarks.workspace import file_system, run_again_on_tmpfs, suits_peer, workspace

SPEEDUP = 8.0
"""Seconds of the published command in ours."""
_SAVE = "from b10_transfer import save_compile_cache\nprint(save_compile_cache().name)"


def environment(program: Program, folder: Path, store: Path, root: Path) -> dict[str, str]:
    """What a program sees: its store, the root, and no other cache."""
    foreign = ("B10", "BASETEN", "TORCH", "TRITON", "VLLM", "PYTHON")
    outside = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    places = {"HOME": "home", "TMPDIR": "tmp", "LOCAL_WORK_DIR": "work", "TRITON_CACHE_DIR": "no-triton"}
    return {
        **outside,
        **{variable: str(folder / name) for variable, name in places.items()},
        **program.settings,
        program.store_variable: str(store),
        "TORCHINDUCTOR_CACHE_DIR": str(root),
        # By this one the published command finds it, whatever the other says.
        **({"VLLM_CACHE_ROOT": str(root)} if program.settings else {}),
    }


def save(program: Program, environ: dict[str, str], folder: Path) -> None:
    """Fill a program's store."""
    done = subprocess.run([program.python, "-c", _SAVE], env=environ, cwd=folder, capture_output=True, text=True)
    if not done.stdout.endswith("SUCCESS\n"):
        raise OperationFailed(f"{program.name} did not save: {done.stdout}{done.stderr[-3000:]}")


def load(program: Program, environ: dict[str, str], folder: Path) -> tuple[float, float]:
    """Seconds of a load by the command, from exec to its end, and CPU seconds of all its processes."""
    command = [str(Path(program.python).with_name("b10-compile-cache"))]
    if not program.settings:
        command.append("load")
    before, began = _children_s(), time.perf_counter()
    done = subprocess.run(command, env=environ, cwd=folder, capture_output=True, text=True)
    seconds = time.perf_counter() - began
    if done.returncode:
        raise OperationFailed(f"{program.name}: {done.stdout}{done.stderr[-3000:]}")
    return seconds, _children_s() - before


def _children_s() -> float:
    """CPU seconds of all children of this process that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(options: argparse.Namespace, folder: Path) -> int:
    peer = published(options.peer) if options.peer and suits_peer(folder) else None
    programs = [ours(), *([peer] if peer else [])]
    kind = file_system(folder)
    results = Results.begin(
        "cli_ready", "Artifacts in place by the command", versions={"triton": version("triton")}, file_system=kind
    )
    bench = Bench(folder, on_tmpfs=kind == "tmpfs")
    tree = corpus.install_triton(corpus.triton_corpus(options.corpus, options.kernels), bench.fresh())
    stores = {program.name: bench.fresh() for program in programs}
    for program in programs:
        save(program, environment(program, folder, stores[program.name], tree), folder)
    seconds: dict[str, list[float]] = {program.name: [] for program in programs}
    cpu: dict[str, list[float]] = {program.name: [] for program in programs}
    wrong: list[str] = []
    for _ in range(options.repetitions):
        for program in programs:
            root = bench.fresh() / "restored"
            environ = environment(program, folder, stores[program.name], root)
            for series, value in zip((seconds, cpu), load(program, environ, folder), strict=True):
                series[program.name].append(value)
            if program.name == "ours":
                wrong = wrong or differences(tree, root)
            bench.discard(root.parent)
    rows = [at_most("files that are not as they were", len(wrong), "", 0).with_detail("; ".join(wrong[:3]))]
    for measure, series in (("from exec to end", seconds), ("CPU", cpu)):
        for name, values in series.items():
            labels = {"program": name, "measure": measure}
            results.add(f"{measure}, {name}", "s", values, labels=labels, detail=str(extent(tree)))
        mine, theirs = (results.find(program=name, measure=measure) for name in ("ours", "published"))
        assert mine is not None
        if theirs is None:
            results.cannot(f"{measure}, published", "s", why="no interpreter with it (--peer), or no /cache/model")
            rows.append(at_most(f"{measure}, ours", mine.median, "s", None).with_detail(_shown(mine)))
            continue
        row = at_least(f"{measure}, published / ours", theirs.median / mine.median, "x", SPEEDUP)
        # The promise is about time; CPU seconds tell what a busy machine has added to it.
        row = row if series is seconds else replace(row, bound=None)
        rows.append(row.with_detail(f"{_shown(theirs)} / {_shown(mine)}"))
    print(to_text(f"load by the command: {extent(tree)}", rows), flush=True)
    if options.results:
        results.write(options.results)
    return 0 if all(row.ok for row in rows) else 1


def _shown(row: ResultRow) -> str:
    low, high = min(row.values), max(row.values)
    return f"{1000 * row.median:.0f} ms ({1000 * low:.0f}–{1000 * high:.0f})"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    corpus.add_options(parser)
    parser.add_argument("--peer", help="Python interpreter that has the published b10-transfer installed")
    parser.add_argument("--repetitions", type=int, default=9, help="of each load (%(default)s)")
    parser.add_argument("--quick", action="store_const", const=3, dest="repetitions", help="three repetitions")
    parser.add_argument("--results", type=Path, metavar="FILE", help="also write the results to a file")
    options = parser.parse_args()
    if options.peer:
        options.peer = os.path.abspath(options.peer)
    if (status := run_again_on_tmpfs()) is not None:
        return status
    try:
        with workspace() as folder:
            return measure(options, folder)
    except OperationFailed as failure:
        print(failure, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
