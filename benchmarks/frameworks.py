"""Models of diffusers and transformers with tiny random weights, in new processes: cold, warm and instant.

The programs are those of tests/frameworks. For each model one process compiles and saves; the others have empty cache
directories. A start whose output differs from the cold one, or that misses a cache, fails the benchmark. No trace of
the last model is kept: its instant starts show what it costs to request one in vain. Takes ten minutes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs as a script

from benchmarks import harness
from benchmarks.harness import OURS, OperationFailedError, Samples, Session
from benchmarks.results import Label
from benchmarks.tables import COLD

PROGRAM = Path(__file__).resolve().parents[1] / "tests" / "frameworks" / "programs" / "models.py"
MODELS = {"flux": "FLUX", "llama": "Llama", "vit": "ViT", "int8": "int8 weights"}
REFUSED = "int8"
WARM, INSTANT = "warm", "instant"
RATIO = 1.03
"""The most that an instant start may take of a warm one."""
COUNTS = {"traced": "traces", "hits": "hits", "equal": "equal to cold"}


def run(
    session: Session, case: str, store: Path, outputs: list[str], folder: Path, _number: int, *, start: str
) -> dict[str, float]:
    """The figures of one start. Raises OperationFailedError if it is not what it should be."""
    home = folder / start
    home.mkdir()
    places = {"HOME": str(home), "TMPDIR": str(home), "LOCAL_WORK_DIR": str(home)}
    instant = str(int(start != WARM))
    environ = session.environment(
        OURS, store, **places, TORCHINDUCTOR_CACHE_DIR=str(home / "inductor"), B10_INSTANT=instant, HF_HUB_OFFLINE="1"
    )
    finished = session.run([OURS.python, str(PROGRAM), case], environ)
    told = finished.answer
    outputs[:] = outputs or told["digests"]
    check(case, start, told, equal=told["digests"] == outputs)
    print(f"{case}, {start}: first call {told['first_call']:.2f} s, process {finished.seconds:.1f} s", file=sys.stderr)
    figures = {"first call": told["first_call"], "process": finished.seconds, "CPU": finished.cpu_seconds}
    return figures | {"traced": told["traced"], "hits": told["hits"], "equal": 1}


def check(case: str, start: str, told: Mapping[str, Any], *, equal: bool) -> None:
    """Raises OperationFailedError."""
    is_instant = start == INSTANT and case != REFUSED
    if not equal:
        raise OperationFailedError(f"{case}, {start}: its output differs")
    if start != COLD and (told["misses"] or told["saved"] != "SKIPPED"):
        raise OperationFailedError(f"{case}, {start}: it compiled: {json.dumps(dict(told))}")
    if is_instant == bool(told["traced"]):
        raise OperationFailedError(f"{case}, {start}: it traced {told['traced']} graphs")


def measure(session: Session) -> None:
    for case in ("vit", REFUSED) if session.quick else MODELS:
        measure_model(session, case)


def measure_model(session: Session, case: str) -> None:
    samples, results, outputs = Samples(), session.results, list[str]()
    start = partial(run, session, case, session.fresh() / "store", outputs)
    for measure, value in start(session.fresh(), 0, start=COLD).items():
        samples.values[COLD, measure].append(value)
    samples.take_turns(session, {kind: partial(start, start=kind) for kind in (WARM, INSTANT)}, session.rounds)
    if samples.failed:
        raise OperationFailedError(str(samples.failed))
    model = MODELS[case]
    for kind in (COLD, WARM, INSTANT):
        labels: dict[str, Label] = {"model": model, "start": kind}
        for measure in ("first call", "process", "CPU", *COUNTS):
            unit = "" if measure in COUNTS else "s"
            samples.add_to(results, f"{model}, {kind}: {measure}", kind, measure, unit, labels | {"measure": measure})
    for measure in ("process", "CPU"):
        ratios = samples.ratios(INSTANT, WARM, measure)
        limit = RATIO if measure == "process" else None
        labels = {"model": model, "start": INSTANT, "measure": f"{measure} / warm"}
        results.add(f"{model}, instant / warm: {measure}", "x", ratios, labels=labels, at_most=limit)


if __name__ == "__main__":
    title = "Starts of models of diffusers and transformers"
    sys.exit(harness.run("frameworks", title, __doc__, measure, rounds=5, quick_rounds=2))
