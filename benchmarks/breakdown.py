"""The CPU time of each step of a load, for trees of 300 and 3,000 real Triton kernels.

Each instrumented load runs in its own process; plain loads next to it show the cost of the instruments.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs as a script

from benchmarks import harness
from benchmarks.contenders import Package
from benchmarks.harness import OURS, OperationFailedError, Samples, Session
from benchmarks.instrumented import STEPS
from benchmarks.results import Label
from benchmarks.trees import extent

INSTRUMENTED = Path(__file__).resolve().with_name("instrumented.py")
SIZES, QUICK_SIZES = (300, 3000), (30, 300)


def instrumented(session: Session, tree: Path, store: Path, folder: Path, number: int) -> dict[str, float]:
    """The seconds of every step of one load."""
    target = folder / "instrumented"
    environ = session.environment(OURS, store, TORCHINDUCTOR_CACHE_DIR=str(target))
    finished = session.run([OURS.python, str(INSTRUMENTED)], environ)
    answer = finished.answer
    if answer["status"] != "SUCCESS":
        raise OperationFailedError(f"the instrumented load answered {answer['status']}")
    if unseen := [step for step in STEPS if answer["steps"][step] <= 0 and step != "rest"]:
        raise OperationFailedError(f"no time was measured for {', '.join(unseen)}: adapt benchmarks/instrumented.py")
    Package(OURS).check(tree, target, in_full=number == 0)
    outside = finished.seconds - answer["seconds"] - answer["import_seconds"]
    totals = {"instrumented load": answer["seconds"], "imports": answer["import_seconds"], "interpreter": outside}
    return {**answer["steps"], **totals}


def plain(session: Session, store: Path, folder: Path, _number: int) -> dict[str, float]:
    """The seconds of one load without instruments."""
    costs = Package(OURS).load(session, store, folder / "plain")
    return {"plain load": costs["seconds"], "plain load, whole process": costs["process"]}


def measure(session: Session) -> None:
    for kernels in QUICK_SIZES if session.quick else SIZES:
        tree, samples = session.triton_tree(kernels), Samples()
        store = session.fresh() / "store"
        Package(OURS).save(session, tree, store)
        session.warm_bytes = 2 * extent(tree).bytes
        turns = {"plain": partial(plain, session, store), "steps": partial(instrumented, session, tree, store)}
        samples.take_turns(session, turns, session.rounds)
        if samples.failed:
            raise OperationFailedError("; ".join(samples.failed.values()))
        for (_, what), values in samples.values.items():
            labels: dict[str, Label] = {"kernels": kernels, "measure": "total"}
            if what in STEPS:
                labels |= {"measure": "step", "step": what}
            session.results.add(f"{kernels:,} kernels: {what}", "s", values, labels=labels)
        session.discard(tree.parent)


if __name__ == "__main__":
    sys.exit(harness.run("breakdown", "The steps of a load", __doc__, measure, rounds=7, quick_rounds=3))
