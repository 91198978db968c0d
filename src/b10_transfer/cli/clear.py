"""``b10-compile-cache clear``."""

from __future__ import annotations

import sys

import click

from ..errors import ConfigurationError, printable
from ..maintenance.clear import ClearedEnvironment, clear_caches, clear_store
from . import words
from .console import (
    NAMESPACE,
    ExitCode,
    count,
    deadline_option,
    json_option,
    print_json,
    progress,
    report_errors,
    set_up_logging,
    size,
)

_CONFIGURED = ""
"""The value of ``--store`` without a directory."""


@click.command("clear")
@click.option(
    "--cache",
    "caches",
    metavar="NAME",
    multiple=True,
    shell_complete=words.caches,
    help="Only this local cache; may be repeated. [all]",
)
@click.option(
    "--store",
    metavar="[STORE]",
    is_flag=False,
    flag_value=_CONFIGURED,
    help="Remove packs of this pod's environment from the store, not local artifacts. [B10_STORE]",
)
@click.option(
    "--namespace",
    type=NAMESPACE,
    metavar="NAME",
    shell_complete=words.namespaces,
    help="With --store: the workload. [B10_NAMESPACE, default]",
)
@click.option("--all-environments", is_flag=True, help="With --store: all environments of the namespace.")
@click.option("--yes", is_flag=True, help="With --store: do not ask.")
@deadline_option
@json_option
@click.pass_context
def command(
    context: click.Context,
    caches: tuple[str, ...],
    store: str | None,
    namespace: str | None,
    all_environments: bool,
    yes: bool,
    deadline_s: float | None,
    as_json: bool,
) -> None:
    """Remove artifacts from this pod, or with --store packs.

    From the caches it removes only artifacts, and folders that are then empty. It follows no link. Stop the server
    first: it may compile again otherwise.

    From the store it removes the packs of one environment, for every pod that shares the store. It asks first on a
    terminal; elsewhere it needs --yes.

    Exits with 0 if it is done or there was nothing to do, with 1 if something could not be removed, and with 2 if --yes
    is missing.
    """
    set_up_logging()
    if store is None:
        if namespace is not None or all_environments or yes:
            raise click.UsageError("--namespace, --all-environments and --yes go with --store")
        context.exit(_clear_local(caches, deadline_s, as_json))
    if caches:
        raise click.UsageError("use either --cache (this pod's caches) or --store (the store), not both")
    context.exit(_clear_store(store or None, namespace, all_environments, yes, deadline_s, as_json))


def _clear_local(caches: tuple[str, ...], deadline_s: float | None, as_json: bool) -> ExitCode:
    with report_errors(as_json=as_json), progress() as observe:
        try:
            cleared = clear_caches(caches, deadline_s=deadline_s, observe=observe)
        except ConfigurationError as wrong:
            if wrong.variable == "cache":
                raise click.UsageError(f"--cache {wrong.value}: {wrong.rule}") from wrong
            raise
    if as_json:
        print_json({"caches": cleared})
    else:
        for cache in cleared:
            if cache.files:
                click.echo(
                    f"{cache.name}: removed {count(cache.files, 'file')}, {size(cache.bytes)} ({printable(cache.path)})"
                )
        if not any(cache.files or cache.errors for cache in cleared):
            click.echo(f"nothing to remove in {', '.join(cache.name for cache in cleared)}")
    for error in (error for cache in cleared for error in cache.errors):
        click.echo(f"error: {printable(error)}", err=True)
    return ExitCode.ERROR if any(cache.errors for cache in cleared) else ExitCode.OK


def _clear_store(
    store: str | None,
    namespace: str | None,
    all_environments: bool,
    yes: bool,
    deadline_s: float | None,
    as_json: bool,
) -> ExitCode:
    removed: tuple[ClearedEnvironment, ...] = ()
    with report_errors(as_json=as_json):
        with progress() as observe:
            found = clear_store(
                namespace=namespace,
                store=store,
                all_environments=all_environments,
                pretend=True,
                deadline_s=deadline_s,
                observe=observe,
            )
        if found and not yes:
            _confirm(found)
        if found:
            with progress() as observe:
                removed = clear_store(
                    namespace=namespace,
                    store=store,
                    all_environments=all_environments,
                    only=[pack_id for environment in found for pack_id in environment.pack_ids],
                    deadline_s=deadline_s,
                    observe=observe,
                )
    if as_json:
        print_json({"environments": removed})
    else:
        for environment in removed:
            click.echo(f"removed {_in_words(environment)}")
        if not removed:
            click.echo("nothing to remove: the store has no such packs")
    return ExitCode.OK


def _confirm(found: tuple[ClearedEnvironment, ...]) -> None:
    """Ask on a terminal. Elsewhere, raise UsageError."""
    for environment in found:
        click.echo(f"to be removed: {_in_words(environment)}", err=True)
    if not sys.stdin.isatty():
        raise click.UsageError("without a terminal, removing packs from the store needs --yes")
    click.confirm("Remove them, for every pod that shares the store?", abort=True, err=True)


def _in_words(environment: ClearedEnvironment) -> str:
    amount = f"{count(environment.packs, 'pack')}, {size(environment.packed_bytes)}"
    whose = ", this pod's" if environment.this_pod else ""
    return f"{amount}, of environment {environment.id}{whose}, namespace {environment.namespace}"
