"""The list of subcommands, and the command without a subcommand."""

from __future__ import annotations

import os
from difflib import get_close_matches
from importlib import import_module

import click

from ..version import __version__

COMMANDS = (
    "run",
    "warm",
    "load",
    "save",
    "ls",
    "info",
    "stats",
    "explain",
    "doctor",
    "clear",
    "prune",
    "verify",
    "recall",
    "reinstate",
    "export",
    "import",
    "keygen",
    "completion",
)
"""In the order of ``--help``. Each is a module of this package that has a click command named ``command``."""
_MODULES = {"import": "import_"}
"""Modules whose command has a name that is a keyword in Python."""
_OLD_NAMES = {"quarantine": "recall", "restore": "reinstate"}
"""Old names. They work, but ``--help`` does not list them."""


class _LazyGroup(click.Group):
    """Imports the module of a subcommand only when it is used, because ``load`` must start fast."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the subcommand. For a mistyped one, suggest what was probably meant."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            if args and "Did you mean" not in error.message and (near := get_close_matches(args[0], COMMANDS, n=2)):
                raise click.UsageError(f"{error.message} Did you mean {' or '.join(near)}?", ctx) from error
            raise

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if new_name := _OLD_NAMES.get(cmd_name):
            click.echo(f"`{cmd_name}` is an old name of `{new_name}`", err=True)
            cmd_name = new_name
        if cmd_name not in COMMANDS:
            return None
        command = import_module(f".{_MODULES.get(cmd_name, cmd_name)}", __package__).command
        assert isinstance(command, click.Command)
        return command


@click.group(cls=_LazyGroup, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="b10-compile-cache")
@click.option("--metrics-port", type=click.IntRange(1, 65535), metavar="PORT", help="Serve metrics for Prometheus.")
@click.option("--metrics-file", metavar="FILE", help="Keep metrics in this file, for node_exporter.")
@click.pass_context
def main(context: click.Context, metrics_port: int | None, metrics_file: str | None) -> None:
    """Keep compile caches in a shared store, so that the next replica starts warm.

    \b
    Recommended: let this command restore the caches and start the server.
        b10-compile-cache run -- vllm serve MODEL

    \b
    If something else starts the server, run this command in the background, without a subcommand.
    It restores, waits until the server is ready, saves new artifacts, and ends with the server.
        b10-compile-cache &
        vllm serve MODEL

    The store is B10_STORE: a directory on a shared volume, or a bucket. Default: /cache/model/compile_cache; without
    /cache/model, a directory in the home, which is not shared.

    \b
    Exit codes of load, save, ls, info, explain and doctor:
        0  done, or nothing to do         2  wrong usage
        1  failed; stderr says why        3  the store has nothing for this pod
    """
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        context.color = False
    if context.invoked_subcommand is None:
        from .background import background

        context.exit(background(metrics_port, metrics_file))
    if metrics_port is not None or metrics_file is not None:
        raise click.UsageError("write --metrics-port and --metrics-file after `run`, or use no subcommand")
