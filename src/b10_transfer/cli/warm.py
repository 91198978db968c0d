"""``b10-compile-cache warm``."""

from __future__ import annotations

import os

import click

from .console import set_up_logging, store_options


@click.command("warm", context_settings={"allow_interspersed_args": False})
@store_options
@click.option(
    "--exercise",
    "exercises",
    multiple=True,
    metavar="COMMAND",
    help="A shell command that sends requests to the server at $B10_SERVER_URL. May be repeated.",
)
@click.option("--verify", is_flag=True, help="Start the server again with empty caches; exit with 4 if it compiles.")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0, min_open=True),
    default=3600,
    show_default=True,
    metavar="SECONDS",
    help="Time limit of the whole command.",
)
@click.argument("server", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- COMMAND [ARGUMENT]...")
def command(
    store: str | None,
    namespace: str | None,
    exercises: tuple[str, ...],
    verify: bool,
    timeout_s: float,
    server: tuple[str, ...],
) -> None:
    """Compile before a rollout: run a server until the store holds everything that it compiles.

    \b
        b10-compile-cache warm --verify --exercise ./requests.sh -- vllm serve MODEL

    It restores the caches, starts the server, waits until the server answers, runs each exercise, waits until nothing
    is compiled any more, stops the server and saves. A program that is no known server is run until it ends. Do not
    run this on the caches of a server that serves.

    \b
    Exit codes:
        0  the store holds everything      3  nothing was compiled, and the store has nothing
        1  failed; stderr says why         4  a new replica would compile; stderr lists what
        2  wrong usage
    """
    from ..launcher.warm import Warmer

    set_up_logging()
    warmer = Warmer(server, exercises, timeout_s, namespace=namespace, store=store)
    if exercises and warmer.url is None:
        raise click.UsageError("--exercise needs a server whose address is known: set B10_TRANSFER_VLLM_URL")
    code = warmer.warm(verify=verify)
    # Exit at once, like `run`: a thread that a deadline abandoned can make a normal exit hang or abort.
    os._exit(code)
