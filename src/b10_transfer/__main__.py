"""Entry point of the command ``b10-compile-cache``.

This module imports almost nothing, so that ``run`` starts its server even if the rest of the installation is broken.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
from collections.abc import Sequence

logger = logging.getLogger(__name__)

_WITH_VALUE = {"--store", "--namespace", "--on-compile", "--report", "--metrics-port", "--metrics-file"}
"""Options of ``run`` whose value is the next argument."""


def main() -> None:
    """Run the command. If ``run`` fails unexpectedly before it has started its server, start the server."""
    try:
        from .cli.main import main as command

        command()
    except Exception:
        server = server_of(sys.argv[1:])
        if not server or requires_hit(sys.argv[1:], server):
            raise
        logger.exception("the caches cannot be used; starting the server without them")
        _become(server)
    finally:
        gc.freeze()  # or the interpreter's end looks through all objects again, which takes a tenth of a load


def server_of(arguments: Sequence[str]) -> list[str]:
    """Find COMMAND and its arguments in ``run [OPTION]... [--] COMMAND [ARGUMENT]...``; empty for other commands."""
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


def requires_hit(arguments: Sequence[str], server: Sequence[str]) -> bool:
    """Whether ``run`` has the option that starts the server only after a hit."""
    return "--require-hit" in arguments[: len(arguments) - len(server)]


def _become(server: list[str]) -> None:
    """Replace this process by a server. If it cannot start, exit with the code that a shell uses."""
    for ignored_by_python in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(ignored_by_python, signal.SIG_DFL)
    try:
        os.execvp(server[0], server)
    except OSError as error:
        logger.error("%s cannot be started: %s", server[0], error.strerror)
        import shutil

        # A folder of PATH that cannot be searched turns "does not exist" into "permission denied".
        is_missing = "/" not in server[0] and shutil.which(server[0], os.F_OK) is None
        sys.exit(127 if is_missing or isinstance(error, FileNotFoundError) else 126)


if __name__ == "__main__":
    main()
