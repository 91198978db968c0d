"""``b10-compile-cache import``."""

from __future__ import annotations

from pathlib import Path

import click

from ..concurrency.deadline import Deadline
from ..config import Config
from ..inspection.bounded import bounded, open_store
from ..maintenance.export import Carried, import_
from .console import (
    ExitCode,
    deadline_option,
    json_option,
    print_carried,
    print_json,
    progress,
    report_errors,
    set_up_logging,
)


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--store", metavar="DIR", help="Where packs live. [B10_STORE]")
@deadline_option
@json_option
@click.pass_context
def command(context: click.Context, file: Path, store: str | None, deadline_s: float | None, as_json: bool) -> None:
    """Publish what FILE holds, which `export` has written, in the store.

    Packs keep their namespace, environment and id, and so their signatures. Each is checked as a load checks it
    (B10_TRUSTED_KEYS); one that fails stays out, and the exit code is 1. What is there already stays.
    """
    set_up_logging()
    with report_errors(as_json=as_json), progress() as observe:

        def work(deadline: Deadline) -> list[Carried]:
            config = Config.from_environment(store=store)
            with open_store(config, deadline) as opened:
                return import_(file.absolute(), opened, config, deadline)

        carried = bounded("import", work, deadline_s=deadline_s, observe=observe)
    if as_json:
        print_json(carried)
    else:
        print_carried(carried, "to the store")
    failed = any(one.state not in ("copied", "there already") for one in carried)
    context.exit(ExitCode.ERROR if failed else ExitCode.OK)
