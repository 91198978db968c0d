"""Save and load equal trees with every program: seconds, bytes in the store, memory.

The trees are 30, 300 and 3,000 real Triton kernels for an H100 (5, 50 and 577 MB). A program that does not restore its
tree has no figures. Takes six minutes, and once a quarter of an hour to compile 3,000 kernels.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs as a script

from benchmarks import harness
from benchmarks.contenders import COMMANDS, Contender, packages
from benchmarks.harness import Samples, Session
from benchmarks.results import Label
from benchmarks.tables import PUBLISHED
from benchmarks.trees import extent

SIZES, QUICK_SIZES = (30, 300, 3000), (30, 300)
MEASURES = {
    "save": ("save", "s"),
    "load": ("load", "s"),
    "save process": ("save, whole process", "s"),
    "load process": ("load, whole process", "s"),
    "stored": ("bytes in the store", "MB"),
    # Only the packages report these.
    "save peak": ("peak memory of a save", "MB"),
    "load peak": ("peak memory of a load", "MB"),
}


def measure(session: Session) -> None:
    for kernels in QUICK_SIZES if session.quick else SIZES:
        tree = session.triton_tree(kernels)
        size = extent(tree)
        session.warm_bytes = 2 * size.bytes
        samples = Samples()
        programs: list[Contender] = [*packages(session, samples), *COMMANDS]
        turns = {program.name: program.turn(session, tree) for program in programs}
        samples.take_turns(session, turns, session.rounds if kernels <= 300 else min(session.rounds, 3))
        title = f"{kernels:,} kernels"
        labels: dict[str, Label] = {"kernels": kernels}
        session.results.add(f"{title}: size", "MB", [size.bytes / 1e6], labels={**labels, "measure": "size"})
        session.results.add(f"{title}: files", "", [size.files], labels={**labels, "measure": "files"})
        for name in (*turns, *({PUBLISHED} - turns.keys())):
            for measure, (what, unit) in MEASURES.items():
                described = {**labels, "measure": measure, "program": name}
                samples.add_to(session.results, f"{title}: {what}, {name}", name, measure, unit, described)
        session.discard(tree.parent)


if __name__ == "__main__":
    sys.exit(harness.run("load", "Save and load of one tree", __doc__, measure, rounds=7, quick_rounds=3))
