"""A 24-layer transformer in fresh processes: eager, warm and instant.

One process compiles it and saves. The others have empty cache directories: eager compiles nothing, warm loads as usual,
instant loads with ``instant=True``. Each is timed from its exec to its first result, and its first call by itself; a
start that traced something is no instant one. Takes some four minutes.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs as a script

from benchmarks import session
from benchmarks.measure import OperationFailed
from benchmarks.results import Label
from benchmarks.session import Session

REPLICA = Path(__file__).resolve().with_name("instant_replica.py")
KINDS = ("eager", "warm", "instant")
TOLERANCE = 1e-4
MEASURES = {
    "first_call_s": "first call",
    "compile_s": "torch.compile(model)",
    "load_s": "load",
    "import_s": "import torch",
    "to_first_result_s": "exec to first result",
}
_NOTES = """\
A decoder of 24 layers of width 256, 64 tokens. “First call” follows the load and `torch.compile(model)`, in which
restored traces are put in place. What an instant start adds to an eager one is nearly all imports, of Dynamo and of
Inductor; a row below says what a process pays that does nothing but these. “Uncovered call” is one of a length that
nobody has compiled: it is compiled at once, in the foreground, as in a warm start ([why](instant.md))."""
_IMPORTS = "import torch, torch._dynamo.guards, torch._inductor.async_compile, torch._inductor.select_algorithm"


def measure(the: Session) -> str:
    folder = the.bench.fresh()
    start(the, folder, "save", 0)
    rounds = 2 if the.quick else 5
    values: dict[tuple[str, str], list[float]] = {}
    for number in range(rounds):
        for kind in KINDS:
            is_last = number == rounds - 1 and not the.quick
            told = start(the, folder, kind, number, uncovered=is_last)
            for name in MEASURES:
                values.setdefault((kind, name), []).append(told[name])
            if "uncovered_call_s" in told:
                values[kind, "uncovered_call_s"] = [told["uncovered_call_s"]]
    for (kind, name), measured in values.items():
        labels: dict[str, Label] = {"program": kind, "measure": MEASURES.get(name, "uncovered call")}
        the.results.add(f"{kind}: {labels['measure']}", "s", measured, labels=labels)
    imports = [imported(the) for _ in range(rounds)]
    the.results.add("import of Dynamo and Inductor alone", "s", imports, command=f'python -c "{_IMPORTS}"')
    for title, over, under in (
        ("first call, warm over instant", ("warm", "first_call_s"), ("instant", "first_call_s")),
        ("exec to first result, instant over eager", ("instant", "to_first_result_s"), ("eager", "to_first_result_s")),
        ("exec to first result, warm over instant", ("warm", "to_first_result_s"), ("instant", "to_first_result_s")),
    ):
        ratios = [a / b for a, b in zip(values[over], values[under], strict=True)]
        the.results.add(title, "x", ratios, labels={"measure": "ratio"})
    ratios = [a / b for a, b in zip(imports, values["eager", "to_first_result_s"], strict=True)]
    the.results.add("import of Dynamo and Inductor alone over an eager start", "x", ratios, labels={"measure": "ratio"})
    return _NOTES


def imported(the: Session) -> float:
    """Seconds from the exec of a process that only imports what every restored trace needs, until it has."""
    began = time.time()
    command = [sys.executable, "-c", f"{_IMPORTS}, time; print(time.time())"]
    done = subprocess.run(command, env=the.bench.bare_environment, check=True, capture_output=True, text=True)
    return float(done.stdout) - began


def start(the: Session, folder: Path, kind: str, number: int, *, uncovered: bool = False) -> dict[str, Any]:
    """What a replica told. Raises OperationFailed if it crashed, or was not what it should have been."""
    home = folder / f"{kind}-{number}"
    home.mkdir()
    environ = the.bench.bare_environment | {
        "B10_STORE": str(folder / "store"),
        "TORCHINDUCTOR_CACHE_DIR": str(home / "torchinductor_b10"),
        "TRITON_CACHE_DIR": str(home / "triton"),
        "LOCAL_WORK_DIR": str(home),
        "TMPDIR": str(home),
    }
    command = [sys.executable, str(REPLICA), kind, str(folder / "output.pt"), repr(time.time())]
    command += ["uncovered"] if uncovered and kind != "eager" else []
    done = subprocess.run(command, env=environ, cwd=home, capture_output=True, text=True)
    if done.returncode:
        raise OperationFailed(f"{kind}: a replica crashed: {done.stderr[-1500:]}")
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if not told["apart"] <= TOLERANCE:
        raise OperationFailed(f"{kind}: its output differs by {told['apart']:g}")
    if kind == "instant" and told["traced"]:
        raise OperationFailed(f"it was no instant start: {done.stderr[-1500:]}")
    print(f"{kind}: first call {told['first_call_s']:.3f} s, in all {told['to_first_result_s']:.2f} s", file=sys.stderr)
    return told


if __name__ == "__main__":
    sys.exit(session.run("instant", "Instant starts", __doc__, measure))
