"""Simulate fleets of 10 to 10,000 replicas: their requests to the store, and the time until the last one is warm.

    python -m tests.simulation [--results FILE] [--quick] [--longest]

Every replica runs the project's own load, wait, lease and save, over a simulated mount or bucket and a simulated clock.
Equal seeds give equal results. ``--quick`` stops at 1,000 replicas. A full run takes five minutes and, for 10,000
replicas, 20 GB of memory. ``make bench ONLY=simulate`` runs this program and updates the page.
"""

from __future__ import annotations

import argparse
import gc
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

from benchmarks.results import FOLDER, Label, Results
from tests.simulation.fleet import COMPILE_S, Fleet, Scenario
from tests.simulation.service import TERMS

REPLICAS = (10, 100, 1_000, 10_000)
PACK_BYTES = 48_000_000
_LONGEST = ("mount", 10_000, True)
_WHY_NOT_LONGEST = "it takes most of an hour: python -m tests.simulation --longest"


def simulate(kind: str, replicas: int, *, waits: bool, results: Results) -> None:
    """Simulate one fleet and add its rows."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        outcome = Fleet(Scenario(replicas, kind, TERMS[kind], waits, PACK_BYTES), Path(folder)).run()
    case = "one compiles" if waits else "a pack is there"
    labels: dict[str, Label] = {"kind": kind, "case": case, "replicas": replicas}
    name = f"{kind}, {case}, {replicas} replicas"
    for measure, unit, value in (
        ("requests of a replica", "", outcome.usage.requests / replicas),
        ("megabytes of a replica", "MB", outcome.usage.bytes / replicas / 1e6),
        ("refused requests of a replica", "", outcome.usage.refused / replicas),
        ("compilations", "", outcome.compiled),
        ("failed loads", "", outcome.failed),
        ("median warm", "s", outcome.median_warm_s),
        ("last warm", "s", outcome.last_warm_s),
        ("bound", "s", outcome.bound_s),
        ("last warm / bound", "x", outcome.last_warm_s / outcome.bound_s),
    ):
        results.add(f"{name}: {measure}", unit, [value], labels={**labels, "measure": measure})
    print(
        f"{name}: {outcome.usage.requests / replicas:.1f} requests, {outcome.last_warm_s:.2f} s until the last is warm,"
        f" {outcome.failed} failed, simulated in {time.perf_counter() - started:.0f} s",
        flush=True,
    )


def assumptions() -> str:
    """The parameters of the simulation, in Markdown."""
    lines = [
        f"One pack of {PACK_BYTES / 1e6:.0f} MB. All replicas start within one second, on a day"
        f" without a record of use: each tries to create it. A compilation takes"
        f" {COMPILE_S:.0f} s. Time counts from the moment that a pack is there.",
        "",
    ]
    for kind, terms in TERMS.items():
        lines.append(
            f"- {kind}: {terms.bytes_per_s / 1e9:g} GB/s in total, {terms.connection_bytes_per_s / 1e6:,.0f} MB/s per"
            f" connection, {terms.requests_per_s:,.0f} requests/s, {terms.latency_s * 1e3:g} ms latency;"
            f" one request in {1 / terms.failures:,.0f} is lost for {terms.failure_s:g} s"
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=FOLDER / "simulate.json", help="write them here (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="stop at 1,000 replicas")
    parser.add_argument("--longest", action="store_true", help="add 10,000 replicas that wait on a mount: an hour")
    parser.add_argument("--peer", help=argparse.SUPPRESS)  # benchmarks/suite.py passes it to every program
    options = parser.parse_args()
    gc.disable()  # the collector would spend a third of the time on thousands of live replicas
    results = Results.begin(
        "simulate",
        "Fleets in simulated time",
        versions={"greenlet": version("greenlet")},
        file_system="none",
        command="python -m tests.simulation",
        notes=assumptions(),
    )
    for replicas in REPLICAS[:-1] if options.quick else REPLICAS:
        for kind in TERMS:
            for waits in (False, True):
                if (kind, replicas, waits) == _LONGEST and not options.longest:
                    results.cannot(f"mount, one compiles, {replicas} replicas", "", why=_WHY_NOT_LONGEST)
                else:
                    simulate(kind, replicas, waits=waits, results=results)
    results.write(options.results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
