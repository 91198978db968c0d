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
from benchmarks.session import Session

REPLICA = Path(__file__).resolve().with_name("instant_replica.py")
KINDS = ("eager", "warm", "instant")
TOLERANCE = 1e-4
_NOTES = """\
Width 256, 24 layers, 64 tokens. “First call” follows the load and `torch.compile`; in an instant start that is where
restored traces are put in place, so it is part of “to the first result” alone. What an instant start adds to an eager
one is nearly all imports: of Dynamo, of Inductor and of what they need."""


def measure(the: Session) -> str:
    folder = the.bench.fresh()
    start(the, folder, "save", 0)
    values: dict[tuple[str, str], list[float]] = {}
    for number in range(2 if the.quick else 5):
        for kind in KINDS:
            told = start(the, folder, kind, number)
            for name in ("first_call_s", "to_first_result_s", "compile_s", "import_s", "load_s"):
                values.setdefault((kind, name), []).append(told[name])
    for (kind, name), measured in values.items():
        title = f"{kind}: {name.removesuffix('_s').replace('_', ' ')}"
        the.results.add(title, "s", measured, labels={"program": kind, "measure": name.removesuffix("_s")})
    for title, over, under in (
        ("first call, warm over instant", ("warm", "first_call_s"), ("instant", "first_call_s")),
        ("to the first result, instant over eager", ("instant", "to_first_result_s"), ("eager", "to_first_result_s")),
    ):
        ratios = [a / b for a, b in zip(values[over], values[under], strict=True)]
        the.results.add(title, "x", ratios, labels={"measure": "ratio"})
    return _NOTES


def start(the: Session, folder: Path, kind: str, number: int) -> dict[str, Any]:
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
