"""``b10-compile-cache`` without a subcommand, in the background of a server."""

from __future__ import annotations

from ..launcher.commands import keep_beside
from .console import set_up_logging


def background() -> int:
    """Restore, look after the server that is started beside, and end with it."""
    set_up_logging()
    return keep_beside()
