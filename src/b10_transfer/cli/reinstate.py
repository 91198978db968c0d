"""``b10-compile-cache reinstate``."""

from __future__ import annotations

import click

from ..concurrency.deadline import Deadline
from ..config import Config
from ..inspection.bounded import bounded, open_store
from ..maintenance.recall import Marked, reinstate
from .console import ExitCode, deadline_option, json_option, print_json, progress, report_errors, set_up_logging


@click.command("reinstate")
@click.argument("packs", nargs=-1, required=True, metavar="PACK...")
@click.option("--store", metavar="DIR", help="Where packs are stored. [B10_STORE]")
@deadline_option
@json_option
@click.pass_context
def command(
    context: click.Context, packs: tuple[str, ...], store: str | None, deadline_s: float | None, as_json: bool
) -> None:
    """Undo `recall` and `prune`: use marked packs again.

    It removes the marks of packs that were recalled or pruned, or that a save found damaged. Loads still ignore a pack
    that is really damaged.
    """
    set_up_logging()
    with report_errors(as_json=as_json), progress() as observe:

        def work(deadline: Deadline) -> list[Marked]:
            config = Config.from_environment(store=store)
            with open_store(config, deadline) as opened:
                return reinstate(opened, config, deadline, packs)

        marked = bounded("reinstate", work, deadline_s=deadline_s, observe=observe)
    if as_json:
        print_json(marked)
    else:
        for one in marked:
            click.echo(f"{one.pack} of namespace {one.namespace}, environment {one.environment_id}: reinstated")
        if not marked:
            click.echo("nothing to reinstate: these packs have no mark")
    context.exit(ExitCode.OK)
