"""``b10-compile-cache reinstate``."""

from __future__ import annotations

import sys
from datetime import datetime

import click

from ..concurrency.deadline import Deadline
from ..config import Config
from ..inspection.bounded import bounded, open_store
from ..maintenance.recall import Marked, reinstate
from . import words
from .console import (
    ExitCode,
    deadline_option,
    json_option,
    print_json,
    progress,
    report_errors,
    set_up_logging,
    store_options,
)
from .recall import TIME, confirm, print_marked


@click.command("reinstate")
@click.argument("packs", nargs=-1, metavar="[PACK]...", shell_complete=words.packs)
@click.option(
    "--since",
    type=TIME,
    metavar="TIME",
    help="Also every recalled pack published to the namespace since 2026-11-23 or 2026-11-23T14:00 (local time).",
)
@click.option("--dry-run", is_flag=True, help="Only show which packs would be reinstated.")
@click.option("--yes", is_flag=True, help="With --since: do not ask on a terminal.")
@store_options
@deadline_option
@json_option
@click.pass_context
def command(
    context: click.Context,
    packs: tuple[str, ...],
    since: datetime | None,
    dry_run: bool,
    yes: bool,
    store: str | None,
    namespace: str | None,
    deadline_s: float | None,
    as_json: bool,
) -> None:
    """Undo `recall` and `prune`: use marked packs again.

    It removes the marks of packs that were recalled or pruned, or that a save found damaged. Loads still ignore a pack
    that is really damaged.

    --since reverts `recall` with the same time: it removes only the marks of recalls. On a terminal it shows the packs
    and asks first.
    """
    if not packs and since is None:
        raise click.UsageError("name packs, or use --since")
    set_up_logging()

    def do(*, pretend: bool) -> list[Marked]:
        def work(deadline: Deadline) -> list[Marked]:
            config = Config.from_environment(store=store, namespace=namespace)
            with open_store(config, deadline) as opened:
                return reinstate(opened, config, deadline, packs, since=since, pretend=pretend)

        with report_errors(as_json=as_json), progress() as observe:
            return bounded("reinstate", work, deadline_s=deadline_s, observe=observe)

    if since is not None and not (dry_run or yes or as_json) and sys.stdin.isatty():
        confirm(do(pretend=True), "reinstate")
    marked = do(pretend=dry_run)
    if as_json:
        print_json(marked)
    else:
        print_marked(marked, "would be reinstated" if dry_run else "reinstated")
        if not marked:
            click.echo("nothing to reinstate: these packs have no mark")
    context.exit(ExitCode.OK)
