"""Loads that restore first the units that earlier starts used (B10_RESTORE_REST), and loads that restore everything.

The tree is 3,000 real Triton kernels for an H100 (577 MB). One start uses 300 of them, chosen at random, as a model
whose tuning has tried ten candidates for each kernel. It records that, and compaction gives these kernels frames of
their own. The programs take turns. ``before`` restores everything and returns. ``after`` returns when 300 kernels are
in place. ``never`` restores only these. The bytes are those that the process reads during the call, from the store and
of Python's modules. Those of ``after`` include what the rest has read by then.
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs as a script

from benchmarks import harness
from benchmarks.contenders import Package
from benchmarks.harness import OURS, OperationFailedError, Samples, Session
from benchmarks.results import Label
from benchmarks.trees import extent

KERNELS, QUICK_KERNELS = 3000, 300
USED_SHARE = 10
DEADLINE_S = "300"
MODES = ("before", "after", "never")
MEASURES = {"seconds": "s", "first": "s", "process": "s", "read": "MB"}
_START = """
import os, sys
from pathlib import Path
from b10_transfer import load, save
assert load().status.name == "SUCCESS"
for key in sys.argv[1:]:
    for file in (Path(os.environ["TORCHINDUCTOR_CACHE_DIR"]) / "triton" / "0" / key).iterdir():
        file.read_bytes()
assert save().status.name == "SKIPPED"
"""


def record(session: Session, store: Path, used: list[str]) -> None:
    """A warm start that uses some kernels, and the deletion of what its compaction has superseded."""
    target = str(session.fresh() / "tree")
    variables = {"B10_RESTORE_REST": "after", "B10_GRACE_SECONDS": "0", "TORCHINDUCTOR_CACHE_DIR": target}
    environ = session.environment(OURS, store, **variables)
    session.run([OURS.python, "-c", _START, *used], environ)
    session.run([OURS.python, "-m", "b10_transfer", "prune", "--yes"], environ)
    if not list(store.rglob("*.starts.*")):
        raise OperationFailedError("the start was not recorded: does this file system record reads?")


def load(session: Session, store: Path, tree: Path, mode: str, folder: Path, number: int) -> dict[str, float]:
    """One load. All that ``before`` restores is checked."""
    target = folder / mode
    costs = session.operate(OURS, "load", store, target, B10_RESTORE_REST=mode, B10_DEADLINE_SECONDS=DEADLINE_S)
    if mode == "before":
        Package(OURS).check(tree, target, in_full=number == 0)
    return {measure: costs[measure] for measure in MEASURES}


def measure(session: Session) -> None:
    kernels = QUICK_KERNELS if session.quick else KERNELS
    tree = session.triton_tree(kernels)
    keys = sorted(os.listdir(tree / "triton" / "0"))
    used = random.Random(0).sample(keys, kernels // USED_SHARE)
    store = session.folder / "store"
    session.operate(OURS, "save", store, tree, B10_DEADLINE_SECONDS=DEADLINE_S)
    record(session, store, used)
    session.warm_bytes = 2 * extent(tree).bytes
    turns: dict[str, Callable[[Path, int], dict[str, float]]] = {
        mode: partial(load, session, store, tree, mode) for mode in MODES
    }
    samples = Samples()
    samples.take_turns(session, turns, session.rounds)
    for mode in MODES:
        for name, unit in MEASURES.items():
            labels: dict[str, Label] = {"kernels": kernels, "mode": mode, "measure": name}
            samples.add_to(session.results, f"{kernels:,} kernels: {mode}, {name}", mode, name, unit, labels)
    for mode in MODES[1:]:
        for name in MEASURES:
            labels = {"kernels": kernels, "mode": mode, "measure": f"{name} ratio"}
            ratios = samples.ratios(mode, "before", name)
            session.results.add(f"{kernels:,} kernels: {mode} / before, {name}", "x", ratios, labels=labels)


if __name__ == "__main__":
    sys.exit(harness.run("rest", "Loads of the units that starts use", __doc__, measure, rounds=5, quick_rounds=3))
