"""One operation of an installed b10_transfer in this process: ``OPERATION [--wait] [--after=MODULES]``. Prints JSON.

OPERATION is a function without arguments that returns a status or a report. With ``--wait`` it prints ``ready``
after its imports and waits for a line on standard input. With ``--after=torch,diffusers`` it imports these modules
before everything else, as most programs do. The published package works too.
"""

from __future__ import annotations

import gc
import importlib
import json
import re
import sys
import time
from pathlib import Path

COSTLY = ("torch", "triton", "numpy", "rich", "obstore", "click", "cryptography")
"""A load or a save from a directory must not import these."""


def main(operation: str, *options: str) -> None:
    for option in options:
        if option.startswith("--after="):
            for name in option.removeprefix("--after=").split(","):
                importlib.import_module(name)
    objects = len(gc.get_objects())
    began = time.perf_counter()
    call = getattr(importlib.import_module("b10_transfer"), operation)  # imports more
    import_s = time.perf_counter() - began
    if "--wait" in options:
        print("ready", flush=True)
        sys.stdin.readline()
    before = _read_bytes()
    started = time.perf_counter()
    result = call()
    seconds = time.perf_counter() - started
    read_bytes = _read_bytes() - before
    found = re.search(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    answer = {
        "status": getattr(result, "status", result).name,
        "reason": getattr(result, "reason", ""),
        "seconds": seconds,
        "import_seconds": import_s,
        "objects": objects,
        "peak_bytes": int(found.group(1)) * 1024 if found else 0,
        "read_bytes": read_bytes,
        "packed_bytes": getattr(result, "packed_bytes", 0),
        "costly_modules": [name for name in COSTLY if name in sys.modules],
    }
    print(json.dumps(answer), flush=True)


def _read_bytes() -> int:
    """The bytes that this process has read from files."""
    found = re.search(r"^rchar: (\d+)$", Path("/proc/self/io").read_text(), re.MULTILINE)
    return int(found.group(1)) if found else 0


if __name__ == "__main__":
    main(*sys.argv[1:])
