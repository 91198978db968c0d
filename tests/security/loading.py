"""One load in a process of its own: prints its status, its peak of memory in MiB, and what it logged."""

from __future__ import annotations

import json
import logging
import re
import sys
from pathlib import Path


class Lines(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.levelname} {record.getMessage()}")


if __name__ == "__main__":
    handler = Lines()
    logging.getLogger("b10_transfer").addHandler(handler)
    logging.getLogger("b10_transfer").setLevel(logging.INFO)
    import b10_transfer

    operation = getattr(b10_transfer, sys.argv[1])
    report = operation(deadline_s=100)
    # Not getrusage: that counts the parent's memory at the fork, too.
    peak_kb = re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())
    assert peak_kb is not None
    print(json.dumps([report.status.name, int(peak_kb[1]) // 1024, report.units, handler.lines]))
