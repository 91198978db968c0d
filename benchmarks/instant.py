"""A 24-layer transformer in new processes: eager, warm and instant.

One process compiles it and saves. The others have empty cache directories: eager compiles nothing, warm calls
``load()``, instant ``load(instant=True)``. An instant start that traces fails the benchmark. Takes four minutes.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs as a script

from benchmarks import harness
from benchmarks.harness import OURS, OperationFailedError, Samples, Session
from benchmarks.results import Label
from benchmarks.starts import Request, StartError, start

MODEL = "decoder"
MEASURES = ("first call", "torch.compile(model)", "load", "import torch", "exec to first result", "uncovered call")
KINDS = {
    "eager": Request((MODEL,), mode="eager"),
    "warm": Request((MODEL,), restore="b10_transfer"),
    "instant": Request((MODEL,), restore="instant"),
}


def run(session: Session, store: Path, request: Request, folder: Path, _number: int) -> dict[str, float]:
    """The figures of one start. Raises OperationFailedError if it crashed, had another output, or traced."""
    home = folder / (request.restore if request.mode != "eager" else "eager")
    variables = {"TORCHINDUCTOR_CACHE_DIR": str(home / "torchinductor_b10"), "TRITON_CACHE_DIR": str(home / "triton")}
    environ = session.environment(OURS, store, HOME=str(home), TMPDIR=str(home), LOCAL_WORK_DIR=str(home), **variables)
    try:
        outcome = start(home, request, environ)
    except StartError as error:
        raise OperationFailedError(str(error)) from error
    part = outcome.parts[MODEL]
    if not part["output"].get("difference", 0.0) <= part["output"].get("allowed", 0.0):
        raise OperationFailedError(f"its output differs by {part['output']['difference']:g}")
    if request.restore == "instant" and not request.saves and part["activity"]["graphs"]:
        raise OperationFailedError(f"it traced {part['activity']['graphs']} graphs")
    found = {
        "first call": part["first_call_s"],
        "torch.compile(model)": part["compile_s"],
        "load": outcome.load["seconds"],
        "import torch": outcome.seconds["import torch"],
        "exec to first result": outcome.seconds[MODEL],
    }
    print(f"{home.name}: first call {part['first_call_s']:.3f} s", file=sys.stderr)
    return found | ({"uncovered call": part["uncovered_call_s"]} if "uncovered_call_s" in part else {})


def measure(session: Session) -> None:
    store, first = session.fresh() / "store", session.fresh()
    run(session, store, Request((MODEL,), restore="instant", saves=True), first, 0)
    samples, results = Samples(), session.results
    reference = str(first / "instant")
    turns = {
        kind: partial(run, session, store, replace(request, reference=reference)) for kind, request in KINDS.items()
    }
    samples.take_turns(session, turns, session.rounds)
    if not session.quick:
        for kind in ("warm", "instant"):
            request = replace(KINDS[kind], reference=reference, uncovered=True)
            found = run(session, store, request, session.fresh(), 0)
            samples.values[kind, "uncovered call"].append(found["uncovered call"])
    for kind in KINDS:
        for measure in MEASURES:
            labels: dict[str, Label] = {"program": kind, "measure": measure}
            samples.add_to(results, f"{kind}: {measure}", kind, measure, "s", labels)
    if samples.failed:
        raise OperationFailedError(str(samples.failed))


if __name__ == "__main__":
    sys.exit(harness.run("instant", "Instant starts", __doc__, measure, rounds=5, quick_rounds=2))
