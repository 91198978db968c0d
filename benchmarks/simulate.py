"""Fleets of 10 to 10,000 replicas in simulated time: what each asks of the store, and when the last one is warm.

Usage::

    python benchmarks/simulate.py [--results FILE] [--quick]

Runs the project's own load, wait, lease and save for every replica, over a simulated mount or bucket and a simulated
clock (benchmarks/simulation/; needs greenlet). Deterministic: equal seeds give equal results. ``--quick`` goes to 1,000
replicas. Takes some five minutes and up to 3 GB of memory.
"""

from __future__ import annotations

import argparse
import gc
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs as a script

from benchmarks.results import FOLDER, Results
from benchmarks.simulation.fleet import COMPILE_S, Fleet, Scenario
from benchmarks.simulation.service import Terms

REPLICAS = (10, 100, 1_000, 10_000)
PACK_BYTES = 48_000_000
_LONGEST = ("mount", 10_000, True)
_WHY_NOT_LONGEST = "three million requests take most of an hour to simulate: python benchmarks/simulate.py --longest"
TERMS = {
    "mount": Terms(
        bytes_per_s=2.5e9,
        connection_bytes_per_s=1e9,
        requests_per_s=50_000,
        latency_s=0.001,
        failures=1e-4,
        failure_s=1.0,
    ),
    "bucket": Terms(
        bytes_per_s=12.5e9,
        connection_bytes_per_s=90e6,
        requests_per_s=5_500,
        latency_s=0.03,
        failures=1e-3,
        failure_s=0.1,
    ),
}
"""A file server at 20 Gbit/s. A bucket at 100 Gbit/s, with the 5,500 reads a second that S3 promises for a prefix."""


def simulate(kind: str, replicas: int, *, waits: bool, results: Results) -> None:
    """One fleet, and the rows that tell of it."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        scenario = Scenario(replicas, kind, TERMS[kind], waits, PACK_BYTES)
        outcome = Fleet(scenario, Path(folder)).run()
    case = "one compiles" if waits else "a pack is there"
    labels: dict[str, str | int | float] = {"kind": kind, "case": case, "replicas": replicas}
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
        f"{name:<44}{outcome.usage.requests / replicas:8.1f} requests {outcome.usage.bytes / replicas / 1e6:6.1f} MB"
        f"{outcome.last_warm_s:8.2f} s, {outcome.last_warm_s / outcome.bound_s:5.2f} x the bound of"
        f" {outcome.bound_s:.2f} s; {outcome.compiled} compiled, {outcome.failed} failed;"
        f" simulated in {time.perf_counter() - started:.0f} s",
        flush=True,
    )


def notes() -> str:
    """What was assumed, for the page."""
    lines = [
        f"Simulated: nothing here depends on this machine. One pack of {PACK_BYTES / 1e6:.0f} MB; all replicas start"
        f" within a second; a compilation takes {COMPILE_S:.0f} s. The bound is what bandwidth alone allows:"
        " replicas × bytes of the pack / bytes a second. Time is counted from when there is something to load.",
        "",
    ]
    for kind, terms in TERMS.items():
        lines.append(
            f"- {kind}: {terms.bytes_per_s / 1e9:g} GB/s for all, {terms.connection_bytes_per_s / 1e6:,.0f} MB/s for a"
            f" connection, {terms.requests_per_s:,.0f} requests/s, {terms.latency_s * 1e3:g} ms (half to one and a half"
            f" times that), one request of {1 / terms.failures:,.0f} is lost for {terms.failure_s:g} s"
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=FOLDER / "simulate.json", help="write them here (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="up to 1,000 replicas")
    parser.add_argument("--peer", help=argparse.SUPPRESS)  # what the suite tells every benchmark
    parser.add_argument(
        "--longest", action="store_true", help="also what takes most of an hour: 10,000 at a mount wait"
    )
    options = parser.parse_args()
    found = {"greenlet": version("greenlet")}
    gc.disable()  # thousands of replicas are alive at once: to look for cycles among them takes a third of the time
    results = Results.begin("simulate", "Fleets in simulated time", versions=found, file_system="none", notes=notes())
    for replicas in REPLICAS[:-1] if options.quick else REPLICAS:
        for kind in TERMS:
            for waits in (False, True):
                if (kind, replicas, waits) == _LONGEST and not options.longest:
                    results.cannot(f"mount, one compiles, {replicas} replicas", "", why=_WHY_NOT_LONGEST)
                    continue
                simulate(kind, replicas, waits=waits, results=results)
    results.write(options.results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
