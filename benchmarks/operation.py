"""One operation of an installed b10_transfer in this process: ``OPERATION [--wait]``. Prints JSON.

OPERATION is a function without arguments that returns a status or a report. With ``--wait`` it prints ``ready``
after its imports and waits for a line on standard input. The published package works too.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
import time
from pathlib import Path

COSTLY = ("torch", "triton", "numpy", "rich", "obstore", "click", "cryptography")
"""A load or a save from a directory must not import these."""


def main(operation: str, *options: str) -> None:
    call = getattr(importlib.import_module("b10_transfer"), operation)  # imports more
    if "--wait" in options:
        print("ready", flush=True)
        sys.stdin.readline()
    started = time.perf_counter()
    result = call()
    seconds = time.perf_counter() - started
    found = re.search(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    answer = {
        "status": getattr(result, "status", result).name,
        "reason": getattr(result, "reason", ""),
        "seconds": seconds,
        "peak_bytes": int(found.group(1)) * 1024 if found else 0,
        "packed_bytes": getattr(result, "packed_bytes", 0),
        "costly_modules": [name for name in COSTLY if name in sys.modules],
    }
    print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
