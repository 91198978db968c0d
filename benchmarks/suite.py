"""Run every benchmark that this machine can run, and write what they found: JSON, a page and plots.

    make bench                   all of them, into benchmarks/results/ and docs/; some twenty minutes, and longer
                                 where vLLM's environment is there
    make bench ONLY=load,fleet   these, and the page from their results and those of earlier runs
    make bench-quick             smaller sizes, fewer runs, in at most five minutes, into a folder of its own

One benchmark after another, each a program of its own that replaces its results file when it has ended: what was
interrupted goes on with ONLY. One that fails or cannot run here leaves a file that says why. Exit status 1 if any has
failed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs as a script

from benchmarks import page
from benchmarks.results import Results, ResultsError, read

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent


@dataclass(frozen=True)
class Benchmark:
    """A program of this folder."""

    name: str
    title: str
    in_quick: bool = True
    needs: str = ""
    """``gpu``, ``vllm`` (an interpreter that has it), ``ceph`` or nothing."""

    @property
    def program(self) -> Path:
        return ROOT / "tests/simulation" if self.name == "simulate" else HERE / f"{self.name}.py"

    @property
    def command(self) -> list[str]:
        return ["-m", "tests.simulation"] if self.name == "simulate" else [str(self.program)]


BENCHMARKS = (
    Benchmark("load", "Save and load of one tree"),
    Benchmark("breakdown", "Where the time of a load goes"),
    Benchmark("fleet", "Many replicas at once"),
    Benchmark("simulate", "Fleets in simulated time"),
    Benchmark("object_store", "Loads from a bucket", in_quick=False, needs="ceph"),
    Benchmark("first_call", "The first call of a compiled model"),
    Benchmark("instant", "Instant starts", in_quick=False),
    Benchmark("core", "What the core promises of its load and its save", in_quick=False),
    Benchmark("cli_ready", "How soon the command is ready", in_quick=False),
    Benchmark("launcher", "The command in front of a server", in_quick=False),
    Benchmark("vllm", "A restart of vLLM", in_quick=False, needs="vllm"),
    Benchmark("gpu_cold_start", "A diffusion transformer on a GPU", in_quick=False, needs="gpu"),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [benchmark.name for benchmark in BENCHMARKS if benchmark.program.exists()]
    parser.add_argument("--only", default="", metavar="NAMES", help=f"of {', '.join(names)}; separated by commas")
    parser.add_argument("--quick", action="store_true", help="smaller sizes and fewer runs")
    parser.add_argument(
        "--out", type=Path, help="a folder for results, page and plots (default: with --quick a new one)"
    )
    parser.add_argument("--peer", help="Python interpreter that has the published b10-transfer installed")
    parser.add_argument("--vllm", help="Python interpreter that has vLLM installed")
    options = parser.parse_args()
    only = [name for name in options.only.split(",") if name]
    if unknown := set(only) - set(names):
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    out: Path | None = options.out.absolute() if options.out else None
    if options.quick and out is None:
        out = Path(tempfile.mkdtemp(prefix="b10-transfer-bench-"))
    places = page.Places.within(out) if out else page.Places.of_the_project()
    failed = []
    for benchmark in BENCHMARKS:
        is_wanted = benchmark.name in only if only else benchmark.in_quick or not options.quick
        if is_wanted and benchmark.program.exists() and not run(benchmark, options, places.results):
            failed.append(benchmark.name)
    page.write(places)
    print(f"\nthe page is {places.page}" + (f"; failed: {', '.join(failed)}" if failed else ""))
    return 1 if failed else 0


def run(benchmark: Benchmark, options: argparse.Namespace, results: Path) -> bool:
    """Run one and see to it that its results are there; whether it did not fail."""
    target = results / f"{benchmark.name}.json"
    if why := why_not(benchmark, options.vllm):
        print(f"{benchmark.name}: not run: {why}", flush=True)
        if not target.exists():  # what another machine measured stays
            leave_reason(benchmark, target, why)
        return True
    python = options.vllm if benchmark.needs == "vllm" else sys.executable
    command = [python, *benchmark.command, "--results", str(target)]
    command += ["--quick"] if options.quick else []
    command += ["--peer", options.peer] if options.peer else []
    print(f"\n{benchmark.name}: {benchmark.title}", flush=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    before = target.stat().st_mtime_ns if target.exists() else 0
    started = time.perf_counter()
    status = subprocess.run(command, cwd=ROOT).returncode
    print(f"{benchmark.name}: exit status {status} after {time.perf_counter() - started:.0f} s", flush=True)
    if not is_new(target, before):
        leave_reason(benchmark, target, f"the benchmark ended with exit status {status} and without results")
        return False
    return status == 0


def why_not(benchmark: Benchmark, vllm: str | None) -> str:
    """Why a benchmark cannot run on this machine, or not as one of the suite; empty if it can."""
    if benchmark.needs == "vllm" and not (vllm and Path(vllm).exists()):
        return "vLLM is not installed: `make test-vllm` does that"
    if benchmark.needs == "ceph" and not (shutil.which("radosgw") and os.geteuid() == 0):
        return "it needs Debian's Ceph, and root: see tests/s3/ceph.py"
    if benchmark.needs == "gpu" and not (shutil.which("nvidia-smi") or os.path.exists("/dev/kfd")):
        return "this machine has no GPU"
    return ""


def is_new(target: Path, before_ns: int) -> bool:
    """Whether results have been written since then, and can be read."""
    try:
        read(target)
        return target.stat().st_mtime_ns > before_ns
    except (OSError, ResultsError):
        return False


def leave_reason(benchmark: Benchmark, target: Path, why: str) -> None:
    """Results that say only why there are none."""
    command = f"make bench ONLY={benchmark.name}"
    results = Results.begin(benchmark.name, benchmark.title, versions={}, file_system="", command=command)
    results.cannot(benchmark.title, "", why=why)
    results.write(target)


if __name__ == "__main__":
    sys.exit(main())
