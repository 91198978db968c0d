"""``b10-compile-cache reinstate``."""

from __future__ import annotations

from datetime import datetime

import click

from ..concurrency.deadline import Deadline
from ..config import Config
from ..maintenance.recall import Marked, reinstate
from ..stores.base import Store
from . import words
from .console import ExitCode, deadline_option, json_option, store_options
from .recall import TIME, Verb, change_marks


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

    PACK is an id, or a unique beginning of one with 4 characters or more.

    --since reverts `recall` with the same time: it removes only the marks of recalls. On a terminal it shows the packs
    and asks first.
    """

    def change(opened: Store, config: Config, deadline: Deadline, pretend: bool) -> list[Marked]:
        return reinstate(opened, config, deadline, packs, since=since, pretend=pretend)

    change_marks(
        Verb("reinstate", "reinstated", "these packs have no mark"),
        change,
        packs=packs,
        since=since,
        yes=yes,
        dry_run=dry_run,
        store=store,
        namespace=namespace,
        deadline_s=deadline_s,
        as_json=as_json,
    )
    context.exit(ExitCode.OK)
