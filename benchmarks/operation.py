"""One operation of an installed b10_transfer in this process. Works with ours and with the published package.

Prints a line of JSON: the status, seconds of the call itself and of the import before it, the process's peak memory in
bytes, and which of the modules that must not be needed were imported.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
import time
from pathlib import Path

COSTLY = ("torch", "triton", "numpy", "rich", "obstore", "click", "cryptography")


def main(operation: str) -> None:
    started = time.perf_counter()
    package = importlib.import_module("b10_transfer")
    call = getattr(package, operation)  # may import more: not part of the call
    imported = time.perf_counter()
    status = call().name
    done = time.perf_counter()
    print(
        json.dumps(
            {
                "status": status,
                "seconds": done - imported,
                "import_seconds": imported - started,
                "peak_bytes": peak_bytes(),
                "costly_modules": [name for name in COSTLY if name in sys.modules],
            }
        )
    )


def peak_bytes() -> int:
    """The most memory that was resident at once. (``ru_maxrss`` would count the parent that forked, too.)"""
    found = re.search(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    if not found:
        raise OSError("/proc/self/status does not tell the peak memory")
    return int(found.group(1)) * 1024


if __name__ == "__main__":
    main(sys.argv[1])
