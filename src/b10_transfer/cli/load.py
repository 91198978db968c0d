"""``b10-compile-cache load``."""

from __future__ import annotations

import click

from ..config import read_deadline
from ..operations.public import exit_warning, load
from ..operations.rest import wait_for_rest
from .console import ExitCode, deadline_option, json_option, print_json, progress, set_up_logging, store_options


@click.command("load")
@store_options
@deadline_option
@click.option(
    "--merge/--no-merge", default=None, help="Add missing units to caches that already have artifacts. [B10_MERGE]"
)
@json_option
@click.pass_context
def command(
    context: click.Context,
    store: str | None,
    namespace: str | None,
    deadline_s: float | None,
    merge: bool | None,
    as_json: bool,
) -> None:
    """Restore saved compile artifacts, before anything compiles.

    Exits with 0 if artifacts were restored, or if this pod already has some; with 3 if the store has none for this pod
    (`explain` says why); and with 1 on failure. In an init container, ignore the exit code so that the pod always
    starts:

    \b
        b10-compile-cache load || true
    """
    set_up_logging()
    with progress() as observe:
        report = load(
            namespace=namespace,
            store=store,
            merge=merge,
            deadline_s=deadline_s,
            instant=False,
            autosave=False,
            observe=observe,
        )
    if report.rest:  # this process ends now
        wait_for_rest(read_deadline(deadline_s) - report.seconds)
    exit_warning.forget()
    if as_json:
        print_json(report)
    context.exit(ExitCode.of(report.status))
