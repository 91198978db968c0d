"""Run every benchmark that this machine can run, then write the page.

    make bench                   all, into benchmarks/results/ and docs/, in twenty minutes, longer with vLLM
    make bench ONLY=load,fleet   only these
    make bench-quick             smaller sizes and fewer rounds, in at most five minutes, into a folder of its own

Each benchmark is a program that writes its own results file. If it fails or cannot run, the earlier file stays. Exit
status 1 if one has failed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs as a script

from benchmarks import page

QUICK = ("load", "fleet", "simulate", "first_call")
OTHERS = ("extension", "rest", "object_store", "instant", "core", "launcher", "vllm", "frameworks", "gpu_cold_start")
ALL = (*QUICK, *OTHERS)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="NAMES", help=f"of {', '.join(ALL)}; separated by commas")
    parser.add_argument("--quick", action="store_true", help="smaller sizes and fewer rounds")
    parser.add_argument("--out", type=Path, help="folder of results, page and plots (with --quick: a new one)")
    parser.add_argument("--peer", help="Python interpreter with the published b10-transfer")
    parser.add_argument("--vllm", help="Python interpreter with vLLM")
    parser.add_argument("--frameworks", help="Python interpreter with diffusers, transformers and torchao")
    options = parser.parse_args()
    only = [name for name in options.only.split(",") if name] or (QUICK if options.quick else ALL)
    if unknown := set(only) - set(ALL):
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}; there are {', '.join(ALL)}")
    out: Path | None = options.out.absolute() if options.out else None
    if options.quick and out is None:
        out = Path(tempfile.mkdtemp(prefix="b10-transfer-bench-"))
    places = page.Places.within(out) if out else page.Places.of_the_project()
    places.results.mkdir(parents=True, exist_ok=True)
    failed = [name for name in ALL if name in only and not run(name, options, places.results / f"{name}.json")]
    page.write(places)
    print(f"\nthe page is {places.page}" + (f"; failed: {', '.join(failed)}" if failed else ""))
    return 1 if failed else 0


def run(name: str, options: argparse.Namespace, target: Path) -> bool:
    """Run one benchmark. Returns False if it failed."""
    python = {"vllm": options.vllm, "frameworks": options.frameworks}.get(name, sys.executable)
    if why := why_not(name, python):
        print(f"{name}: not run: {why}", flush=True)
        return True
    program = ["-m", "tests.simulation"] if name == "simulate" else [str(Path(__file__).with_name(f"{name}.py"))]
    command = [python, *program, "--results", str(target)]
    command += ["--quick"] if options.quick else []
    command += ["--peer", options.peer] if options.peer and name != "gpu_cold_start" else []
    started = time.perf_counter()
    print(f"\n{name}", flush=True)
    status = subprocess.run(command, cwd=page.ROOT).returncode
    print(f"{name}: exit status {status} after {time.perf_counter() - started:.0f} s", flush=True)
    return status == 0


def why_not(name: str, python: str | None) -> str:
    """The reason why a benchmark cannot run on this machine; empty if it can."""
    if name in ("vllm", "frameworks") and not (python and Path(python).exists()):
        return f"its environment is not installed; `make bench-{name}` installs it"
    if name == "object_store" and not (shutil.which("radosgw") and os.geteuid() == 0):
        return "it needs Debian's Ceph and root, see tests/s3/ceph.py"
    if name == "gpu_cold_start" and not (shutil.which("nvidia-smi") or os.path.exists("/dev/kfd")):
        return "this machine has no GPU"
    return ""


if __name__ == "__main__":
    sys.exit(main())
