"""``b10-compile-cache recall``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import NamedTuple

import click

from ..concurrency.deadline import Deadline
from ..config import Config
from ..inspection.bounded import bounded, open_store
from ..maintenance.recall import Marked, recall
from ..stores.base import Store
from . import words
from .console import (
    ExitCode,
    count,
    deadline_option,
    json_option,
    print_json,
    progress,
    report_errors,
    set_up_logging,
    store_options,
)

TIME = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"])


@click.command("recall")
@click.argument("packs", nargs=-1, metavar="[PACK]...", shell_complete=words.packs)
@click.option(
    "--since",
    type=TIME,
    metavar="TIME",
    help="Also every pack published to the namespace since 2026-11-23 or 2026-11-23T14:00 (local time).",
)
@click.option("--dry-run", is_flag=True, help="Only show which packs would be recalled.")
@click.option("--yes", is_flag=True, help="With --since: do not ask on a terminal.")
@click.option("--why", default="", metavar="TEXT", help="The reason, shown wherever the pack's state is.")
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
    why: str,
    store: str | None,
    namespace: str | None,
    deadline_s: float | None,
    as_json: bool,
) -> None:
    """Recall packs: loads ignore them. Use it to go back to a known good state.

    \b
        b10-compile-cache ls --packs
        b10-compile-cache recall 019a7c3e51d2-0c5d6a7be8f90123
        b10-compile-cache recall --since 2026-11-23T14:00 --why "canary failed"

    No pack is deleted. Pods that start from now on do not restore these packs. A pod that restored one earlier does not
    publish its content again, but still runs it: restart that pod. `reinstate` undoes a recall.
    The mark names the user and the host that made it.

    PACK is an id, or a unique beginning of one with 4 characters or more.

    On a terminal, --since shows the packs and asks first.
    """

    def change(opened: Store, config: Config, deadline: Deadline, pretend: bool) -> list[Marked]:
        return recall(opened, config, deadline, packs=packs, since=since, why=why, pretend=pretend)

    change_marks(
        Verb("recall", "recalled", "these packs are recalled already"),
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


class Verb(NamedTuple):
    """What a command does to packs, in words."""

    name: str
    done: str
    """Its participle."""
    why_nothing: str
    """Why there may be nothing to do."""


def change_marks(
    verb: Verb,
    change: Callable[[Store, Config, Deadline, bool], list[Marked]],
    *,
    packs: Sequence[str],
    since: datetime | None,
    yes: bool,
    dry_run: bool,
    store: str | None,
    namespace: str | None,
    deadline_s: float | None,
    as_json: bool,
) -> None:
    """Change the marks of packs, and print what was done.

    Args:
        verb: The command.
        change: Makes the change, or with true as its last argument only finds out what it would be.
        packs: The packs that were named.
        since: The time from which packs are changed; None without ``--since``.
        yes: Whether not to ask: otherwise, with ``since``, this shows the packs on a terminal and asks first.
        dry_run: Whether to change nothing.
        store: Overrides ``B10_STORE``.
        namespace: Overrides ``B10_NAMESPACE``.
        deadline_s: Overrides ``B10_DEADLINE_SECONDS``.
        as_json: Whether to print JSON.

    Raises:
        UsageError: Neither packs nor a time is given.
    """
    if not packs and since is None:
        raise click.UsageError("name packs, or use --since")
    set_up_logging()

    def do(*, pretend: bool) -> list[Marked]:
        def work(deadline: Deadline) -> list[Marked]:
            config = Config.from_environment(store=store, namespace=namespace)
            with open_store(config, deadline) as opened:
                return change(opened, config, deadline, pretend)

        with report_errors(as_json=as_json), progress() as observe:
            return bounded(verb.name, work, deadline_s=deadline_s, observe=observe)

    if since is not None and not (yes or dry_run or as_json) and sys.stdin.isatty():
        found = do(pretend=True)
        _print_marked(found, f"to be {verb.done}", err=True)
        if found:
            click.confirm(f"{verb.name.capitalize()} {count(len(found), 'pack')}?", abort=True, err=True)
    marked = do(pretend=dry_run)
    if as_json:
        print_json(marked)
        return
    _print_marked(marked, f"would be {verb.done}" if dry_run else verb.done)
    if not marked:
        click.echo(f"nothing to {verb.name}: {verb.why_nothing}")


def _print_marked(packs: list[Marked], state: str, *, err: bool = False) -> None:
    for one in packs:
        click.echo(f"{one.pack} of namespace {one.namespace}, environment {one.environment_id}: {state}", err=err)
