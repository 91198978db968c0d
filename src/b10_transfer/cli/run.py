"""``b10-compile-cache run``."""

from __future__ import annotations

import logging
import os
import signal
import sys

import click

from .console import set_up_logging, store_options

logger = logging.getLogger("b10_transfer.cli")


@click.command("run", context_settings={"allow_interspersed_args": False})
@store_options
@click.option(
    "--instant/--no-instant",
    default=None,
    help="A program that calls load and save itself skips Dynamo's tracing, too. [B10_INSTANT]",
)
@click.argument("server", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- COMMAND [ARGUMENT]...")
def command(store: str | None, namespace: str | None, instant: bool | None, server: tuple[str, ...]) -> None:
    """Restore the caches, then run a server and keep what it compiles.

    \b
        b10-compile-cache run -- vllm serve MODEL --port 8000

    The server has the terminal, stdin and every signal, and its exit code is this command's (128 + n if signal n ended
    it). Once it serves, what it has compiled is saved, later whatever it compiles for new shapes, and the rest when it
    has ended. It may be process 1 of a container. Whatever goes wrong with the caches, the server starts.
    """
    if instant is not None:
        os.environ["B10_INSTANT"] = str(int(instant))  # for the server: this process compiles nothing
    try:
        set_up_logging()
        from ..launcher.commands import run
    except Exception:  # a broken installation of ours is no reason for the server not to start
        logger.exception("the caches cannot be looked after; the server starts without")
        _become(server)
    code = run(server, namespace=namespace, store=store)
    # At once: an interpreter that winds up can hang on, or abort over, a thread that a deadline has left behind, and
    # the exit code is the server's.
    os._exit(code)


def _become(server: tuple[str, ...]) -> None:
    """Replace this process by the server. Exits as a shell does if it cannot be started."""
    for ignored_by_python in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(ignored_by_python, signal.SIG_DFL)
    try:
        os.execvp(server[0], server)
    except OSError as error:
        logger.error("%s cannot be started: %s", server[0], error.strerror)
        sys.exit(127 if isinstance(error, FileNotFoundError) else 126)
