"""The process that ``load_compile_cache(autosave=True)`` starts.

It reads from stdin what the load did. Its stderr is its log.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from ..launcher.commands import keep_for_programs
from ..local.supervision import Supervision
from ..operations.autosave import Loaded
from .console import set_up_logging

_LONGEST_LOG_BYTES = 1024 * 1024


def main() -> None:
    """Save what programs compile, and end with the last of them. This ends the process.

    ``sys.argv`` ends with the folder and the name of the set of caches.
    """
    folder, name = sys.argv[-2:]
    loaded = Loaded.from_json(sys.stdin.buffer.read())
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)  # its memory is free now
    os.close(nothing)
    if os.fstat(2).st_size > _LONGEST_LOG_BYTES:
        os.ftruncate(2, 0)
    set_up_logging()
    code = keep_for_programs(Supervision(Path(folder), name), loaded)
    # Exit at once, like ``run``: a thread that a deadline abandoned can make a normal exit hang or abort.
    os._exit(code)
