"""A PyTorch extension in a new process: built, and restored by b10-transfer.

The extension includes ``torch/extension.h``. In each round its source is written anew, so that its time is newer than
the stored build. Without b10-transfer's digests, ninja builds a restored extension again, too. Takes three minutes.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs as a script

from benchmarks import harness
from benchmarks.harness import OURS, OperationFailedError, Samples, Session

SOURCE = """\
#include <torch/extension.h>
torch::Tensor twice(torch::Tensor x) { return x + x; }
PYBIND11_MODULE(TORCH_EXTENSION_NAME, module) { module.def("twice", &twice); }
"""
PROGRAM = """
import json, sys, time
import torch
from torch.utils import cpp_extension
import b10_transfer
source, operation = sys.argv[1:]
seconds = {"load": 0.0, "save": 0.0}
reports = []
def call(name):
    if name in operation:
        began = time.perf_counter()
        reports.append(getattr(b10_transfer, name)())
        seconds[name] = time.perf_counter() - began
call("load")
began = time.perf_counter()
module = cpp_extension.load(name="twice", sources=[source])
seconds["extension"] = time.perf_counter() - began
assert module.twice(torch.ones(1)).item() == 2
call("save")
print(json.dumps({"seconds": seconds, "reports": [[report.status.name, report.reason] for report in reports]}))
"""
BUILT = "no cache"
MEASURES = ("extension", "load", "save")


def measure(session: Session) -> None:
    """Save a build once, then build and restore in turns."""
    samples, store = Samples(), session.fresh()

    def start(program: str, folder: Path, operation: str) -> dict[str, float]:
        home = folder / program.replace(" ", "-")
        home.mkdir()
        source = session.folder / "twice.cpp"
        source.write_text(SOURCE)
        environ = session.environment(OURS, store, HOME=str(home), TORCH_EXTENSIONS_DIR=str(home / "extensions"))
        answer = session.run([sys.executable, "-c", PROGRAM, str(source), operation], environ).answer
        if any(status != "SUCCESS" for status, _reason in answer["reports"]):
            raise OperationFailedError(f"{program}: {answer['reports']}")
        seconds: dict[str, float] = answer["seconds"]
        return seconds

    samples.values[OURS.name, "save"].append(start("save", session.fresh(), "save")["save"])

    def restored(folder: Path, _number: int) -> dict[str, float]:
        found = start(OURS.name, folder, "load")
        return {name: found[name] for name in ("extension", "load")}

    def built(folder: Path, _number: int) -> dict[str, float]:
        return {"extension": start(BUILT, folder, "")["extension"]}

    samples.take_turns(session, {BUILT: built, OURS.name: restored}, session.rounds)
    for program in (BUILT, OURS.name):
        for name in MEASURES:
            labels: dict[str, str | int | float] = {"program": program, "measure": name}
            samples.add_to(session.results, f"PyTorch extension, {program}: {name}", program, name, "s", labels)


if __name__ == "__main__":
    sys.exit(harness.run("extension", "A PyTorch extension", __doc__, measure, rounds=3, quick_rounds=1))
