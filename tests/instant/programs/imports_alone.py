"""Why a whole instant start cannot take 1.15 times an eager one's time: imports that no restored trace can do without.

Prints seconds from exec, medians of five: one that runs a small model eagerly, one that imports Dynamo as well, and
one that imports what Inductor's generated modules import. No model is compiled, and nothing of ours is used.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time

EAGER = "import torch; torch.nn.Linear(8, 8)(torch.ones(4, 8))"
PROGRAMS = {
    "eager": EAGER,
    "with torch._dynamo, which builds guards": f"{EAGER}; import torch._dynamo.guards",
    "with what a compiled graph's module imports": f"{EAGER}; import torch._dynamo.guards, "
    "torch._inductor.async_compile, torch._inductor.select_algorithm, torch._inductor.codegen.memory_planning",
}


def seconds(program: str) -> float:
    """From the exec until the program has run, without the interpreter's end."""
    began = time.time()
    command = [sys.executable, "-c", f"{program}; import time; print(time.time())"]
    done = subprocess.run(command, env=ENVIRONMENT, check=True, capture_output=True, text=True)
    return float(done.stdout) - began


ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def main() -> None:
    for program in PROGRAMS.values():  # whatever reads files from a disk for the first time
        seconds(program)
    eager = 0.0
    for name, program in PROGRAMS.items():
        median = statistics.median(seconds(program) for _ in range(5))
        eager = eager or median
        print(f"{name}: {median:.2f} s, {median / eager:.2f} x")


if __name__ == "__main__":
    main()
