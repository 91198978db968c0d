"""What the subcommands share: options, exit codes, logging, tables for people and JSON for programs.

rich is imported only where a table or a progress display is shown: it costs a tenth of a second.
"""

from __future__ import annotations

import json
import logging
import shutil
import sys
import textwrap
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from enum import Enum, IntEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ..config.launcher import read_log_level
from ..errors import CacheError
from ..status import OperationStatus

if TYPE_CHECKING:
    from ..concurrency.deadline import Deadline
    from ..maintenance.export import Carried

Command = TypeVar("Command", bound=Callable[..., object])

PROGRESS_AFTER_S = 1.0


class ExitCode(IntEnum):
    """What a subcommand tells a script. 2 is click's, for wrong usage."""

    OK = 0
    ERROR = 1
    NOTHING = 3
    """The store has nothing for this pod."""

    @classmethod
    def of(cls, status: OperationStatus) -> ExitCode:
        if status is OperationStatus.ERROR:
            return cls.ERROR
        return cls.NOTHING if status is OperationStatus.DOES_NOT_EXIST else cls.OK


def store_options(command: Command) -> Command:
    """``--store`` and ``--namespace``."""
    command = click.option("--namespace", metavar="NAME", help="Which workload. [B10_NAMESPACE, default]")(command)
    return click.option("--store", metavar="DIR", help="Where packs live. [B10_STORE]")(command)


def deadline_option(command: Command) -> Command:
    """``--deadline``."""
    return click.option(
        "--deadline", "deadline_s", type=float, metavar="SECONDS", help="How long it may take. [B10_DEADLINE_SECONDS]"
    )(command)


def json_option(command: Command) -> Command:
    """``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")(command)


@contextmanager
def errors_told(*, as_json: bool) -> Iterator[None]:
    """The edge of the commands that look and clear: an error becomes a line on stderr, and exit code 1.

    With ``as_json`` it is a document on stdout as well: ``{"error": "..."}``.
    """
    try:
        yield
    except CacheError as error:
        if as_json:
            print_json({"error": str(error)})
        click.echo(f"error: {printable(str(error))}", err=True)
        raise click.exceptions.Exit(ExitCode.ERROR) from error


def set_up_logging() -> None:
    """Log to stderr, one line a message, from the level in B10_TRANSFER_CLI_LOGLEVEL on."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s b10-compile-cache %(levelname)s: %(message)s"))
    logger = logging.getLogger("b10_transfer")
    logger.handlers[:] = [handler]
    logger.propagate = False
    logger.setLevel(read_log_level())


def print_json(value: Any) -> None:
    """Print a dataclass, or anything made of plain values, as one JSON document."""
    click.echo(json.dumps(_plain(value), indent=2))


def _plain(value: Any) -> Any:
    """A value as JSON knows it: dataclasses by field, enumerations by name, errors and paths as text."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if isinstance(value, Enum):
        return value.name
    return str(value) if isinstance(value, Path | BaseException) else value


def print_table(headings: Sequence[str], rows: Iterable[Sequence[str]], title: str = "", *, err: bool = False) -> None:
    """Print a table, on stderr with ``err``: with lines on a terminal, plain columns otherwise."""
    rows = [[printable(cell) for cell in row] for row in rows]
    if (sys.stderr if err else sys.stdout).isatty():
        from rich import box
        from rich.console import Console
        from rich.table import Table

        table = Table(*headings, title=title or None, title_justify="left", box=box.SIMPLE_HEAD)
        for row in rows:
            table.add_row(*(cell.replace("[", r"\[") for cell in row))
        Console(stderr=err).print(table)
        return
    if title:
        click.echo(title, err=err)
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    for row in [headings, *rows]:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip(), err=err)


def print_carried(carried: Sequence[Carried], where: str) -> None:
    """Print what came of copying packs: a sum, and a line for each that stayed behind."""
    copied = [one for one in carried if one.state == "copied"]
    there = sum(one.state == "there already" for one in carried)
    also = f", {there} there already" if there else ""
    click.echo(f"{len(copied)} packs, {size(sum(one.packed_bytes for one in copied))}, copied {where}{also}")
    for one in carried:
        if one.state not in ("copied", "there already"):
            click.echo(f"{one.pack} of namespace {one.namespace} stayed behind: {printable(one.state)}", err=True)


def print_facts(facts: Iterable[tuple[str, str]], title: str = "", indent: str = "  ") -> None:
    """Print names and values below each other, the values aligned; on a terminal long ones are wrapped."""
    facts = [(name, printable(value)) for name, value in facts]
    if title:
        click.echo(title)
    width = max((len(name) for name, _ in facts), default=0)
    for name, value in facts:
        start = f"{indent}{name.ljust(width)}  "
        if sys.stdout.isatty():
            columns = max(shutil.get_terminal_size().columns, len(start) + 20)
            value = textwrap.fill(value, columns, initial_indent=start, subsequent_indent=" " * len(start))[
                len(start) :
            ]
        click.echo(f"{start}{value}".rstrip())


def printable(text: str) -> str:
    """A text from a store or a path, in which nothing can steer a terminal."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def age(seconds: float) -> str:
    """How long ago something was, for people: ``5 min``. A clock that is ahead counts as now."""
    for length, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def count(number: int, what: str) -> str:
    """``1 pack``, ``2 packs``."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def size(count_bytes: float) -> str:
    """A size for people: ``49.3 MB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if count_bytes < 1000 or unit == "GB":
            break
        count_bytes /= 1000
    return f"{count_bytes:.0f} {unit}" if unit == "B" else f"{count_bytes:.1f} {unit}"


@contextmanager
def progress() -> Iterator[Callable[[Deadline], None]]:
    """Show what an operation is doing once it takes over a second: a moving line on a terminal, else a plain one.

    Yields what is to be given to the operation as ``observe``.
    """
    observed: list[Deadline] = []
    done = threading.Event()
    thread = threading.Thread(target=_show_progress, args=(observed, done), name="b10-transfer-progress", daemon=True)
    thread.start()
    try:
        yield observed.append
    finally:
        done.set()
        thread.join()


def _show_progress(observed: Sequence[Deadline], done: threading.Event) -> None:
    if done.wait(PROGRESS_AFTER_S) or not observed:
        return
    deadline = observed[-1]
    if not sys.stderr.isatty():
        click.echo(f"{deadline.operation}: {deadline.activity} ...", err=True)
        return
    from rich.console import Console

    with Console(stderr=True).status("") as status:
        waited_s = PROGRESS_AFTER_S
        while True:
            status.update(f"{deadline.operation}: {deadline.activity}, {waited_s:.0f} s of {deadline.seconds:.0f}")
            if done.wait(0.2):
                return
            waited_s += 0.2
