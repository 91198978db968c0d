"""The priority of threads."""

from __future__ import annotations

import os
import threading
from contextlib import suppress


def lower_priority() -> None:
    """Lower the priority of the calling thread, and of the threads and processes that it starts (Linux)."""
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)
