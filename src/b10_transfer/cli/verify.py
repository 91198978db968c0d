"""``b10-compile-cache verify``."""

from __future__ import annotations

from collections.abc import Sequence

import click

from ..concurrency.deadline import Deadline
from ..config import Config
from ..environment import detect
from ..errors import StoreError, printable
from ..inspection.bounded import bounded, open_store
from ..maintenance.recall import mark_damaged
from ..repository.catalogue import LEAVING, PRUNED, RECALLED, SET_ASIDE, USABLE, Inventory, StoredPack, take_inventory
from ..repository.ignored import NOT_NAMED
from .console import (
    MOST_ROWS,
    ExitCode,
    count,
    deadline_option,
    json_option,
    one_namespace_option,
    print_json,
    print_more,
    progress,
    report_errors,
    set_up_logging,
    size,
)
from .tables import print_table

_SOUND = (USABLE, SET_ASIDE, RECALLED, "newer", NOT_NAMED, *LEAVING)
"""States that are not failures: loads ignore set aside and recalled packs already."""


@click.command("verify")
@click.option("--store", metavar="STORE", help="Directory or URL of the store. [B10_STORE]")
@one_namespace_option
@deadline_option
@json_option
@click.pass_context
def command(
    context: click.Context, store: str | None, namespace: str | None, deadline_s: float | None, as_json: bool
) -> None:
    """Check every byte of every pack in the store.

    Each byte is checked against the digests in the index of its pack, and the index against the signature.

    If B10_TRUSTED_KEYS is set, a pack that no trusted key signed fails, too. Damaged packs are marked, unless
    B10_READ_ONLY=1: the next save checks them, and publishes those of their units that its pod has. A large store needs
    a longer --deadline. Exits with 1 if a pack fails, or if the store does not exist.
    """
    set_up_logging()
    with report_errors(as_json=as_json), progress() as observe:

        def work(deadline: Deadline) -> Inventory:
            config = Config.from_environment(store=store, namespace=namespace)
            with open_store(config, deadline) as opened:
                only = None if namespace is None else config.namespace
                found = take_inventory(opened, detect(), config, deadline, only, verify_frames=True)
                if not found.exists:
                    raise StoreError("verify", found.store, "it does not exist; check B10_STORE or --store")
                if not config.read_only:
                    mark_damaged(opened, config, deadline, found)
                return found

        inventory = bounded("verify", work, deadline_s=deadline_s, observe=observe)
    every = [(found, pack) for found in inventory.environments for pack in found.packs]
    failed = [(found, pack) for found, pack in every if pack.state not in _SOUND]
    if as_json:
        print_json(inventory)
    else:
        if failed:
            shown = failed[-MOST_ROWS:]  # the newest
            rows = [(found.namespace, found.id, pack.id, f"{pack.state}: {pack.why}") for found, pack in shown]
            print_table(("NAMESPACE", "ENVIRONMENT", "PACK", "STATE"), rows, title=inventory.store)
            print_more(len(failed) - len(shown), "packs that fail; --json lists all")
        _print_sum([pack for _, pack in every], len(failed))
    for error in inventory.errors:
        click.echo(f"error: {printable(error)}", err=True)
    context.exit(ExitCode.ERROR if failed or inventory.errors else ExitCode.OK)


def _print_sum(packs: Sequence[StoredPack], failed: int) -> None:
    """Print one line: how many packs were read, and how many fail."""
    unread = [pack for pack in packs if pack.state in (SET_ASIDE, RECALLED, PRUNED, "newer")]
    number = len(packs) - len(unread)
    total = size(sum(pack.packed_bytes for pack in packs) - sum(pack.packed_bytes for pack in unread))
    if failed:
        result = "1 fails" if failed == 1 else f"{failed} fail"
    else:
        result = "every byte is as published" if number else "nothing to check"
    others = f"; {count(len(unread), 'other')}, marked or newer, not read" if unread else ""
    click.echo(f"{count(number, 'pack')}, {total}: {result}{others}")
