"""Measure the limits of a load and a save, and fail if one is missed.

Every figure is a ratio of two measurements of one run that take turns on one file system, each in a new process and a
new folder: the median of the ratios of all rounds. Takes some minutes and up to 5 GB of memory.
"""

from __future__ import annotations

import os
import shutil
import statistics
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs as a script

from benchmarks import corpus, harness
from benchmarks.contenders import COMMANDS, Contender, Package, packages
from benchmarks.harness import OURS, Samples, Session
from benchmarks.results import Results
from benchmarks.tables import PUBLISHED
from benchmarks.trees import differences, extent

DIFFUSERS = "torch,torch._dynamo,torch._inductor.compile_fx,diffusers.pipelines.flux.pipeline_flux"
"""Half a million objects."""
LOAD_TO_COPY = 1.5
"""Seconds of a load relative to ``cp -r``."""
PROGRAMS = {"imports nothing else": "json", "has imported torch": "torch", "has imported diffusers": DIFFUSERS}
FIRST_TO_COPY = 1.5
"""The same with the import of the function."""
SPEEDUP = 15.0
"""Seconds of the published package relative to this project's, for a load and for a save."""
STORED = 0.55
"""Bytes in the store relative to the published package's archive."""
IMPORT = "from b10_transfer import load_compile_cache, save_compile_cache"
IMPORT_MS = 60.0
"""Added to an interpreter that does nothing."""
PEAK_MB = 250.0
NEW_PERCENT = 4.0
"""Bytes that a save adds for one per cent of new kernels. A small pack compresses less than a large one."""
HUGE_BYTES, QUICK_HUGE_BYTES = 600_000_000, 60_000_000


class Limits:
    """Adds the rows of one section."""

    def __init__(self, results: Results, section: str) -> None:
        self._results, self._section = results, section

    def add(self, what: str, unit: str, value: float, **limit: Any) -> None:
        self._results.add(f"{self._section}: {what}", unit, [value], labels={"section": self._section}, **limit)

    def of_a_load(self, samples: Samples, name: str) -> None:
        """The limits of any load."""
        self.add("peak memory of a load", "MB", max(samples.values[name, "load peak"]), at_most=PEAK_MB)
        self.add("costly imports of a load", "", max(samples.values[name, "load costly"]), at_most=0)


def imports(session: Session) -> None:
    """The cost of importing the two public functions."""
    samples = Samples()
    programs = {"nothing": "pass", "import": IMPORT}

    def run(program: str) -> Mapping[str, float]:
        return {"seconds": session.run([sys.executable, "-c", program], session.environment()).seconds}

    turns = {name: lambda _folder, _number, program=program: run(program) for name, program in programs.items()}
    samples.take_turns(session, turns, 4 * session.rounds)
    milliseconds = 1000 * (samples.median("import", "seconds") - samples.median("nothing", "seconds"))
    Limits(session.results, "import").add("load and save", "ms", milliseconds, at_most=IMPORT_MS)


def compare(session: Session, title: str, tree: Path, *, against_copy: bool) -> None:
    """A load and a save relative to ``cp -r`` and to the published package."""
    samples = Samples()
    copy = COMMANDS[-1]
    programs: list[Contender] = [*packages(session, samples), copy]
    session.warm_bytes = 2 * extent(tree).bytes
    samples.take_turns(session, {one.name: one.turn(session, tree) for one in programs}, session.rounds)
    limits, ours = Limits(session.results, f"{title}: {extent(tree)}"), OURS.name
    limit = {"at_most": LOAD_TO_COPY} if against_copy else {}
    limits.add("load / cp -r", "x", statistics.median(samples.ratios(ours, copy.name, "load")), **limit)
    if PUBLISHED in samples.failed:
        labels = {"section": title}
        session.results.cannot(f"{title}: published package", "x", why=samples.failed[PUBLISHED], labels=labels)
    else:
        for operation in ("load", "save"):
            ratio = statistics.median(samples.ratios(PUBLISHED, ours, operation))
            limits.add(f"published {operation} / b10-transfer", "x", ratio, at_least=SPEEDUP)
        stored = samples.median(ours, "stored") / samples.median(PUBLISHED, "stored")
        limits.add("stored bytes / published", "x", stored, at_most=STORED)
    limits.of_a_load(samples, ours)


def first_loads(session: Session, tree: Path) -> None:
    """The first load of programs that have imported much, with the import of the function, relative to ``cp -r``."""
    samples, store = Samples(), session.fresh() / "store"
    package, copy = Package(OURS), COMMANDS[-1]
    package.save(session, tree, store)
    copied = session.fresh() / "copied"
    copy.save(session, tree, copied)
    session.warm_bytes = 2 * extent(tree).bytes

    def load(after: str, target: Path) -> Mapping[str, float]:
        found = session.operate(OURS, "load_compile_cache", store, target, after=after)
        package.check(tree, target, in_full=False)
        return found

    def turn(after: str) -> Callable[[Path, int], Mapping[str, float]]:
        return lambda folder, _number: load(after, folder / after.replace(",", "-"))

    turns = {title: turn(after) for title, after in PROGRAMS.items()}
    turns[copy.name] = lambda folder, _number: {"first": copy.load(session, copied, folder / "copy")["seconds"]}
    samples.take_turns(session, turns, session.rounds)
    limits = Limits(session.results, "first load of a program, with the import of the function")
    for title in PROGRAMS:
        if title in samples.failed:
            why, labels = samples.failed[title].strip().splitlines()[-1], {"section": "first load of a program"}
            session.results.cannot(f"first load of a program that {title}", "x", why=why, labels=labels)
            continue
        name = f"{title}, {samples.median(title, 'objects'):,.0f} objects"
        ratio = statistics.median(samples.ratios(title, copy.name, "first"))
        limits.add(f"{name}: load / cp -r", "x", ratio, at_most=FIRST_TO_COPY)


def huge(session: Session) -> None:
    """The memory for one huge file."""
    size = QUICK_HUGE_BYTES if session.quick else HUGE_BYTES
    tree, samples = corpus.install_huge(session.fresh() / "tree", size), Samples()
    samples.take_turns(session, {OURS.name: Package(OURS).turn(session, tree)}, 1)
    Limits(session.results, f"one file of {size / 1e6:.0f} MB").of_a_load(samples, OURS.name)


def increment(session: Session, kernels: Path) -> None:
    """A second save of one per cent of new kernels publishes only these."""
    keys = sorted(os.listdir(kernels))
    late = keys[50::100] or keys[:1]
    folder, package = session.fresh(), Package(OURS)
    root, store = folder / "root", folder / "store"
    corpus.install_triton(kernels, root, set(keys) - set(late))
    package.save(session, root, store)
    first = extent(store).bytes
    corpus.install_triton(kernels, root, late)
    package.save(session, root, store)
    added = extent(store).bytes - first
    alone = corpus.install_triton(kernels, folder / "alone", late)
    package.save(session, alone, folder / "store-alone")
    limits = Limits(session.results, "one per cent more Triton kernels")
    limit = {} if session.quick else {"at_most": NEW_PERCENT}  # one kernel of 30 is more than one per cent
    limits.add(f"stored bytes, {len(late)} of {len(keys)} kernels are new", "%", 100 * added / first, **limit)
    share = added / extent(folder / "store-alone").bytes
    limits.add("stored bytes, added / saved alone", "x", share, at_most=1.0)
    package.load(session, store, folder / "restored")
    limits.add("files that differ", "", len(differences(root, folder / "restored")), at_most=0)


def measure(session: Session) -> None:
    kernels = corpus.triton_corpus(session.corpus, 30 if session.quick else corpus.KERNELS)
    imports(session)
    triton = corpus.install_triton(kernels, session.fresh() / "tree")
    compare(session, "Triton kernels", triton, against_copy=True)
    first_loads(session, triton)
    transformer = session.fresh() / "tree"
    shutil.copytree(corpus.transformer_corpus(session.corpus), transformer)
    compare(session, "Inductor's cache of a transformer", transformer, against_copy=False)
    huge(session)
    increment(session, kernels)


if __name__ == "__main__":
    sys.exit(harness.run("core", "Limits of a load and a save", __doc__, measure, rounds=9, quick_rounds=3))
