"""``b10-compile-cache save``."""

from __future__ import annotations

import click

from ..operations.public import save
from .console import ExitCode, deadline_option, json_option, print_json, progress, set_up_logging, store_options


@click.command("save")
@store_options
@deadline_option
@json_option
@click.pass_context
def command(
    context: click.Context, store: str | None, namespace: str | None, deadline_s: float | None, as_json: bool
) -> None:
    """Publish compile artifacts that the store does not have.

    Call it after the model has compiled. A pack is published completely or not at all. Exits with 0 if artifacts were
    published or nothing was new, and with 1 on failure.
    """
    set_up_logging()
    with progress() as observe:
        report = save(namespace=namespace, store=store, deadline_s=deadline_s, observe=observe)
    if as_json:
        print_json(report)
    context.exit(ExitCode.of(report.status))
