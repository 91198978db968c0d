"""Seconds of ``b10-compile-cache load`` from exec to exit, relative to the published command, which loads and exits.

The tree is 300 real Triton kernels for an H100. The commands take turns. Fails if the limit is missed.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs as a script

from benchmarks import harness
from benchmarks.contenders import Package, packages
from benchmarks.harness import OURS, Samples, Session
from benchmarks.tables import PUBLISHED
from benchmarks.trees import extent

SPEEDUP = 8.0
"""Seconds of the published command relative to this project's."""


def command(session: Session, package: Package, tree: Path, store: Path) -> Callable[[Path, int], dict[str, float]]:
    """A load by the command, in one round."""
    program = str(Path(package.program.python).with_name("b10-compile-cache"))
    arguments = [program, "load"] if package.program is OURS else [program]

    def act(folder: Path, number: int) -> dict[str, float]:
        root = folder / f"restored-{package.slug}"
        # The published command finds the cache directory only by vLLM's variable.
        variables = {"TORCHINDUCTOR_CACHE_DIR": str(root)}
        variables |= {} if package.program is OURS else {"VLLM_CACHE_ROOT": str(root)}
        finished = session.run(arguments, session.environment(package.program, store, **variables))
        package.check(tree, root, in_full=number == 0)
        return {"from exec to end": finished.seconds, "CPU": finished.cpu_seconds}

    return act


def measure(session: Session) -> None:
    tree, samples = session.triton_tree(30 if session.quick else 300), Samples()
    session.warm_bytes = 2 * extent(tree).bytes
    turns = {}
    for package in packages(session, samples):
        store = session.fresh() / "store"
        package.save(session, tree, store)
        turns[package.name] = command(session, package, tree, store)
    samples.take_turns(session, turns, session.rounds)
    for name in (OURS.name, PUBLISHED):
        for measure in ("from exec to end", "CPU"):
            labels = {"program": name, "measure": measure}
            samples.add_to(session.results, f"{measure}, {name}", name, measure, "s", labels, detail=str(extent(tree)))
    if PUBLISHED not in samples.failed:
        ratio = statistics.median(samples.ratios(PUBLISHED, OURS.name, "from exec to end"))
        session.results.add("from exec to end, published / b10-transfer", "x", [ratio], at_least=SPEEDUP)


if __name__ == "__main__":
    sys.exit(harness.run("cli_ready", "A load by the command", __doc__, measure, rounds=9, quick_rounds=3))
