"""One of many processes that load or save at once: imports b10_transfer, waits for a line on standard input, then acts.

Works with ours and with the published package. Prints ``ready``, and when it has acted a line of JSON: the status and
the seconds of the call.
"""

from __future__ import annotations

import importlib
import json
import sys
import time


def main(operation: str) -> None:
    call = getattr(importlib.import_module("b10_transfer"), operation)  # may import more
    print("ready", flush=True)
    sys.stdin.readline()
    started = time.perf_counter()
    status = call().name
    print(json.dumps({"status": status, "seconds": time.perf_counter() - started}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
