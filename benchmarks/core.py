"""Measures what the product promises of its load and its save, and fails if a promise is not kept.

Everything is a ratio of two things measured in this one run, taken in turns, on one file system, each in a fresh
process and a fresh folder: the median of each round's ratio, because a shared machine runs now faster and now slower.
Absolute times of another run or machine say nothing.

Takes some minutes, 60 MB of disk for the caches to measure (kept for the next run) and up to 5 GB of memory: as root
it works on a tmpfs of its own. Exit status 1 if a bound is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs as a script

from benchmarks import corpus
from benchmarks.measure import Bench, OperationFailed, Program, differences, extent, ours, published
from benchmarks.results import Results
from benchmarks.table import Row, about_this_machine, at_least, at_most, to_text, versions
from benchmarks.workspace import file_system, run_again_on_tmpfs, suits_peer, workspace

LOAD_TO_COPY = 1.5
"""Seconds of a load in seconds of ``cp -r``."""
SPEEDUP = 15.0
"""Seconds of the published package in ours, for a load and for a save."""
STORED = 0.55
"""Bytes in our store in those of the published package's archive."""
IMPORT = "from b10_transfer import load_compile_cache, save_compile_cache"
IMPORT_MS = 60.0
"""What that costs beyond the interpreter itself."""
TENFOLD = 11.0
"""Seconds for ten times the files in those for the files once."""
PEAK_MB = 250.0
NEW_PERCENT = 4.0
"""Bytes a save adds, in per cent of those stored, where one per cent of the kernels are new. A kernel takes up to three
times the room in a small pack that it takes among hundreds of its like."""
HUGE_BYTES = 600_000_000
PUBLISHED = "0.4.1"
_NOTES = "A ratio is the median of one run's rounds; the detail has the medians of both sides, smallest and largest."


class Suite:
    """All the measurements of one run."""

    def __init__(self, bench: Bench, peer: Program | None, repetitions: int) -> None:
        self._bench = bench
        self._ours = ours()
        self._peer = peer
        self._repetitions = repetitions

    def imports(self) -> Iterator[Row]:
        """What importing the two public functions adds to an interpreter that does nothing."""
        programs = {"bare": "pass", "import": IMPORT}
        for _ in range(4 * self._repetitions):
            for name, program in programs.items():
                self._bench.command(name, self._ours.python, "-c", program)
        bare, imported = (self._bench.series[name] for name in programs)
        row = at_most("import of load and save", (imported.seconds - bare.seconds) * 1000, "ms", IMPORT_MS)
        yield row.with_detail(f"{imported}; bare {bare}")

    def tree(self, name: str, tree: Path, *, against_copy: bool) -> Iterator[Row]:
        """Load and save of one tree against ``cp -r`` and against the published package."""
        programs = [program for program in (self._ours, self._peer) if program]
        for folder in self._rounds(self._repetitions, tree):
            for program in programs:
                store = folder / f"store-{program.name}"
                self._operate(f"{name} save", program, "save_compile_cache", store, tree)
            self._bench.command(f"{name} cp -r", "cp", "-r", str(tree), str(folder / "copied"))
            for program in programs:
                store, target = folder / f"store-{program.name}", folder / f"restored-{program.name}"
                self._operate(f"{name} load", program, "load_compile_cache", store, target)
        yield self._equal(tree, folder / "restored-ours")
        yield self._against_copy(name, bound=LOAD_TO_COPY if against_copy else None)
        yield from self._against_peer(name, folder)
        yield from self._load_in_itself(f"{name} load ours")

    def growth(self, kernels: Path) -> Iterator[Row]:
        """How cost grows with the number of files."""
        trees = {
            "once": corpus.install_triton(kernels, self._bench.fresh()),
            "tenfold": corpus.install_triton(kernels, self._bench.fresh(), copies=10),
        }
        for folder in self._rounds(max(3, self._repetitions // 2), trees["tenfold"]):
            for name, tree in trees.items():
                store, restored = folder / f"store-{name}", folder / f"restored-{name}"
                self._operate(f"{name} save", self._ours, "save_compile_cache", store, tree)
                self._operate(f"{name} load", self._ours, "load_compile_cache", store, restored)
        yield self._equal(trees["tenfold"], folder / "restored-tenfold")
        for operation in ("load", "save"):
            once, tenfold = (self._bench.series[f"{name} {operation} ours"] for name in trees)
            row = at_most(f"{operation}, tenfold / once", tenfold.over(once), "x", TENFOLD)
            yield row.with_detail(f"{tenfold} / {once}")
        yield from self._load_in_itself("tenfold load ours")

    def huge(self) -> Iterator[Row]:
        """Memory does not grow with the size of a file."""
        tree, folder = corpus.install_huge(self._bench.fresh(), HUGE_BYTES), self._bench.fresh()
        self._operate("huge save", self._ours, "save_compile_cache", folder / "store", tree)
        self._operate("huge load", self._ours, "load_compile_cache", folder / "store", folder / "restored")
        yield self._equal(tree, folder / "restored")
        yield from self._load_in_itself("huge load ours")

    def increment(self, kernels: Path) -> Iterator[Row]:
        """A second save, when one per cent of the kernels are new, publishes those and no more."""
        keys = sorted(os.listdir(kernels))
        late = keys[50::100]
        folder = self._bench.fresh()
        root, store = folder / "root", folder / "store"
        corpus.install_triton(kernels, root, [key for key in keys if key not in late])
        self._operate("first save", self._ours, "save_compile_cache", store, root)
        first_bytes = extent(store).bytes
        corpus.install_triton(kernels, root, late)
        self._operate("second save", self._ours, "save_compile_cache", store, root)
        added_bytes = extent(store).bytes - first_bytes
        alone = corpus.install_triton(kernels, folder / "alone", late)
        self._operate("new ones alone", self._ours, "save_compile_cache", folder / "store-alone", alone)
        alone_bytes = extent(folder / "store-alone").bytes
        title = f"{len(late)} of {len(keys)} kernels are new"
        row = at_most(f"stored bytes, {title}", 100 * added_bytes / first_bytes, "%", NEW_PERCENT)
        yield row.with_detail(f"{added_bytes:,} / {first_bytes:,} bytes; {self._bench.series['second save ours']}")
        row = at_most("stored bytes, added / saved alone", added_bytes / alone_bytes, "x", 1.0)
        yield row.with_detail(f"{added_bytes:,} / {alone_bytes:,} bytes")
        self._operate("both packs load", self._ours, "load_compile_cache", store, folder / "restored")
        yield self._equal(root, folder / "restored")

    def _rounds(self, count: int, tree: Path) -> Iterator[Path]:
        """A fresh folder for each repetition with a tree; only the last one is sure to be kept."""
        self._bench.touched_bytes = 2 * extent(tree).bytes
        for number in range(count):
            folder = self._bench.fresh()
            yield folder
            if number < count - 1:
                self._bench.discard(folder)

    def _operate(self, name: str, program: Program, operation: str, store: Path, root: Path) -> None:
        self._bench.operate(f"{name} {program.name}", program, operation, store, root)

    def _equal(self, tree: Path, restored: Path) -> Row:
        wrong = differences(tree, restored)
        return at_most("files that are not as they were", len(wrong), "", 0).with_detail("; ".join(wrong[:3]))

    def _against_copy(self, name: str, bound: float | None) -> Row:
        load, copy = self._bench.series[f"{name} load ours"], self._bench.series[f"{name} cp -r"]
        return at_most("load / cp -r", load.over(copy), "x", bound).with_detail(f"{load} / {copy}")

    def _against_peer(self, name: str, folder: Path) -> Iterator[Row]:
        if not self._peer:
            yield from (Row(f"published {what} / ours") for what in ("load", "save", "bytes stored"))
            return
        for operation in ("load", "save"):
            mine, theirs = (self._bench.series[f"{name} {operation} {whose}"] for whose in ("ours", "published"))
            row = at_least(f"published {operation} / ours", theirs.over(mine), "x", SPEEDUP)
            yield row.with_detail(f"{theirs} / {mine}")
        mine_bytes, their_bytes = (extent(folder / f"store-{whose}").bytes for whose in ("ours", "published"))
        row = at_most("our bytes stored / published", mine_bytes / their_bytes, "x", STORED)
        yield row.with_detail(f"{mine_bytes:,} / {their_bytes:,} bytes")

    def _load_in_itself(self, name: str) -> Iterator[Row]:
        series = self._bench.series[name]
        yield at_most("peak memory of a load", series.peak_bytes / 1e6, "MB", PEAK_MB)
        costly = {module for run in series.runs for module in run.costly_modules}
        yield at_most("costly modules it imports", len(costly), "", 0).with_detail(", ".join(sorted(costly)))


def measure(options: argparse.Namespace, folder: Path) -> int:
    """Make the trees, measure, print; the exit status."""
    peer = published(options.peer) if options.peer and suits_peer(folder) else None
    kind = file_system(folder)
    bench = Bench(folder, on_tmpfs=kind == "tmpfs")
    suite = Suite(bench, peer, options.repetitions)
    kernels = corpus.triton_corpus(options.corpus, options.kernels)
    triton = corpus.install_triton(kernels, bench.fresh())
    transformer = corpus.install_transformer(corpus.transformer_corpus(options.corpus), bench.fresh())
    about = about_this_machine(ours(), peer, kind)
    sections = {
        "import": suite.imports(),
        f"Triton kernels: {extent(triton)}": suite.tree("triton", triton, against_copy=True),
        f"Inductor's cache of a transformer: {extent(transformer)}": suite.tree(
            "transformer", transformer, against_copy=False
        ),
        "ten times the Triton kernels": suite.growth(kernels),
        f"one file of {HUGE_BYTES / 1e6:.0f} MB": suite.huge(),
        "one per cent more Triton kernels": suite.increment(kernels),
    }
    print("\n".join(f"{name}: {value}" for name, value in about.items()), flush=True)
    rows = {}
    for title, measurements in sections.items():
        rows[title] = list(measurements)
        print(to_text(title, rows[title]), flush=True)
    missed = [row for found in rows.values() for row in found if not row.ok]
    print(f"\n{len(missed)} bounds missed" if missed else "\nall bounds kept")
    if options.results:
        own = ours()
        versions_of_all = versions(own) | ({"published b10-transfer": PUBLISHED} if peer else {})
        title = "What the core promises of its load and its save"
        results = Results.begin("core", title, versions=versions_of_all, file_system=kind, notes=_NOTES)
        for title, found in rows.items():
            for row in found:
                _add(results, title, row)
        results.write(options.results)
    if options.json:
        document = {
            "about": about,
            "rows": [{"section": title, **row.to_json()} for title, found in rows.items() for row in found],
            "series": [series.to_json() for series in bench.series.values()],
        }
        options.json.write_text(json.dumps(document, indent=2) + "\n")
    return 1 if missed else 0


def _add(results: Results, section: str, row: Row) -> None:
    """A row of the table as a row of the results, with its bound in words."""
    name, labels = f"{section}: {row.what}", {"section": section}
    if row.measured is None:
        results.cannot(name, row.unit, why="no published package to compare with (--peer)", labels=labels)
        return
    bound = f"at {'least' if row.is_minimum else 'most'} {row.bound:g} {row.unit}: {row.verdict}" if row.verdict else ""
    detail = "; ".join(part for part in (bound, row.detail) if part)
    results.add(name, row.unit, [row.measured], labels=labels, detail=detail)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    corpus.add_options(parser)
    parser.add_argument("--peer", help="Python interpreter that has the published b10-transfer installed")
    parser.add_argument("--repetitions", type=int, default=9, help="of each measurement (%(default)s)")
    parser.add_argument("--quick", action="store_const", const=3, dest="repetitions", help="three repetitions")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results to a file")
    parser.add_argument(
        "--results", type=Path, metavar="FILE", help="also write them as benchmarks/results.py describes"
    )
    options = parser.parse_args()
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
