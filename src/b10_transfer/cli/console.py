"""Shared by the subcommands: options, exit codes, logging, tables for people and JSON for programs.

rich takes a tenth of a second to import, so it is imported only to show a table or progress on a terminal.
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

from ..config import check_namespace
from ..config.launcher import read_log_format, read_log_level
from ..config.reader import parse_seconds
from ..errors import CacheError, ConfigurationError, count, printable
from ..status import OperationStatus
from . import words
from .log_format import JsonFormatter, TextFormatter

if TYPE_CHECKING:
    from ..concurrency.deadline import Deadline
    from ..maintenance.export import CopyResult

Command = TypeVar("Command", bound=Callable[..., object])

__all__ = ["count"]
PROGRESS_AFTER_S = 1.0


class ExitCode(IntEnum):
    """Exit codes of the subcommands. click uses 2 for wrong usage."""

    OK = 0
    ERROR = 1
    NOTHING = 3
    """The store has nothing for this pod."""

    @classmethod
    def of(cls, status: OperationStatus) -> ExitCode:
        if status is OperationStatus.ERROR:
            return cls.ERROR
        return cls.NOTHING if status is OperationStatus.DOES_NOT_EXIST else cls.OK


class _Checked(click.ParamType):  # type: ignore[type-arg]
    """A value that the configuration checks. One that is not usable is wrong usage."""

    def __init__(self, name: str, check: Callable[[str], object]) -> None:
        self.name = name
        self._check = check

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> object:
        try:
            return self._check(value)
        except ConfigurationError as error:
            self.fail(f"{error.value!r} is not usable: {error.rule}", param, ctx)


NAMESPACE = _Checked("name", check_namespace)
_SECONDS = _Checked("seconds", lambda text: parse_seconds("--deadline", text))


def store_options(command: Command) -> Command:
    """``--store`` and ``--namespace``."""
    return _store_options(command, NAMESPACE)


def lenient_store_options(command: Command) -> Command:
    """The same for ``run``: a namespace that is not usable is logged, and does not keep the server from starting."""
    return _store_options(command, click.STRING)


def _store_options(command: Command, namespace: click.ParamType) -> Command:  # type: ignore[type-arg]
    command = click.option(
        "--namespace",
        type=namespace,
        metavar="NAME",
        shell_complete=words.namespaces,
        help="Name of the workload. [B10_NAMESPACE, default]",
    )(command)
    return click.option("--store", metavar="STORE", help="Directory or URL of the store. [B10_STORE]")(command)


def deadline_option(command: Command) -> Command:
    """``--deadline``."""
    return click.option(
        "--deadline", "deadline_s", type=_SECONDS, metavar="SECONDS", help="Time limit. [B10_DEADLINE_SECONDS]"
    )(command)


def one_namespace_option(command: Command) -> Command:
    """``--namespace`` of a subcommand that otherwise reads all namespaces."""
    return click.option(
        "--namespace",
        type=NAMESPACE,
        metavar="NAME",
        shell_complete=words.namespaces,
        help="Only this namespace. [all]",
    )(command)


def json_option(command: Command) -> Command:
    """``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")(command)


def metrics_options(command: Command) -> Command:
    """``--metrics-port`` and ``--metrics-file``."""
    command = click.option(
        "--metrics-file", metavar="FILE", help="Keep metrics in this file, for node_exporter (extra `metrics`)."
    )(command)
    return click.option(
        "--metrics-port",
        type=click.IntRange(1, 65535),
        metavar="PORT",
        help="Serve metrics for Prometheus at this port (extra `metrics`).",
    )(command)


@contextmanager
def report_errors(*, as_json: bool) -> Iterator[None]:
    """Turn an error into a line on stderr and exit code 1.

    With ``as_json``, also print ``{"error": "..."}`` on stdout.
    """
    try:
        yield
    except CacheError as error:
        if as_json:
            print_json({"error": str(error)})
        click.echo(f"error: {printable(str(error))}", err=True)
        raise click.exceptions.Exit(ExitCode.ERROR) from error


def set_up_logging() -> None:
    """Log to stderr, one line for each message, as B10_TRANSFER_CLI_LOGLEVEL and B10_LOG_FORMAT say."""
    handler = logging.StreamHandler()
    handler.setFormatter(TextFormatter())
    logger = logging.getLogger("b10_transfer")
    logger.handlers[:] = [handler]
    logger.propagate = False
    logger.setLevel(read_log_level())
    if read_log_format() == "json":  # only now, because a wrong value is logged
        handler.setFormatter(JsonFormatter())


def print_json(value: Any) -> None:
    """Print a dataclass or plain values as one JSON document."""
    click.echo(json.dumps(_plain(value), indent=2))


def _plain(value: Any) -> Any:
    """Convert to JSON types: dataclasses by field, enumerations by name, errors and paths as text."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if isinstance(value, Enum):
        return value.name
    return str(value) if isinstance(value, Path | BaseException) else value


MOST_ROWS = 20
"""At most this many unusable packs are listed; the others are counted."""


def print_more(left_out: int, what: str, *, err: bool = False) -> None:
    """Say how many were not listed, if any."""
    if left_out > 0:
        click.echo(f"and {left_out} more {what}", err=err)


def print_copied(results: Sequence[CopyResult], where: str) -> None:
    """Print the result of copying packs: a total, and a line for each pack that was not copied."""
    copied = [one for one in results if one.state == "copied"]
    others = {state: sum(one.state == state for one in results) for state in ("replaced", "there already")}
    also = "".join(f", {number} {state}" for state, number in others.items() if number)
    click.echo(f"{count(len(copied), 'pack')}, {size(sum(one.packed_bytes for one in copied))}, copied {where}{also}")
    failed = [one for one in results if not one.is_done]
    for one in failed[:MOST_ROWS]:
        click.echo(f"{one.pack} of namespace {one.namespace} was not copied: {printable(one.state)}", err=True)
    print_more(len(failed) - MOST_ROWS, "were not copied", err=True)


def print_facts(facts: Iterable[tuple[str, str]], title: str = "", indent: str = "  ") -> None:
    """Print names and aligned values, one pair a line; long values are wrapped on a terminal."""
    facts = [(name, printable(value)) for name, value in facts]
    if title:
        click.echo(title)
    width = max((len(name) for name, _ in facts), default=0)
    for name, value in facts:
        print_hanging(f"{indent}{name.ljust(width)}  ", value)


def print_hanging(start: str, text: str, *, bold: bool = False) -> None:
    """Print a text behind a start. On a terminal, further lines begin below the text. Paths are not broken."""
    width = len(click.unstyle(start))
    if sys.stdout.isatty():
        columns = max(shutil.get_terminal_size().columns - width, 20)
        lines = textwrap.wrap(text, columns, break_long_words=False, break_on_hyphens=False)
        text = f"\n{' ' * width}".join(lines)
    line = f"{start}{text}".rstrip()
    click.echo(click.style(line, bold=True) if bold else line)


def age(seconds: float) -> str:
    """Format an age for people: ``5 min``. A negative age is 0."""
    for length, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def size(count_bytes: float) -> str:
    """Format a size for people: ``49.3 MB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if count_bytes < 1000 or unit == "GB":
            break
        count_bytes /= 1000
    return f"{count_bytes:.0f} {unit}" if unit == "B" else f"{count_bytes:.1f} {unit}"


@contextmanager
def progress() -> Iterator[Callable[[Deadline], None]]:
    """Show the step of an operation that takes more than a second: a live line on a terminal, otherwise a plain one.

    Yields the ``observe`` argument for the operation.
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
