"""Starts of FLUX.1 [schnell] on a GPU: cold, and with restored artifacts.

    python benchmarks/gpu_cold_start.py --results benchmarks/results/gpu_cold_start.json

One command, for one GPU with 40 GB of free memory. It ends within ``--budget-seconds`` (470). Each start is a new
process with empty caches. It builds diffusers' transformer and VAE decoder with random weights on the device, compiles
both with mode="max-autotune-no-cudagraphs", and calls both:

================  ==============================================================================
cold              compiles everything; b10_transfer saves it, and a mega-cache is written
restored          by b10_transfer
mega-cache        by ``torch.compiler.load_cache_artifacts``
instant start     by ``load(instant=True)``
================  ==============================================================================

The rows hold the seconds of both first calls, the hits and misses of the FX-graph and AOTAutograd caches, the Triton
kernels that were compiled and tuned, the restored files and MB, the difference from the cold outputs (allowed: 2 % of
the largest value in bfloat16, 0.01 % in float32), and the seconds of a step. A start without enough time is left out,
the least important first, and its row has the reason. The store is a folder on the same disk. The exit status is 1 if
the restored start compiled a graph or had another output, and 2 if something is missing.

``--size shallow`` is as wide and a ninth as deep, for a GPU that takes longer. Without a GPU the program uses a tiny
model on the CPU: this tests the program. **The figures for a GPU are open until it has run on one.**

It needs torch 2.11 or later with Triton, a C compiler, diffusers, and b10_transfer. For a machine without internet,
download packages on another one:

    pip download --dest wheels diffusers zstandard nvidia-ml-py
    pip install --target vendor --no-index --find-links wheels diffusers zstandard nvidia-ml-py
    PYTHONPATH=src:vendor python benchmarks/gpu_cold_start.py --results FILE
"""

from __future__ import annotations

import argparse
import json
import math
import shlex
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs as a script

from benchmarks import starts
from benchmarks.results import Label, Results
from benchmarks.starts import Outcome, Request, StartError
from benchmarks.tables import value
from benchmarks.workspace import file_system, workspace

NEEDED_GPU_BYTES = 40e9
"""24 GB of weights, and room for the tuning of kernels."""
COLD_SHARE = 0.72
"""Share of the budget for the cold start. If it ends early, the other starts use the models that have answered."""
COLD, OURS, MEGA, INSTANT = "cold", "restored", "mega-cache", "instant start"
STARTS = {COLD: 0.0, OURS: 0.0, MEGA: 2.0, INSTANT: 3.0}
"""The starts, the most important first, and their expected duration relative to the restored start's."""
PARTS = ("transformer", "decoder")
STEPS = 10
"""Timed calls after the first one."""
NEEDED = {
    "torch": "torch>=2.11",
    "zstandard": "zstandard",
    "pynvml": "nvidia-ml-py",
    "diffusers": "diffusers",
    "b10_transfer": "b10-transfer itself (install it, or set PYTHONPATH=src)",
}
_COUNTS = {
    "FX graph hits": ("fx_hits",),
    "FX graph misses": ("fx_misses", "fx_bypasses"),
    "AOTAutograd hits": ("aot_hits",),
    "AOTAutograd misses": ("aot_misses", "aot_bypasses"),
    "Triton kernel files compiled anew": ("triton_compiled",),
    "kernels tuned anew": ("tuned",),
    "C++ libraries built": ("cpp_libraries_built",),
}
"""Rows, and the counts of benchmarks/activity.py that each adds up."""
_UNITS = dict.fromkeys(("first call", "step", "restore", "saves", "process start to all answered"), "s")
_UNITS |= dict.fromkeys(("restored", "in the store", "peak GPU memory"), "MB")


class Benchmark:
    """All starts that there is time for."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self._options, self._folder = options, folder
        self._ends = time.monotonic() + options.budget_seconds
        self._request = Request(
            models=tuple(f"flux {options.size} {part}" for part in PARTS),
            mode="max-autotune-no-cudagraphs",
            mega_cache=str(folder / "mega-cache.bin"),
            device=options.device,
            dtype="bfloat16" if options.device == "cuda" else "float32",
            steps=STEPS,
        )
        self.runs: dict[str, list[Outcome]] = {name: [] for name in STARTS}
        self.why_not: dict[str, str] = {}

    def run(self) -> None:
        """Run every start, in order of importance, then repeat two of them while there is time."""
        self._attempt(COLD, self._cold)
        if not self.runs[COLD]:
            self.why_not |= dict.fromkeys(list(STARTS)[1:], "there was no cold start to restore from")
            return
        answered = tuple(self.runs[COLD][0].parts)
        self._request = replace(self._request, models=answered, reference=str(self._folder / COLD))
        for name, start in ((OURS, self._ours), (MEGA, self._mega), (INSTANT, self._instant)):
            self._attempt(name, start)
        for number in range(2, self._options.repetitions + 1):
            for name, start in ((OURS, self._ours), (MEGA, self._mega)):
                if self.runs[name] and not self._why_no_time(name):
                    self._attempt(name, lambda start=start, number=number: start(f" {number}"))  # type: ignore[misc]

    def _attempt(self, name: str, start: Callable[[], Outcome]) -> None:
        began, why = time.monotonic(), self._why_no_time(name)
        if name not in (COLD, *self._options.starts):
            why = "not requested (--starts)"
        if not why:
            try:
                self.runs[name].append(start())
                why = self.runs[name][-1].trouble
            except StartError as error:
                why = str(error)
            except Exception as error:  # noqa: BLE001 - a fault in one start must not cost the others
                traceback.print_exc()
                why = f"this program failed: {error!r}"
        if why and not self.runs[name]:
            self.why_not[name] = why.splitlines()[0]
        print(f"{name}: {why or 'done'} ({time.monotonic() - began:.1f} s)", flush=True)

    def _why_no_time(self, name: str) -> str:
        """The reason to leave a start out; empty if there is time for it."""
        if name in (COLD, OURS) and not self.runs[OURS]:
            return ""
        if not self.runs[OURS]:
            return f"the {OURS} start failed, so the time that this start needs is unknown"
        known = self.runs[name]
        expected_s = known[-1].process_s * 1.2 if known else self.runs[OURS][-1].process_s * STARTS[name]
        left_s = max(0.0, self._ends - time.monotonic())
        return "" if left_s >= expected_s else f"left out: it needs {expected_s:.0f} s, {left_s:.0f} s were left"

    def _cold(self) -> Outcome:
        limit_s = self._ends - time.monotonic() - (1 - COLD_SHARE) * self._options.budget_seconds
        outcome = self._start(COLD, replace(self._request, saves=True), limit_s)
        if not outcome.saves:
            raise StartError(f"it saved nothing: {outcome.trouble}")
        return outcome

    def _ours(self, suffix: str = "") -> Outcome:
        return self._start(OURS + suffix, replace(self._request, restore="b10_transfer"))

    def _mega(self, suffix: str = "") -> Outcome:
        if not Path(self._request.mega_cache).exists():
            raise StartError(self.runs[COLD][0].mega_cache.get("reason", "the cold start ended before it was written"))
        return self._start(MEGA + suffix, replace(self._request, restore=MEGA))

    def _instant(self) -> Outcome:
        # Traces are saved by a process that has loaded with instant=True.
        self._start("instant, saving", replace(self._request, restore="instant", saves=True, steps=1))
        return self._start(INSTANT, replace(self._request, restore="instant"))

    def _start(self, name: str, request: Request, limit_s: float | None = None) -> Outcome:
        left_s = limit_s if limit_s is not None else self._ends - time.monotonic()
        return starts.start(self._home(name), request, self._environ(name), left_s)

    def _home(self, name: str) -> Path:
        folder = self._folder / name.replace(" ", "-").replace(",", "")
        for part in ("home", "tmp", "cuda"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        return folder

    def _environ(self, name: str) -> dict[str, str]:
        return starts.environment(self._home(name), self._folder / "store")


def figures(outcome: Outcome) -> dict[tuple[str, str], float]:
    """The figures of one start by model and name; those of the whole start have no model."""
    found: dict[tuple[str, str], float] = {}
    for model, part in outcome.parts.items():
        name, activity = model.split()[-1], part["activity"]
        found |= {(name, what): sum(activity[count] for count in counts) for what, counts in _COUNTS.items()}
        found[name, "first call"] = part["first_call_s"]
        if part["step_s"]:
            found[name, "step"] = statistics.median(part["step_s"])
        if "difference" in part["output"]:
            found[name, "difference"] = part["output"]["difference"]
    load, saves = outcome.load, [save for save in outcome.saves if save["status"] == "SUCCESS"]
    if load.get("files"):
        found |= {("", "files restored"): load["files"], ("", "restored"): load["bytes"] / 1e6}
        found["", "restore"] = load["seconds"]
    if saves:
        total = {key: sum(save[key] for save in saves) for key in ("files", "packed_bytes", "seconds")}
        found |= {("", "files saved"): total["files"], ("", "in the store"): total["packed_bytes"] / 1e6}
        found["", "saves"] = total["seconds"]
    if outcome.done:
        found["", "process start to all answered"] = max(outcome.seconds.values())
    if outcome.peak_gpu_bytes:
        found["", "peak GPU memory"] = outcome.peak_gpu_bytes / 1e6
    return found


def fill(results: Results, benchmark: Benchmark) -> None:
    """Add the rows of every start, or the reason why it has none."""
    for name, runs in benchmark.runs.items():
        found = [figures(run) for run in runs]
        for part, what in dict.fromkeys(key for one in found for key in one):
            labels: dict[str, Label] = {"start": name, "what": what, **({"part": part} if part else {})}
            title = f"{name}: {what}" + (f", {part}" if part else "")
            values = [one[part, what] for one in found if (part, what) in one]
            results.add(title, _UNITS.get(what, ""), values, labels=labels)
        for part in PARTS:
            if not any((part, "first call") in one for one in found):
                reasons = [benchmark.why_not.get(name, ""), *(run.trouble for run in runs), "it was not reached"]
                why = next(filter(None, reasons)).splitlines()[0]
                first: dict[str, Label] = {"start": name, "what": "first call", "part": part}
                results.cannot(f"{name}: first call, {part}", "s", why=why, labels=first)


def faults(benchmark: Benchmark) -> list[str]:
    """What a restored start must not do: compile, or have other outputs."""
    found = [f"{name}: {benchmark.why_not[name]}" for name in (COLD, OURS) if name in benchmark.why_not]
    for run in benchmark.runs[OURS]:
        if run.load.get("status") != "SUCCESS":
            found.append(f"{OURS}: nothing was restored: {run.load.get('reason', run.trouble)}")
        for model, part in run.parts.items():
            activity, output = part["activity"], part["output"]
            for count in ("fx_misses", "fx_bypasses", "aot_misses", "aot_bypasses"):
                if activity[count]:
                    found.append(f"{OURS}, {model}: {count.replace('_', ' ')}: {activity[count]}")
            if not activity["aot_hits"] and not activity["dynamo_hits"]:
                found.append(f"{OURS}, {model}: no hit")
            if not (output["finite"] and output.get("difference", math.inf) <= output.get("allowed", 0)):
                found.append(f"{OURS}, {model}: another output than cold")
    return list(dict.fromkeys(found))


def prepare(options: argparse.Namespace, facts: Mapping[str, Any]) -> None:
    """Choose the device and the size. Raises StartError if this machine lacks what was requested."""
    on_gpu = bool(facts["gpu"])
    options.device = "cuda" if on_gpu else "cpu"
    options.size = options.size or ("flux" if on_gpu else "tiny")
    options.repetitions = options.repetitions or (3 if on_gpu else 1)
    if options.size == "flux" and on_gpu and facts["gpu_free_bytes"] < NEEDED_GPU_BYTES:
        free = facts["gpu_free_bytes"] / 1e9
        raise StartError(f"{free:.0f} GB of GPU memory are free, {NEEDED_GPU_BYTES / 1e9:.0f} GB are needed")
    print(f"{options.size} on {options.device} ({', '.join(facts['gpu'].values()) or 'no GPU'})", flush=True)


def measure(options: argparse.Namespace, folder: Path) -> int:
    """Run everything in a private folder. Returns the exit status. Raises StartError if torch cannot be used."""
    (folder / "facts").mkdir()
    environ = starts.environment(folder / "facts", folder / "store")
    facts = json.loads(starts.run(["--facts"], folder / "facts", environ, options.budget_seconds))
    prepare(options, facts)
    benchmark = Benchmark(options, folder)
    benchmark.run()
    notes = f"Model: {options.size}, diffusers' classes."
    if options.device == "cpu":
        notes = f"A test of the program on a CPU. **The figures for a GPU are open.** {notes}"
    given = [f"--{name}={getattr(options, name)}" for name in ("size", "repetitions")]
    results = Results.begin(
        "gpu_cold_start",
        "Starts of FLUX.1 on a GPU",
        versions=facts["versions"],
        file_system=file_system(folder),
        command=shlex.join(["python", "benchmarks/gpu_cold_start.py", *given]),
        notes=notes,
        gpu=facts["gpu"] or {"GPU": "none"},
    )
    fill(results, benchmark)
    if options.results:
        results.write(options.results)
    found = faults(benchmark) or ["The restored start compiled nothing, and its output is equal."]
    rows = [f"{row.name}: {value(row)} {row.why_not}".rstrip() for row in results.rows]
    print("\n".join(["", notes, *rows, "", *found]))
    return 1 if faults(benchmark) else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, metavar="FILE", help="write the rows to this file")
    parser.add_argument("--size", choices=("flux", "shallow", "tiny"), help="of the model (flux on a GPU, else tiny)")
    parser.add_argument("--starts", nargs="*", choices=STARTS, default=list(STARTS), help="besides the cold one (all)")
    parser.add_argument("--repetitions", type=int, help="of restored starts, if time allows (3; 1 on a CPU)")
    parser.add_argument("--quick", action="store_const", const=1, dest="repetitions", help="one repetition")
    parser.add_argument("--budget-seconds", type=float, default=470, metavar="S", help="for everything (%(default)s)")
    options = parser.parse_args()
    if missing := [package for module, package in NEEDED.items() if find_spec(module) is None]:
        print(f"Missing here: {', '.join(missing)}. See --help.", file=sys.stderr)
        return 2
    try:
        with workspace() as folder:
            return measure(options, folder)
    except StartError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
