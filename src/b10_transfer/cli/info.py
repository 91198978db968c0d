"""``b10-compile-cache info``."""

from __future__ import annotations

import click

from ..errors import printable
from ..inspection.forecast import Forecast
from ..inspection.info import LocalCache, PodInfo, inspect_pod
from ..inspection.plugins import Addition
from ..repository.catalogue import Amount
from ..status import OperationStatus
from .console import (
    ExitCode,
    count,
    deadline_option,
    json_option,
    print_facts,
    print_hanging,
    print_json,
    progress,
    report_errors,
    set_up_logging,
    size,
    store_options,
)
from .tables import print_table


@click.command("info")
@store_options
@deadline_option
@json_option
@click.pass_context
def command(
    context: click.Context, store: str | None, namespace: str | None, deadline_s: float | None, as_json: bool
) -> None:
    """Show this pod: key, caches, store, next load and save.

    Run it in the container and the Python environment of the server, with the server's variables: the key and the
    places of the caches depend on them. It changes nothing. Exits with 0, or with 1 if the store could not be read; the
    rest is printed in any case.
    """
    set_up_logging()
    with report_errors(as_json=as_json):
        with progress() as observe:
            info = inspect_pod(namespace=namespace, store=store, deadline_s=deadline_s, observe=observe)
        if as_json:
            print_json(info)
        else:
            _print(info)
    if info.store_error:
        click.echo(f"error: {printable(info.store_error)}", err=True)
    context.exit(ExitCode.ERROR if info.store_error else ExitCode.OK)


def _print(info: PodInfo) -> None:
    print_facts([(name, value or "none") for name, value in info.parts.items()], "Compared:")
    print_facts([(name, value or "none") for name, value in info.recorded.items()], "Recorded, not compared:")
    print_facts(
        [
            ("environment", info.environment_id),
            ("namespace", info.namespace),
            ("store", f"{info.store} ({info.store_from})"),
            ("packs", "unknown" if info.packs is None else str(info.packs)),
        ],
        "Key and store:",
    )
    for remark in info.remarks:
        print_hanging("  ", printable(remark))
    click.echo()
    headings = ("CACHE", "UNITS", "FILES", "SIZE", "STORED", "TO RESTORE", "PATH")
    shown = [cache for cache in info.caches if cache.exists or cache.error or (cache.stored and cache.stored.units)]
    if shown:
        print_table(headings, [_row(cache) for cache in shown])
    if empty := [cache.name for cache in info.caches if cache not in shown]:
        print_hanging("Neither here nor in the store: ", ", ".join(empty))
    click.echo()
    print_facts([("load", _in_words(info.load)), ("save", _in_words(info.save))], "A load and a save would now return:")
    if info.additions:
        click.echo("\nAdded by other packages:")
        rows = [(one.kind, one.name, one.package, _state(one)) for one in info.additions]
        print_table(("KIND", "NAME", "PACKAGE", "STATE"), rows)
    if info.per_pod_variables:
        click.echo()
        print_hanging(
            "warning: ",
            f"vLLM hashes {', '.join(info.per_pod_variables)} into the name of its cache: if their values differ "
            "between pods, vLLM uses no restored cache",
        )


def _state(addition: Addition) -> str:
    return f"ignored: {addition.problem}" if addition.problem else "used"


def _row(cache: LocalCache) -> tuple[str, ...]:
    note = f" ({cache.error})" if cache.error else "" if cache.exists else " (does not exist yet)"
    if cache.unrecognised:
        note += f" ({cache.unrecognised} {'entry' if cache.unrecognised == 1 else 'entries'} not recognised)"
    unfinished = f" (+{cache.unfinished} unfinished)" if cache.unfinished else ""
    return (
        cache.name,
        f"{cache.units}{unfinished}",
        str(cache.files),
        size(cache.bytes),
        _amount(cache.stored),
        _amount(cache.lacks),
        cache.path + note,
    )


def _amount(amount: Amount | None) -> str:
    if amount is None:
        return "unknown"
    return f"{count(amount.units, 'unit')}, {size(amount.bytes)}" if amount.units else "none"


def _in_words(forecast: Forecast) -> str:
    partial = f"; PARTIAL: {forecast.partial}" if forecast.partial else ""
    if forecast.status is not OperationStatus.SUCCESS:
        return f"{forecast.status.name}: {forecast.reason}{partial}"
    amount = f"{count(forecast.units, 'unit')}, {count(forecast.files, 'file')}, {size(forecast.bytes)}"
    return f"{forecast.reason} {amount}{partial}"
