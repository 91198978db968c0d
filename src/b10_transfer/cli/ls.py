"""``b10-compile-cache ls``."""

from __future__ import annotations

import time

import click

from ..concurrency.deadline import Deadline
from ..config import Config
from ..environment import detect
from ..errors import printable
from ..inspection.bounded import bounded, open_store
from ..repository.catalogue import LEAVING, USABLE, Inventory, StoredEnvironment, StoredPack, take_inventory
from .console import (
    MOST_ROWS,
    ExitCode,
    age,
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


@click.command("ls")
@click.option("--store", metavar="STORE", help="Directory or URL of the store. [B10_STORE]")
@one_namespace_option
@click.option("--packs", "by_pack", is_flag=True, help="Print a line for each pack.")
@deadline_option
@json_option
@click.pass_context
def command(
    context: click.Context,
    store: str | None,
    namespace: str | None,
    by_pack: bool,
    deadline_s: float | None,
    as_json: bool,
) -> None:
    """List the environments in the store, or with --packs each pack.

    An environment is everything that must be equal for artifacts to be reusable: torch, Triton, Python, the C library,
    the CPU's features, the device. A pod loads from its own environment, which is marked `this pod`, in its own
    namespace. If that has nothing, it loads GPU kernels from environments that differ only in the CPU's features and
    the C library. SIZE is the size of the packs; FILES counts the files in them. USED is the last load or save of a pod
    that may write; it is recorded once a day.

    This reads only the index of each pack. `verify` reads every byte. Exits with 0, also if the store is empty, and
    with 1 if the store or an environment in it could not be read.
    """
    set_up_logging()
    with report_errors(as_json=as_json), progress() as observe:

        def work(deadline: Deadline) -> Inventory:
            config = Config.from_environment(store=store, namespace=namespace)
            with open_store(config, deadline) as opened:
                only = None if namespace is None else config.namespace
                return take_inventory(opened, detect(), config, deadline, only)

        inventory = bounded("ls", work, deadline_s=deadline_s, observe=observe)
    if as_json:
        print_json(inventory)
    elif not inventory.environments and not inventory.errors:
        click.echo(_nothing(inventory, namespace))
    elif by_pack:
        _print_packs(inventory)
    else:
        _print_environments(inventory)
    for error in inventory.errors:
        click.echo(f"error: {printable(error)}", err=True)
    context.exit(ExitCode.ERROR if inventory.errors else ExitCode.OK)


def _nothing(inventory: Inventory, namespace: str | None) -> str:
    if not inventory.exists:
        return f"{inventory.store} does not exist yet"
    if namespace is None:
        return f"{inventory.store} holds no packs"
    others = ", ".join(inventory.namespaces) or "none"
    return f"no packs in namespace {namespace}; namespaces in {inventory.store}: {others}"


def _print_environments(inventory: Inventory) -> None:
    now = time.time()
    rows = [
        (
            found.namespace,
            found.id,
            _main_parts(found),
            _packs(found),
            str(found.units),
            str(found.files),
            size(found.packed_bytes),
            _ago(now, found.newest_s),
            _ago(now, found.used_s),
            "this pod" if found.this_pod else "",
        )
        for found in inventory.environments
    ]
    headings = ("NAMESPACE", "ENVIRONMENT", "WHAT", "PACKS", "UNITS", "FILES", "SIZE", "NEWEST", "USED", "")
    print_table(headings, rows, title=inventory.store)
    packs = sum(len(found.packs) for found in inventory.environments)
    total = size(sum(found.packed_bytes for found in inventory.environments))
    click.echo(f"{count(len(inventory.environments), 'environment')}, {count(packs, 'pack')}, {total}")


def _ago(now: float, time_s: float | None) -> str:
    return "" if time_s is None else f"{age(now - time_s)} ago"


def _print_packs(inventory: Inventory) -> None:
    """A row for each pack that can be used or will be deleted, and for the newest of the others."""
    now = time.time()
    others = [pack.id for found in inventory.environments for pack in found.packs if not _is_sound(pack)]
    left_out = set(others[:-MOST_ROWS])
    rows = [
        (
            found.namespace,
            found.id,
            pack.id,
            _ago(now, pack.published_s),
            str(pack.units or ""),  # a pack whose index was read has at least one
            str(pack.files or ""),
            size(pack.packed_bytes),
            _state(pack, now),
        )
        for found in inventory.environments
        for pack in found.packs
        if pack.id not in left_out
    ]
    headings = ("NAMESPACE", "ENVIRONMENT", "PACK", "PUBLISHED", "UNITS", "FILES", "SIZE", "STATE")
    print_table(headings, rows, title=inventory.store)
    print_more(len(others) - MOST_ROWS, "packs that cannot be used; --json lists all")


def _state(pack: StoredPack, now: float) -> str:
    """For example ``recalled 2 h ago by root@pod: wrong results``."""
    when = "" if pack.marked_s is None else f" {age(now - pack.marked_s)} ago"
    by = f" by {pack.marked_by}" if pack.marked_by else ""
    return f"{pack.state}{when}{by}" + (f": {pack.why}" if pack.why else "")


def _is_sound(pack: StoredPack) -> bool:
    return pack.state in (USABLE, *LEAVING)


def _packs(found: StoredEnvironment) -> str:
    leaving = sum(pack.state in LEAVING for pack in found.packs)
    unusable = sum(pack.state not in (USABLE, *LEAVING) for pack in found.packs)
    notes = [f"{number} {what}" for number, what in ((unusable, "unusable"), (leaving, "to be deleted")) if number]
    return f"{len(found.packs)} ({', '.join(notes)})" if notes else str(len(found.packs))


def _main_parts(found: StoredEnvironment) -> str:
    """The parts that distinguish environments best. `explain` compares all parts."""
    parts = found.parts
    device = parts.get("device") or parts.get("accelerator", "")
    toolkit = " ".join(filter(None, (parts.get("accelerator"), parts.get("toolkit"))))
    known = (
        parts.get("torch") and f"torch {parts['torch']}",
        parts.get("triton") and f"triton {parts['triton']}",
        parts.get("python"),
        " ".join(filter(None, (device, parts.get("machine") if device == "cpu" else toolkit))),
    )
    return ", ".join(filter(None, known)) or "unknown"
