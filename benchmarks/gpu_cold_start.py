"""FLUX.1 [schnell] starts cold, and starts with its compiled artifacts restored: what each start takes on a GPU.

    python benchmarks/gpu_cold_start.py --results benchmarks/results/gpu_cold_start.json

One command, on one GPU with 40 GB free; it ends within ``--budget-seconds`` (470). Every start is a new process with
empty caches of its own, which makes the model with random weights on the device, compiles transformer and VAE decoder
with mode="max-autotune-no-cudagraphs", and answers:

================  ====================================================================================================
cold              compiles everything; b10_transfer saves it, and a mega-cache is written
restored          by b10_transfer
mega-cache        ``torch.compiler.load_cache_artifacts``
instant start     ``load(instant=True)``, where the installed b10_transfer has it
published 0.4.1   restored by the published b10-transfer (``--peer``)
================  ====================================================================================================

Told of each: seconds of both first calls (without the import of torch and the making of weights), hits and misses of
the FX-graph and AOTAutograd caches, Triton kernels compiled anew and kernels tuned anew (from the files written),
files and MB restored, whether the outputs are the cold ones (bitwise, or within 2 % of the largest in bfloat16, 0.01 %
in float32), and whether a step takes as long as it does cold (within 5 % or the steps' own spread). What there is no
time for is left out, least important first, and its row says so. The store is a folder on the same disk: what a network
adds is not measured here. Exit status 1 if the restored start compiled a graph or answered differently, 2 if something
is missing here.

If the whole depth compiles for longer than that, ``--size shallow`` is as wide and a ninth as deep; its figures are
not FLUX.1's. Without a GPU a tiny configuration is run on the CPU: that tests this program and tells nothing of GPUs.
**The figures for a GPU are open until somebody has run this on one.**

What it needs: torch 2.11 or later with its Triton, a C compiler, and b10_transfer with what that needs. From a plain
checkout on a machine without internet, bring the small ones along, made where there is internet::

    pip install --target vendor --no-deps --python-version 3.12 --only-binary=:all: zstandard nvidia-ml-py
    pip install --target vendor-peer --no-deps b10-transfer==0.4.1          # for --peer, if wanted
    PYTHONPATH=src:vendor python benchmarks/gpu_cold_start.py --peer vendor-peer --results FILE

``--peer`` takes a folder like that, or a Python that has the package. That package keeps its store below /cache/model
only: as root a tmpfs is mounted there for this program alone; where that cannot be done, its row says so.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs as a script

from benchmarks import gpu_table
from benchmarks.gpu_starts import Budget, Peer, Request, StartError, Starts
from benchmarks.results import Results
from benchmarks.workspace import file_system, run_again_on_tmpfs, suits_peer, workspace

NEEDED_GPU_BYTES = 40e9
"""24 GB of weights, and room to try kernels out."""
COLD_SHARE, COLD_PART_SHARE = 0.72, 0.45
"""Of the budget: when the cold start is ended, and until when it may begin to compile another part."""
OURS, MEGA, INSTANT, PEER = "restored", "mega-cache", "instant start", "published 0.4.1"
ORDER = ("cold", OURS, MEGA, INSTANT, PEER)
"""The most important first."""
EXPECTED = {OURS: 1.2, MEGA: 2.0, INSTANT: 3.0, PEER: 1.5}
"""How long a start takes, as far as can be told before: in times of the first restored one."""
PARTS = ("transformer", "decoder")


def missing() -> list[str]:
    """What has to be brought along before anything can be measured, each as one would install it."""
    modules = {"torch": "torch>=2.11", "zstandard": "zstandard", "pynvml": "nvidia-ml-py"}
    lacking = [package for module, package in modules.items() if not _is_there(module)]
    if not _is_there("b10_transfer"):
        lacking.append("b10-transfer itself (install it, or set PYTHONPATH=src)")
    return lacking


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of the package that it is in
        return False


class Benchmark:
    """One run of everything that there is time for."""

    def __init__(self, options: argparse.Namespace, starts: Starts, facts: Mapping[str, Any]) -> None:
        self._options, self._starts, self._facts = options, starts, facts
        on_gpu = options.device == "cuda"
        kind = options.model if options.model != "auto" else ("diffusers" if facts["diffusers"] else "own")
        self._request = Request(
            device=options.device,
            size=options.size,
            kind=kind,
            dtype="bfloat16" if on_gpu else "float32",
            parts=PARTS,
            steps=options.steps,
        )
        self.runs: dict[str, list[dict[str, Any]]] = {}
        self.why_not: dict[str, str] = {}

    def run(self) -> None:
        """Make every start, in order of importance, then the restored ones again as often as wanted."""
        self._attempt("cold", self._cold)
        if "cold" not in self.runs:
            self.why_not |= dict.fromkeys(ORDER[1:], "there was no cold start to restore from")
            return
        self._attempt(OURS, lambda: self._restored(OURS, "ours"))
        self._attempt(MEGA, self._from_mega_cache, needs=OURS)
        self._attempt(INSTANT, self._instant, needs=OURS)
        self._attempt(PEER, self._from_peer, needs=OURS)
        for repetition in range(1, self._options.repetitions):
            for name, how in ((OURS, "ours"), (MEGA, "mega-cache")):
                if name in self.runs and not self._why_no_time(name):
                    self._attempt(name, lambda n=name, h=how, r=repetition: self._restored(f"{n} {r + 1}", h))  # type: ignore[misc]

    @property
    def used(self) -> str:
        """Which classes the model was made of, for the notes."""
        return "diffusers' classes" if self._request.kind == "diffusers" else "the same architecture in plain torch"

    def _attempt(self, name: str, start: Callable[[], dict[str, Any]], *, needs: str = "") -> None:
        why = self._why_no_time(name) if needs else ""
        if name not in self._options.starts:
            why = "not asked for (--starts)"
        elif needs and needs not in self.runs:
            why = f"the {needs} start failed, so it is not known how long this would take"
        began = time.monotonic()
        if not why:
            try:
                outcome = start()
                self.runs.setdefault(name, []).append(outcome)
                if outcome["trouble"]:
                    print(f"{name}: {outcome['trouble']}", flush=True)
            except StartError as error:
                why = str(error)
            except Exception as error:  # noqa: BLE001 - what nobody foresaw in one start must not cost the others
                traceback.print_exc()
                why = f"this program failed: {error!r}"
        if why and name not in self.runs:
            self.why_not[name] = why.splitlines()[0]
        print(f"{name}: {why or 'done'} ({time.monotonic() - began:.1f} s)", flush=True)

    def _why_no_time(self, name: str) -> str:
        """Why a start is dropped; empty if there is time for it."""
        known = self.runs.get(name) or self.runs.get(OURS)
        if not known:
            return ""
        expected_s = known[-1]["whole_s"] * (1.2 if name in self.runs else EXPECTED[name])
        left_s = self._starts.budget.left_s
        if left_s >= expected_s:
            return ""
        return f"left out: some {expected_s:.0f} s are needed, {max(0, left_s):.0f} s of the budget were left"

    def _cold(self) -> dict[str, Any]:
        budget = self._starts.budget
        limit_s = budget.left_s - (1 - COLD_SHARE) * budget.seconds
        begin_until = budget.at(COLD_PART_SHARE)
        outcome = self._starts.run("cold", self._but(saves=True, begin_until=begin_until), limit_s=limit_s)
        if not outcome["saves"]:
            raise StartError(f"it saved nothing: {outcome['trouble']}")
        return outcome

    def _restored(self, name: str, how: str) -> dict[str, Any]:
        answered = tuple(self.runs["cold"][0]["parts"])
        request = self._but(restore=how, parts=answered, reference=str(self._starts.outputs("cold")))
        return self._starts.run(name, request)

    def _from_mega_cache(self) -> dict[str, Any]:
        if not self._starts.mega_cache.exists():
            reason = self.runs["cold"][0]["mega_cache"].get("reason", "the cold start ended before it was written")
            raise StartError(f"no mega-cache: {reason}")
        return self._restored(MEGA, "mega-cache")

    def _instant(self) -> dict[str, Any]:
        if not self._facts["instant"]:
            raise StartError("not there: this b10_transfer has no load_compile_cache(instant=...)")
        # What it restores has to be saved once, by a process that has loaded in the same way.
        answered = tuple(self.runs["cold"][0]["parts"])
        self._starts.run("instant, saving", self._but(restore="instant", parts=answered, saves=True, steps=1))
        return self._restored(INSTANT, "instant")

    def _from_peer(self) -> dict[str, Any]:
        if not self._options.peer:
            raise StartError("not given: --peer PATH")
        if not suits_peer(self._starts.folder):
            raise StartError("it takes a store below /cache/model only, and there is no such folder to write to here")
        peer = Peer(self._options.peer.absolute())
        self._starts.operate(peer, "save_compile_cache", "cold")
        told = self._starts.operate(peer, "load_compile_cache", PEER)
        files = [path.stat().st_size for path in self._starts.inductor(PEER).rglob("*") if path.is_file()]
        outcome = self._restored(PEER, "placed")
        loaded = {"status": told["status"], "reason": "", "seconds": told["seconds"]}
        return outcome | {"load": loaded | {"files": len(files), "bytes": sum(files)}}

    def _but(self, **changes: Any) -> Request:
        return replace(self._request, **changes)


def report(options: argparse.Namespace, benchmark: Benchmark, facts: Mapping[str, Any], folder: Path) -> int:
    """Print the table, write the results, and answer with the exit status."""
    settings = "; ".join(f"{name}: {value}" for name, value in facts["settings"].items())
    notes = f"Model: {options.size} configuration, {benchmark.used}. torch's settings: {settings}."
    if options.device == "cpu":
        notes = f"A test of the program on a CPU. **The figures for a GPU are open.** {notes}"
    results = Results.begin(
        "gpu_cold_start",
        "FLUX.1 starts cold, and with its artifacts restored",
        versions=facts["versions"],
        file_system=file_system(folder),
        command=command(options),
        notes=notes,
        gpu=facts["gpu"] or {"GPU": "none"},
    )
    gpu_table.fill(results, ORDER, PARTS, benchmark.runs, benchmark.why_not)
    shown = "\n".join(f"{name}: {value}" for name, value in {**results.machine, **results.versions}.items())
    print(f"\n{shown}\n{notes}\n\n{gpu_table.to_text(ORDER, PARTS, benchmark.runs, benchmark.why_not)}\n")
    if options.results:
        results.write(options.results)
    broken = gpu_table.broken_promises(PARTS, benchmark.runs)
    broken += [f"{name}: {benchmark.why_not[name]}" for name in options.starts[:2] if name in benchmark.why_not]
    print("\n".join(["NOT kept:", *broken]) if broken else "The restored start compiled nothing and answered the same.")
    return 1 if broken else 0


def command(options: argparse.Namespace) -> str:
    """What makes these results again; without the places of files, which differ from one machine to the next."""
    given = [f"--device={options.device}", f"--size={options.size}", f"--repetitions={options.repetitions}"]
    return shlex.join(
        ["python", "benchmarks/gpu_cold_start.py", *given, f"--budget-seconds={options.budget_seconds:g}"]
    )


def keep(starts: Starts, folder: Path) -> None:
    """Copy what each start was asked, what it told and its log: small files, to find out what went wrong."""
    for path in starts.folder.glob("*/*"):
        if path.name in ("request.json", "outcome.json", "stderr.txt"):
            kept = folder / path.parent.name
            kept.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, kept / path.name)


def measure(options: argparse.Namespace, budget: Budget, folder: Path) -> int:
    """Everything, in a folder that is nobody else's. Raises StartError if not even torch can be looked at."""
    with ExitStack() as last:
        starts = Starts(folder, budget)
        if options.logs:
            last.callback(keep, starts, options.logs)
        facts = starts.facts()
        if options.device == "auto":
            options.device = "cuda" if facts["gpu"] else "cpu"
        if options.device == "cuda" and not facts["gpu"]:
            raise StartError("torch sees no GPU here")
        on_gpu = options.device == "cuda"
        options.size = options.size or ("flux" if on_gpu else "tiny")
        options.repetitions = options.repetitions or (3 if on_gpu else 1)
        if options.size == "flux" and on_gpu and facts["gpu_free_bytes"] < NEEDED_GPU_BYTES:
            raise StartError(
                f"{facts['gpu_free_bytes'] / 1e9:.0f} GB are free on the GPU, {NEEDED_GPU_BYTES / 1e9:.0f} needed"
            )
        shown = ", ".join(facts["gpu"].values()) or "no GPU"
        print(
            f"{options.size} configuration on {options.device} ({shown}), torch {facts['versions']['torch']}",
            flush=True,
        )
        benchmark = Benchmark(options, starts, facts)
        benchmark.run()
        return report(options, benchmark, facts, folder)


def names(text: str) -> tuple[str, ...]:
    """Which starts to make; the cold one always. Raises ArgumentTypeError for one that there is not."""
    chosen = [name.strip() for name in text.split(",")]
    if unknown := [name for name in chosen if name not in ORDER]:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(ORDER)}")
    return ("cold", *chosen)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", "--out", type=Path, metavar="FILE", help="write the rows to this file")
    parser.add_argument("--device", choices=("auto", "cuda", "cpu"), default="auto", help="(the GPU if there is one)")
    parser.add_argument("--size", choices=("flux", "shallow", "tiny"), help="of the model (flux on a GPU, else tiny)")
    parser.add_argument("--model", choices=("auto", "diffusers", "own"), default="auto", help="whose classes")
    parser.add_argument("--peer", type=Path, metavar="PATH", help="a Python or a folder with b10-transfer 0.4.1")
    parser.add_argument("--starts", type=names, default=ORDER, metavar="NAME,…", help=f"of {', '.join(ORDER)} (all)")
    parser.add_argument("--repetitions", type=int, help="of restored starts, if time allows (3; 1 on a CPU)")
    parser.add_argument("--quick", action="store_const", const=1, dest="repetitions", help="one repetition")
    parser.add_argument("--steps", type=int, default=10, help="timed once compiled (%(default)s)")
    parser.add_argument("--budget-seconds", type=float, default=470, metavar="S", help="for everything (%(default)s)")
    parser.add_argument("--logs", type=Path, metavar="FOLDER", help="keep every start's log and outcome here")
    options = parser.parse_args()
    if lacking := missing():
        print(f"Missing here: {', '.join(lacking)}.\nHow to bring it along: --help says it.", file=sys.stderr)
        return 2
    # Only the peer needs it: a GPU's caches are some hundred MB, which a small machine's memory is too dear for.
    if options.peer and (status := run_again_on_tmpfs()) is not None:
        return status
    try:
        with workspace() as folder:
            return measure(options, Budget(options.budget_seconds), folder)
    except StartError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
