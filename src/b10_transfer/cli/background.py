"""``b10-compile-cache`` without a subcommand, in the background of a server."""

from __future__ import annotations

import os

from ..launcher.commands import keep_beside
from .console import set_up_logging


def background() -> int:
    """Restore, look after the server that is started beside, and end with it. The process ends here."""
    set_up_logging()
    code = keep_beside()
    # At once, like ``run``: an interpreter that winds up can hang on, or abort over, a thread that was left behind.
    os._exit(code)
