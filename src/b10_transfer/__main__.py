"""Where the command ``b10-compile-cache`` begins.

By itself it needs next to nothing: whatever is wrong with the rest of an installation, the server that ``run`` was
given starts.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Sequence

logger = logging.getLogger(__name__)

_WITH_VALUE = {"--store", "--namespace"}
"""Those of the options of ``run`` whose value may be the next argument."""


def main() -> None:
    """The command. A failure that it did not foresee, and that comes before it has started a server, starts that."""
    try:
        from .cli.main import main as command

        command()
    except Exception:
        server = server_of(sys.argv[1:])
        if not server:
            raise
        logger.exception("the caches cannot be looked after; the server starts without")
        _become(server)


def server_of(arguments: Sequence[str]) -> list[str]:
    """COMMAND and its arguments in ``run [OPTION]... [--] COMMAND [ARGUMENT]...``; empty for anything else."""
    if arguments[:1] != ["run"]:
        return []
    left = list(arguments[1:])
    while left and left[0].startswith("-"):
        option = left.pop(0)
        if option == "--":
            break
        if option in _WITH_VALUE:
            del left[:1]
    return left


def _become(server: list[str]) -> None:
    """Replace this process by a server. Exits as a shell does if it cannot be started."""
    for ignored_by_python in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(ignored_by_python, signal.SIG_DFL)
    try:
        os.execvp(server[0], server)
    except OSError as error:
        logger.error("%s cannot be started: %s", server[0], error.strerror)
        sys.exit(127 if isinstance(error, FileNotFoundError) else 126)


if __name__ == "__main__":
    main()
