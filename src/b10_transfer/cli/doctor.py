"""``b10-compile-cache doctor``."""

from __future__ import annotations

import click

from ..errors import printable
from ..inspection.checks import Check, State
from ..inspection.doctor import diagnose
from .console import (
    ExitCode,
    deadline_option,
    json_option,
    print_hanging,
    print_json,
    progress,
    report_errors,
    set_up_logging,
    store_options,
)

_COLOURS = {State.OK: "green", State.WARNING: "yellow", State.PROBLEM: "red"}


@click.command("doctor")
@store_options
@deadline_option
@json_option
@click.pass_context
def command(
    context: click.Context, store: str | None, namespace: str | None, deadline_s: float | None, as_json: bool
) -> None:
    """Check settings, store, directories and key; say what to do.

    To check the store, it creates some small objects, reads and lists them, and deletes them. It also measures latency,
    free space and the store's clock. A store that this pod may not write is only a warning: a pod that only loads does
    not need to.

    Each line is `ok`, `warning` (loads and saves work, but perhaps not well) or `problem`. Exits with 1 if there is a
    problem, else with 0.
    """
    set_up_logging()
    with report_errors(as_json=as_json):
        with progress() as observe:
            found = diagnose(namespace=namespace, store=store, deadline_s=deadline_s, observe=observe)
        if as_json:
            print_json(found)
        else:
            width = max(len(check.name) for check in found.checks)
            for check in found.checks:
                _print(check, width)
    context.exit(ExitCode.OK if found.healthy else ExitCode.ERROR)


def _print(check: Check, width: int) -> None:
    state = click.style(check.state.value.ljust(7), fg=_COLOURS[check.state])
    print_hanging(f"{state}  {check.name.ljust(width)}  ", printable(check.seen))
    if check.advice:
        print_hanging(f"{'':7}  {'':{width}}  -> ", printable(check.advice))
