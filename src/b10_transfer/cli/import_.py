"""``b10-compile-cache import``."""

from __future__ import annotations

from pathlib import Path

import click

from ..concurrency.deadline import Deadline
from ..config import Config
from ..inspection.bounded import bounded, open_store
from ..maintenance.export import CopyResult, import_
from .console import (
    ExitCode,
    deadline_option,
    json_option,
    print_copied,
    print_json,
    progress,
    report_errors,
    set_up_logging,
)


@click.command("import")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--store", metavar="STORE", help="Directory or URL of the store. [B10_STORE]")
@click.option("--replace-damaged", is_flag=True, help="Replace packs that are damaged in the store.")
@deadline_option
@json_option
@click.pass_context
def command(
    context: click.Context,
    file: Path,
    store: str | None,
    replace_damaged: bool,
    deadline_s: float | None,
    as_json: bool,
) -> None:
    """Publish the packs in FILE, which `export` wrote.

    Packs keep their namespace, environment and id, and so their signatures. Each pack is verified as in a load
    (B10_TRUSTED_KEYS). If the store already has a valid copy, nothing is done. If a pack fails verification, or is
    damaged, recalled or pruned in the store, it is named and the exit code is 1.
    """
    set_up_logging()
    with report_errors(as_json=as_json), progress() as observe:

        def work(deadline: Deadline) -> list[CopyResult]:
            config = Config.from_environment(store=store)
            with open_store(config, deadline) as opened:
                return import_(file.absolute(), opened, config, deadline, replace_damaged=replace_damaged)

        results = bounded("import", work, deadline_s=deadline_s, observe=observe)
    if as_json:
        print_json(results)
    else:
        print_copied(results, "to the store")
    context.exit(ExitCode.OK if all(one.is_done for one in results) else ExitCode.ERROR)
