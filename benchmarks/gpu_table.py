"""What the starts of :mod:`benchmarks.gpu_cold_start` took: rows of results, and a table to read."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.results import Label, Results

Outcome = Mapping[str, Any]
Runs = Mapping[str, Sequence[Outcome]]
"""The outcomes of every start that there was, by its name."""
NOISE = 0.05
"""Steps whose medians are no further apart, in parts of the cold one's, are equal whatever their spread."""
_COUNTS = {
    "FX graph hits": ("fx_hits",),
    "FX graph misses": ("fx_misses", "fx_bypasses"),
    "AOTAutograd hits": ("aot_hits",),
    "AOTAutograd misses": ("aot_misses", "aot_bypasses"),
    "Triton kernel files in place": ("triton_in_place",),
    "Triton kernel files from the FX graph's entry": ("triton_unbundled",),
    "Triton kernel files compiled anew": ("triton_compiled",),
    "tuning results in place": ("tuned_in_place",),
    "kernels tuned anew": ("tuned",),
    "C++ libraries built": ("cpp_libraries_built",),
    "Triton's helpers built": ("helpers_built",),
}
"""What a row shows, and which counts of :class:`benchmarks.compile_activity.Activity` it adds up."""


def fill(results: Results, names: Sequence[str], parts: Sequence[str], runs: Runs, why_not: Mapping[str, str]) -> None:
    """Add a row for everything that each start told; one that did not take place says why."""
    cold = runs["cold"][0] if runs.get("cold") else None
    for name in names:
        found = runs.get(name, ())
        for part in parts:
            answered = [run["parts"][part] for run in found if part in run["parts"]]
            first = {"start": name, "part": part, "what": "first call"}
            if not answered:
                why = why_not.get(name) or next((run["left_out"].get(part, run["trouble"]) for run in found), "")
                results.cannot(f"{name}: first call, {part}", "s", why=why or "it was not reached", labels=first)
                continue
            results.add(f"{name}: first call, {part}", "s", [run["first_call_s"] for run in answered], labels=first)
            _fill_part(results, name, part, answered, cold if name != "cold" else None)
        _fill_start(results, name, found)


def _fill_part(
    results: Results, name: str, part: str, answered: Sequence[Mapping[str, Any]], cold: Outcome | None
) -> None:
    def labels(what: str) -> dict[str, Label]:
        return {"start": name, "part": part, "what": what}

    for what, counts in _COUNTS.items():
        values = [float(sum(run["activity"][count] for count in counts)) for run in answered]
        results.add(f"{name}: {what}, {part}", "", values, labels=labels(what))
    for what, seconds in _tuning(answered).items():
        results.add(f"{name}: {what}, {part}", "s", seconds, labels=labels(what))
    steps = [second for run in answered for second in run.get("step_s", ())]
    if steps:
        results.add(f"{name}: step, {part}", "s", steps, labels=labels("step"))
    if cold is None or part not in cold["parts"]:
        return
    outputs = [run["output"] for run in answered if "difference" in run["output"]]
    if outputs:
        results.add(
            f"{name}: largest difference from the cold output, {part}",
            "",
            [output["difference"] for output in outputs],
            labels=labels("difference"),
            detail=said_of_outputs(outputs),
        )
    before = cold["parts"][part].get("step_s", ())
    if steps and before:
        ratio, detail = compare_steps(before, steps)
        results.add(f"{name}: step against cold, {part}", "x", [ratio], labels=labels("step ratio"), detail=detail)


def _tuning(answered: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """Seconds spent choosing among kernels, of all that tunes."""
    kinds = ("templates", "kernels", "coordinate_descent")
    return {"tuning": [sum(run["activity"]["tuning"][kind][1] for kind in kinds) for run in answered]}


def _fill_start(results: Results, name: str, found: Sequence[Outcome]) -> None:
    def labels(what: str) -> dict[str, Label]:
        return {"start": name, "what": what}

    loads = [run["load"] for run in found if run["load"].get("status") == "SUCCESS"]
    units = {"files": ("", 1.0), "bytes": ("MB", 1e6), "seconds": ("s", 1.0)}
    for key, (unit, scale) in units.items():
        what = {"files": "files restored", "bytes": "restored", "seconds": "restore"}[key]
        if values := [load[key] / scale for load in loads if key in load]:
            results.add(f"{name}: {what}", unit, values, labels=labels(what))
    saves = [[save for save in run["saves"] if save["status"] == "SUCCESS"] for run in found if run["saves"]]
    if any(saves):
        for key, (unit, scale) in (units | {"packed_bytes": ("MB", 1e6)}).items():
            what = {"files": "files saved", "bytes": "saved", "seconds": "saves", "packed_bytes": "in the store"}[key]
            values = [sum(save[key] for save in done) / scale for done in saves]
            results.add(f"{name}: {what}", unit, values, labels=labels(what))
    answered = [max(run["seconds"].values()) for run in found if run["done"]]
    if answered:
        what = "process start to all answered"
        results.add(f"{name}: {what}", "s", answered, labels=labels(what))
    if peaks := [run["peak_gpu_bytes"] / 1e6 for run in found if run["peak_gpu_bytes"]]:
        results.add(f"{name}: peak GPU memory", "MB", peaks, labels=labels("peak GPU memory"))


def said_of_outputs(outputs: Sequence[Mapping[str, Any]]) -> str:
    """Whether they are the cold ones, in words."""
    if not all(output["finite"] for output in outputs):
        return "NOT FINITE"
    if all(output["bitwise"] for output in outputs):
        return "bitwise equal"
    farthest = max(outputs, key=lambda output: float(output["difference"]))
    words = "equal within tolerance" if all(output["equal"] for output in outputs) else "DIFFERENT"
    return f"{words}: up to {farthest['difference']:.2g} apart, {farthest['allowed']:.2g} allowed"


def compare_steps(before: Sequence[float], after: Sequence[float]) -> tuple[float, str]:
    """The ratio of the medians, and whether it is more than noise: the larger of 5 % and either's own spread."""
    ratio = statistics.median(after) / statistics.median(before)
    noise = max(NOISE, *((max(steps) - min(steps)) / statistics.median(steps) for steps in (before, after)))
    verdict = "equal within noise" if abs(ratio - 1) <= noise else "NOT equal"
    return ratio, f"{verdict} (± {noise * 100:.0f} %)"


def broken_promises(parts: Sequence[str], runs: Runs) -> list[str]:
    """What must hold of every restored start and does not: nothing compiled anew, and the cold outputs."""
    found = []
    for run in runs.get("restored", ()):
        if run["load"].get("status") != "SUCCESS":
            found.append(f"nothing was restored: {run['load'].get('reason', run['trouble'])}")
        for part in parts:
            told = run["parts"].get(part)
            if told is None:
                continue
            activity = told["activity"]
            for count in ("fx_misses", "fx_bypasses", "aot_misses", "aot_bypasses"):
                if activity[count]:
                    found.append(f"restored, {part}: {count.replace('_', ' ')}: {activity[count]}")
            if not activity["aot_hits"] and not activity["dynamo_hits"]:
                found.append(f"restored, {part}: no hit at all")
            if not (told["output"]["finite"] and told["output"].get("equal", False)):
                found.append(f"restored, {part}: other outputs than cold")
    return list(dict.fromkeys(found))


def to_text(names: Sequence[str], parts: Sequence[str], runs: Runs, why_not: Mapping[str, str]) -> str:
    """A table of every start and part; medians where there were several runs."""
    heads = (
        "start",
        "part",
        "runs",
        "first call",
        "FX h/m",
        "AOT h/m",
        "Triton files¹",
        "tuned²",
        "s per step",
        "output",
    )
    lines: list[tuple[str, ...]] = [heads]
    notes = []
    for name in names:
        found = runs.get(name, ())
        for part in parts:
            answered = [run["parts"][part] for run in found if part in run["parts"]]
            if not answered:
                why = why_not.get(name) or next((run["left_out"].get(part, run["trouble"]) for run in found), "")
                lines.append((name, part, "-", f"not run: {_short(why or 'it was not reached')}", *[""] * 6))
                continue
            lines.append((name, part, *_cells(answered)))
        notes += [f"{name}: {_said_of_load(run)}" for run in found[:1] if run["load"] or run["saves"]]
    widths = [max(len(line[at]) for line in lines if not line[3].startswith("not run")) for at in range(len(heads))]
    table = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    legend = [
        "¹ kernel files in place before the first call / from the FX graph's entry / compiled anew",
        "² tuning results in place / kernels tuned anew",
    ]
    return "\n".join([*table, "", *legend, "", *notes])


def _cells(answered: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    activity = answered[-1]["activity"]
    steps = [second for run in answered for second in run.get("step_s", ())]
    outputs = [run["output"] for run in answered if "difference" in run["output"]]
    return (
        str(len(answered)),
        f"{statistics.median(run['first_call_s'] for run in answered):.2f} s",
        f"{activity['fx_hits']}/{activity['fx_misses'] + activity['fx_bypasses']}",
        f"{activity['aot_hits']}/{activity['aot_misses'] + activity['aot_bypasses']}",
        f"{activity['triton_in_place']}/{activity['triton_unbundled']}/{activity['triton_compiled']}",
        f"{activity['tuned_in_place']}/{activity['tuned']}",
        f"{statistics.median(steps):.4f}" if steps else "",
        said_of_outputs(outputs) if outputs else "",
    )


def _said_of_load(run: Outcome) -> str:
    saves = [save for save in run["saves"] if save["status"] == "SUCCESS"]
    if saves:
        files, size, packed = (sum(save[key] for save in saves) for key in ("files", "bytes", "packed_bytes"))
        seconds = sum(save["seconds"] for save in saves)
        return f"saved {files} files, {size / 1e6:.1f} MB ({packed / 1e6:.1f} MB in the store) in {seconds:.2f} s"
    if run["saves"]:
        return f"saved nothing: {_short(run['saves'][-1]['reason'])}"
    load = run["load"]
    if load["status"] != "SUCCESS":
        return f"{load['status']}: {_short(load['reason'])}"
    return f"restored {load['files']} files, {load['bytes'] / 1e6:.1f} MB in {load['seconds']:.2f} s"


def _short(text: str) -> str:
    return text.splitlines()[0][:160] if text else ""
