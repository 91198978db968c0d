"""``b10-compile-cache explain``."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TextIO

import click

from ..errors import ConfigurationError, printable
from ..inspection.explain import Explanation, Neighbour, explain
from ..inspection.pods import PodDescription
from .console import (
    ExitCode,
    age,
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

_LARGEST_DESCRIPTION = 1 << 20
"""Characters that are read of a pod's description. ``info --json`` prints a few thousand."""


@click.command("explain")
@store_options
@deadline_option
@json_option
@click.option(
    "--as",
    "described",
    type=click.File(),
    metavar="POD.JSON",
    help="Answer for the pod that `info --json` described in this file (- for stdin), as if its caches were empty.",
)
@click.pass_context
def command(
    context: click.Context,
    store: str | None,
    namespace: str | None,
    deadline_s: float | None,
    as_json: bool,
    described: TextIO | None,
) -> None:
    """Say why a load finds something for this pod, or why not.

    It compares this pod's key, part by part, with the most similar environments in the store, and shows the parts that
    differ. It also names other namespaces that have artifacts for this pod, packs that a load ignores, and variables
    that make vLLM look for another cache.

    With --as it answers for another pod, from anywhere and without its GPU. "This pod" is then that pod. The store is
    still the one of this process.

    Exits with 0 if a load would find something, with 3 if not, and with 1 if the store could not be read.
    """
    set_up_logging()
    with report_errors(as_json=as_json):
        other = None if described is None else _read(described)
        with progress() as observe:
            found = explain(namespace=namespace, store=store, deadline_s=deadline_s, other=other, observe=observe)
        if as_json:
            print_json(found)
        else:
            _print(found)
            if other is None and found.commands:
                _print_differences(found)
    context.exit(ExitCode.OK if found.would_hit else ExitCode.NOTHING)


def _print_differences(found: Explanation) -> None:
    """Compare the command lines of those that saved with that of a server on this pod, if there is one."""
    from ..environment import command_line  # only if there is something to compare
    from ..launcher.server import find_external_server

    server = find_external_server()
    if server is not None:
        command_line.record(server.arguments)
        if differences := command_line.saved_with(found.commands):
            _print_line(f"\nprocess {server.pid}: {differences}")


def _read(described: TextIO) -> PodDescription:
    try:
        text = described.read(_LARGEST_DESCRIPTION)
    except ValueError:  # it is not text; what parses it says so
        text = ""
    try:
        return PodDescription.parse(text, described.name)
    except ConfigurationError as error:  # wrong usage, like a file that does not exist
        raise click.UsageError(printable(str(error))) from error


def _print(found: Explanation) -> None:
    hit = f"PARTIAL: {found.partial}" if found.partial else f"HIT: {found.verdict}"
    _print_line(hit if found.would_hit else f"MISS: {found.verdict}", bold=True)
    if found.would_hit:
        _print_line(f"  {count(found.packs, 'pack')}, {count(found.files, 'file')}, {size(found.bytes)}")
    if found.advice:
        _print_line(f"  {found.advice}")
    if found.local_caches:
        names = ", ".join(found.local_caches)
        hold = "it already holds" if len(found.local_caches) == 1 else "they already hold"
        _print_line(f"  a load without --merge adds nothing to {names}: {hold} artifacts")
    for reason in found.refused_caches:
        _print_line(f"  left out: {reason}")
    _print_line(f"  store {found.store}, namespace {found.namespace}, environment {found.environment_id}")
    for remark in found.remarks:
        _print_line(f"  key: {remark}")
    for neighbour in found.nearest:
        _print_neighbour(found, neighbour)
    if found.more:
        _print_line(
            f"\n{count(found.more, 'other environment')} with more differences; `b10-compile-cache ls` lists all"
        )
    for note in _notes(found):
        _print_line(f"\n{note}")


def _notes(found: Explanation) -> Iterator[str]:
    """Everything else that matters, a paragraph each."""
    if found.group:
        yield f"group: it {found.group}"
    others = [name for name in found.elsewhere if not found.advice.startswith(f"set B10_NAMESPACE={name},")]
    if others:
        yield f"other namespaces with artifacts for this pod: {', '.join(others)} (B10_NAMESPACE)"
    for command in found.commands:
        yield f"saved by: {command}"
    for difference in found.key_differences:
        yield f"warning: {difference}"
    for reason in found.rejected_packs:
        yield f"ignored: {reason}"
    yield from (f"ignored: {mark}" for mark in found.marks)
    if (more := len(found.set_aside_packs + found.pruned_packs + found.recalled_packs) - len(found.marks)) > 0:
        yield f"{count(more, 'more pack')} {'was' if more == 1 else 'were'} marked; `ls --packs` lists all"
    for error in found.errors:
        yield f"warning: not compared, {error}"
    if found.per_pod_variables:
        yield (
            f"warning: vLLM hashes {', '.join(found.per_pod_variables)} into the name of its cache. If their values "
            "differ between pods, vLLM uses no restored cache: unset them, or give them the same value in all pods"
        )


def _print_neighbour(found: Explanation, neighbour: Neighbour) -> None:
    where = "" if neighbour.namespace == found.namespace else f"namespace {neighbour.namespace}, "
    published = f"{count(neighbour.packs, 'pack')}, newest {age(time.time() - neighbour.newest_s)} ago"
    if neighbour.differences is None:
        _print_line(f"\n{where}{neighbour.id} ({published}): the store has no description of it")
        return
    differ, whole = len(neighbour.differences), len(found.parts)
    _print_line(f"\n{where}{neighbour.id} ({published}): {differ} of {whole} parts differ")
    print_facts([(difference.part, difference.text) for difference in neighbour.differences])


def _print_line(text: str, *, bold: bool = False) -> None:
    for line in map(printable, text.split("\n")):
        content = line.lstrip(" ")
        print_hanging(line.removesuffix(content), content, bold=bold)
