"""``b10-compile-cache prune``."""

from __future__ import annotations

import re
import sys
from collections.abc import Collection
from dataclasses import replace

import click

from ..concurrency.deadline import Deadline
from ..config import Config
from ..errors import printable
from ..inspection.bounded import bounded, open_store
from ..maintenance.prune import DELETE, MARK, Pruning, Rules, prune
from .console import (
    ExitCode,
    count,
    deadline_option,
    json_option,
    one_namespace_option,
    print_json,
    progress,
    report_errors,
    set_up_logging,
    size,
)
from .tables import print_table


class _Amount(click.ParamType):  # type: ignore[type-arg]
    """A number with a unit."""

    def __init__(self, name: str, units: dict[str, int]) -> None:
        self.name = name
        self._units = units

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> int:
        found = re.fullmatch(r"(\d{1,9})\s*([A-Za-z]+)", value, re.ASCII)
        if found is None or found[2] not in self._units:
            self.fail(f"{value!r} is not a whole number with one of the units {', '.join(self._units)}", param, ctx)
        return int(found[1]) * self._units[found[2]]


_AGE = _Amount("age", {"s": 1, "min": 60, "h": 3600, "d": 86400, "w": 7 * 86400})
_SIZE = _Amount("size", {"MB": 10**6, "GB": 10**9, "TB": 10**12, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40})


@click.command("prune")
@click.option("--older-than", "older_than_s", type=_AGE, metavar="AGE", help="Packs that are older: 30d, 12h.")
@click.option(
    "--unused-for", "unused_for_s", type=_AGE, metavar="AGE", help="Packs that no pod has used for so long: 30d."
)
@click.option("--keep", type=click.IntRange(0), metavar="N", help="In each environment all packs except the latest N.")
@click.option("--max-size", type=_SIZE, metavar="SIZE", help="Packs used longest ago, until the rest fits: 500MB.")
@click.option(
    "--grace", type=click.IntRange(0), metavar="SECONDS", help="How long marked packs stay. [B10_GRACE_SECONDS]"
)
@click.option("--store", metavar="STORE", help="Directory or URL of the store. [B10_STORE]")
@one_namespace_option
@click.option("-n", "--dry-run", is_flag=True, help="Only show the packs and the reasons.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@deadline_option
@json_option
@click.pass_context
def command(
    context: click.Context,
    older_than_s: int | None,
    unused_for_s: int | None,
    keep: int | None,
    max_size: int | None,
    grace: int | None,
    store: str | None,
    namespace: str | None,
    dry_run: bool,
    yes: bool,
    deadline_s: float | None,
    as_json: bool,
) -> None:
    """Delete packs from the store by last use, age, number or total size.

    \b
        b10-compile-cache prune --unused-for 30d --dry-run
        b10-compile-cache prune --older-than 90d --max-size 20GB

    A pack that a rule selects is marked first: loads and saves ignore it at once. A later prune or save deletes it,
    after a grace period, so that a load that is reading it can complete. Until then `reinstate` undoes it. Prune also
    deletes packs that earlier prunes marked, packs that were merged, and leftovers of killed saves; without a rule it
    does only that. The age of a pack is the time since it was published.

    A load or save records that the packs of its environment are used, unless its pod is read-only. Without any record,
    --unused-for selects nothing in an environment. Do not use it if pods of an environment only read.

    Prune shows what it will delete and asks on a terminal; elsewhere it needs --yes. Exits with 0 if it is done or
    there was nothing to do, with 1 if something could not be deleted, and with 2 if --yes is missing.
    """
    set_up_logging()
    rules = Rules(older_than_s, keep, max_size, unused_for_s)

    def run(*, pretend: bool, only: Collection[str] | None = None) -> Pruning:
        def work(deadline: Deadline) -> Pruning:
            config = Config.from_environment(store=store, namespace=namespace)
            if grace is not None:
                config = replace(config, grace_s=grace)
            with open_store(config, deadline) as opened:
                only_in = None if namespace is None else config.namespace
                return prune(opened, config, deadline, rules, namespace=only_in, only=only, pretend=pretend)

        with progress() as observe:
            return bounded("prune", work, deadline_s=deadline_s, observe=observe)

    with report_errors(as_json=as_json):
        pruning = run(pretend=True)
        if not dry_run:
            marked = [pack.pack for pack in pruning.packs if pack.action == MARK]
            if marked and not yes:
                _print(pruning, err=True)
                _confirm(len(marked))
            pruning = run(pretend=False, only=marked)
    if as_json:
        print_json(pruning)
    else:
        _print(pruning)
        _print_sum(pruning, dry_run)
    for error in pruning.errors:
        click.echo(f"error: {printable(error)}", err=True)
    context.exit(ExitCode.ERROR if pruning.errors else ExitCode.OK)


def _confirm(packs: int) -> None:
    """Ask on a terminal. Elsewhere, raise UsageError."""
    if not sys.stdin.isatty():
        raise click.UsageError("without a terminal, removing packs from the store needs --yes")
    click.confirm(f"Remove {count(packs, 'pack')}, for every pod that shares the store?", abort=True, err=True)


def _print(pruning: Pruning, *, err: bool = False) -> None:
    if pruning.packs:
        rows = [
            (pack.namespace, pack.environment_id, pack.pack, size(pack.packed_bytes), pack.action, pack.why)
            for pack in pruning.packs
        ]
        headings = ("NAMESPACE", "ENVIRONMENT", "PACK", "SIZE", "ACTION", "WHY")
        print_table(headings, rows, title=pruning.store, err=err)


def _print_sum(pruning: Pruning, dry_run: bool) -> None:
    would = "would be " if dry_run else ""
    marked = [pack for pack in pruning.packs if pack.action == MARK]
    deleted = [pack for pack in pruning.packs if pack.action == DELETE]
    stay = "stays" if pruning.kept_packs == 1 else "stay"
    click.echo(
        f"{count(len(marked), 'pack')} {would}marked, {count(len(deleted), 'pack')} {would}deleted "
        f"({size(sum(pack.packed_bytes for pack in deleted))}); "
        f"{count(pruning.kept_packs, 'pack')} {stay} ({size(pruning.kept_bytes)})"
    )
