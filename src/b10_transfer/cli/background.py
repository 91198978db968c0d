"""``b10-compile-cache`` without a subcommand, in the background of a server."""

from __future__ import annotations

import os

from ..launcher.commands import keep_beside
from .console import set_up_logging


def background() -> int:
    """Restore, save what an external server compiles, and end with that server. This ends the process."""
    set_up_logging()
    code = keep_beside()
    # Exit at once, like ``run``: a thread that a deadline abandoned can make a normal exit hang or abort.
    os._exit(code)
