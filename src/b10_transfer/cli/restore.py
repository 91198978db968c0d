"""``b10-compile-cache restore``."""

from __future__ import annotations

import click

from ..concurrency.deadline import Deadline
from ..config import Config
from ..inspection.bounded import bounded, open_store
from ..maintenance.recall import Marked, reinstate
from .console import ExitCode, deadline_option, errors_told, json_option, print_json, progress, set_up_logging


@click.command("restore")
@click.argument("packs", nargs=-1, required=True, metavar="PACK...")
@click.option("--store", metavar="DIR", help="Where packs live. [B10_STORE]")
@deadline_option
@json_option
@click.pass_context
def command(
    context: click.Context, packs: tuple[str, ...], store: str | None, deadline_s: float | None, as_json: bool
) -> None:
    """Have packs count again that `quarantine` recalled, or that a save set aside as damaged.

    A damaged pack stays refused as long as it is damaged. (To put artifacts in place on a pod, use `load`.)
    """
    set_up_logging()
    with errors_told(as_json=as_json), progress() as observe:

        def work(deadline: Deadline) -> list[Marked]:
            config = Config.from_environment(store=store)
            with open_store(config, deadline) as opened:
                return reinstate(opened, config, deadline, packs)

        marked = bounded("restore", work, deadline_s=deadline_s, observe=observe)
    if as_json:
        print_json(marked)
    else:
        for one in marked:
            click.echo(f"{one.pack} of namespace {one.namespace}, environment {one.environment_id[:12]}: counts again")
        if not marked:
            click.echo("nothing to restore: what was named was not set aside")
    context.exit(ExitCode.OK)
