"""``b10-compile-cache run``."""

from __future__ import annotations

import os

import click

from ..launcher.commands import OnCompile, run
from ..launcher.monitor import Outputs
from .console import lenient_store_options, metrics_options, set_up_logging


@click.command("run", context_settings={"allow_interspersed_args": False})
@lenient_store_options
@click.option(
    "--instant/--no-instant",
    default=None,
    help="Skip tracing in a program that itself calls load and save. [B10_INSTANT]",
)
@click.option(
    "--require-hit", is_flag=True, help="Exit with 3, and do not start the server, if nothing could be restored."
)
@click.option(
    "--on-compile",
    type=click.Choice([choice.value for choice in OnCompile]),
    help="If the server compiles although everything was restored: log a warning, or stop it and exit with 4.",
)
@click.option("--report", metavar="FILE", help="Write a JSON summary to this file at the end.")
@metrics_options
@click.argument("server", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- COMMAND [ARGUMENT]...")
def command(
    store: str | None,
    namespace: str | None,
    instant: bool | None,
    require_hit: bool,
    on_compile: str | None,
    report: str | None,
    metrics_port: int | None,
    metrics_file: str | None,
    server: tuple[str, ...],
) -> None:
    """Restore the caches, run a server, save what it compiles.

    \b
        b10-compile-cache run -- vllm serve MODEL --port 8000

    The server gets the terminal, stdin and every signal. Its exit code is the exit code of this command (128 + n if
    signal n ended it). This command saves what the server compiled: when the server is ready, after it compiled new
    shapes, and after it has ended. It can be process 1 of a container. The server starts even if the caches fail.

    Two options are for pipelines and canaries: --require-hit fails a start that would compile everything, --on-compile
    finds compilations that the store does not cover.
    """
    if instant is not None:
        os.environ["B10_INSTANT"] = str(int(instant))  # for the server: this process compiles nothing
    set_up_logging()
    watch = None if on_compile is None else OnCompile(on_compile)
    outputs = Outputs(report, metrics_port, metrics_file)
    code = run(server, namespace=namespace, store=store, require_hit=require_hit, on_compile=watch, outputs=outputs)
    # Exit at once: on a normal exit the interpreter can hang or abort because of a thread that a deadline abandoned.
    os._exit(code)
