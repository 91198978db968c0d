"""What every benchmark of this suite does first and last: options, a workspace on tmpfs, a results file."""

from __future__ import annotations

import argparse
import compileall
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import b10_transfer
from benchmarks import corpus
from benchmarks.measure import Bench, Program, ours, published
from benchmarks.results import FOLDER, Results
from benchmarks.table import versions
from benchmarks.workspace import file_system, run_again_on_tmpfs, workspace


@dataclass(frozen=True)
class Session:
    """One run of one benchmark."""

    bench: Bench
    corpus: Path
    """Where the trees to measure are kept."""
    peer: str | None
    """An interpreter that has the published package."""
    quick: bool
    results: Results

    @property
    def folder(self) -> Path:
        return self.bench.folder


def run(name: str, title: str, description: str | None, measure: Callable[[Session], str | None]) -> int:
    """Parse the options, measure on a fresh tmpfs if there can be one, write the results; the exit status.

    ``measure`` adds rows to the session's results and returns notes for the page, in Markdown.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=FOLDER / f"{name}.json", help="write them here (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="smaller sizes and fewer runs")
    parser.add_argument("--peer", help="Python interpreter that has the published b10-transfer installed")
    parser.add_argument("--corpus", type=Path, default=corpus.DEFAULT_CACHE, help="where trees are kept (%(default)s)")
    options = parser.parse_args()
    options.results = options.results.absolute()
    if (status := run_again_on_tmpfs()) is not None:
        return status
    # As pip does with what it installs: an environment may forbid programs to keep what they have compiled.
    compileall.compile_dir(Path(b10_transfer.__file__).parent, quiet=1)
    with workspace() as folder:
        kind = file_system(folder)
        peer = published(options.peer) if options.peer else None
        results = Results.begin(name, title, versions=_versions(ours(), peer), file_system=kind)
        bench = Bench(folder, on_tmpfs=kind == "tmpfs")
        session = Session(bench, options.corpus, options.peer, options.quick, results)
        results.notes = measure(session) or ""
        results.write(options.results)
    print(f"{len(results.rows)} rows in {options.results}", file=sys.stderr)
    return 0


def _versions(own: Program, peer: Program | None) -> dict[str, str]:
    found = versions(own)
    return found | ({"published b10-transfer": versions(peer).get("b10-transfer", "")} if peer else {})
