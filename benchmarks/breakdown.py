"""Where the time of a load goes: the work of each of its steps, on trees of 300 and 3,000 real Triton kernels.

The steps are measured from outside, in processes of their own; plain loads beside them show what measuring costs.
Takes half a minute.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs as a script

from benchmarks import corpus, session
from benchmarks.instrumented import STEPS
from benchmarks.measure import OperationFailed, extent
from benchmarks.programs import our_package
from benchmarks.session import Session

INSTRUMENTED = Path(__file__).resolve().with_name("instrumented.py")
SIZES, QUICK_SIZES = (300, 3000), (30, 300)
ROUNDS, QUICK_ROUNDS = 7, 3
_NOTES = """\
The work of a step is the CPU time that its threads spend on it. Where a core is idle a second thread places files while
the first one fetches, verifies, decompresses and then lends a hand: a load elapses in less than the sum.
*environment*: torch, Triton, Python, CPU and device are found out; *list*: folders of the store; *index*: a pack's
index is checked; *fetch*: the pack is read; *verify*: SHA-256; *decompress*: zstd; *place*: folders and files are
created, written, given their times and renamed. Not in the bars: the interpreter's start and the imports, which have
rows of their own. From a store with a latency, fetch and list are waits and cost no work: there another thread hides
them as far as it can."""


def measure(the: Session) -> str:
    package = our_package()
    for kernels in QUICK_SIZES if the.quick else SIZES:
        made = corpus.triton_corpus(the.corpus, kernels)
        folder = the.bench.fresh()
        keys = sorted(path.name for path in made.iterdir())[:kernels]
        tree = corpus.install_triton(made, folder / "tree", keys)
        package.save(the.bench, f"breakdown save {kernels}", tree, folder / "store")
        the.bench.touched_bytes = 2 * extent(tree).bytes
        found: dict[str, list[float]] = defaultdict(list)
        for number in range(QUICK_ROUNDS if the.quick else ROUNDS):
            plain, measured = folder / f"plain{number}", folder / f"measured{number}"
            series = f"breakdown load {kernels}"
            package.load(the.bench, series, folder / "store", plain)
            run = the.bench.series[series].runs[-1]
            found["a plain load elapses"].append(run.seconds)
            found["a plain load, from exec to done"].append(run.wall_seconds)
            _instrumented(the, folder / "store", measured, found)
            if wrong := package.wrong(tree, measured):
                raise OperationFailed(f"the measured load did not restore {wrong[0]}")
            the.bench.discard(plain)
            the.bench.discard(measured)
        for what, values in found.items():
            labels: dict[str, str | int | float] = {"kernels": kernels, "measure": "total"}
            if what in STEPS:
                labels |= {"measure": "step", "step": what}
            the.results.add(f"{kernels:,} kernels: {what}", "s", values, labels=labels)
        the.bench.discard(folder)
    return _NOTES


def _instrumented(the: Session, store: Path, target: Path, found: dict[str, list[float]]) -> None:
    program = our_package().program
    the.bench.touch(the.bench.touched_bytes)
    environ = the.bench.environment(program, store, target)
    began = time.perf_counter()
    process = subprocess.run(
        [program.python, str(INSTRUMENTED)], env=environ, cwd=the.folder, capture_output=True, text=True
    )
    wall = time.perf_counter() - began
    if process.returncode:
        raise OperationFailed(f"the measured load crashed: {process.stderr[-2000:]}")
    told = json.loads(process.stdout.splitlines()[-1])
    if told["status"] != "SUCCESS":
        raise OperationFailed(f"the measured load answered {told['status']}")
    if unseen := [step for step in STEPS if told["steps"][step] <= 0 and step != "rest"]:
        raise OperationFailed(f"the package has changed: {', '.join(unseen)} did not happen where it was looked for")
    for step in STEPS:
        found[step].append(told["steps"][step])
    found["a measured load elapses"].append(told["elapsed_seconds"])
    found["its imports"].append(told["import_seconds"])
    found["its interpreter, from exec to exit"].append(wall - told["elapsed_seconds"] - told["import_seconds"])


if __name__ == "__main__":
    sys.exit(session.run("breakdown", "Where the time of a load goes", __doc__, measure))
