"""``b10-compile-cache`` without a subcommand, in the background of a server."""

from __future__ import annotations

import os

from ..launcher.commands import keep_beside
from ..launcher.monitor import Outputs
from .console import set_up_logging


def background(metrics_port: int | None = None, metrics_file: str | None = None) -> int:
    """Restore, save what an external server compiles, and end with that server. This ends the process."""
    set_up_logging()
    code = keep_beside(outputs=Outputs(None, metrics_port, metrics_file))
    # Exit at once, like ``run``: a thread that a deadline abandoned can make a normal exit hang or abort.
    os._exit(code)
