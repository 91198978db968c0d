"""``b10-compile-cache stats``."""

from __future__ import annotations

import time

import click

from ..inspection.statistics import Statistics, Sums, reset, statistics
from .console import ExitCode, age, count, json_option, print_facts, print_json, report_errors, set_up_logging, size


@click.command("stats")
@click.option("--zero", is_flag=True, help="Begin to count anew, after printing.")
@json_option
@click.pass_context
def command(context: click.Context, zero: bool, as_json: bool) -> None:
    """Show the number, hit ratio, seconds and bytes of this pod's loads and saves.

    It counts those of all processes of this user on this pod, by any command and by Python programs. A hit is a load
    that restored something. The hit ratio is hits / (hits + misses + errors). A load that was skipped, because the
    caches were in use, does not count.

    The store is not read. Exits with 0, also if nothing was counted.
    """
    set_up_logging()
    with report_errors(as_json=as_json):
        found = statistics()
        if zero:
            reset()
    if as_json:
        print_json(found)
    else:
        _print(found)
    context.exit(ExitCode.OK)


def _print(found: Statistics) -> None:
    if found.since_s is None:
        click.echo("no load or save has ended on this pod")
        return
    ratio = "none counted" if found.hit_ratio is None else f"{100 * found.hit_ratio:.0f} %"
    partial = f", {found.partial_hits} of them partial" if found.partial_hits else ""
    loads, saves = found.loads, found.saves
    click.echo(f"for {age(time.time() - found.since_s)}")
    print_facts(
        [
            ("loads", str(loads.count)),
            ("  hits", f"{found.hits}{partial}"),
            ("  misses", str(found.misses)),
            ("  skipped", str(loads.of("SKIPPED"))),
            ("  errors", str(loads.of("ERROR"))),
            ("hit ratio", ratio),
            ("restored", _amount(loads)),
            ("load time", _times(loads)),
            ("saves", str(saves.count)),
            ("  published", str(saves.of("SUCCESS"))),
            ("  nothing new", str(saves.of("SKIPPED"))),
            ("  errors", str(saves.of("ERROR"))),
            ("saved", _amount(saves)),
            ("save time", _times(saves)),
        ],
        indent="",
    )


def _amount(sums: Sums) -> str:
    return f"{count(sums.units, 'unit')}, {size(sums.bytes)}, {size(sums.packed_bytes)} packed"


def _times(sums: Sums) -> str:
    if not sums.count:
        return "0 s"
    return f"{sums.seconds:.2f} s, {sums.seconds / sums.count:.2f} s on average, {sums.longest_s:.2f} s at most"
