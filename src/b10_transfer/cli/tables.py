"""Tables for people: with lines on a terminal, as paragraphs on a narrow one, in plain columns otherwise."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence

import click

from ..errors import printable

_IDS = ("NAMESPACE", "ENVIRONMENT", "PACK", "CACHE", "NAME")
"""Headings of columns that tell rows apart. They are there to be copied, so they are never broken."""
_TEXTS = ("WHAT", "STATE", "WHY", "PATH")
"""Headings of columns that may be wrapped."""
_LEAST_TEXT = 24
_GAP = 3


def print_table(headings: Sequence[str], rows: Iterable[Sequence[str]], title: str = "", *, err: bool = False) -> None:
    """Print a table.

    On a terminal that is too narrow for it, each row becomes a paragraph.

    Args:
        headings: One for each column.
        rows: The cells of each row.
        title: A line above it. Default: none.
        err: Whether to print on stderr. Default: stdout.
    """
    rows = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    if not (sys.stderr if err else sys.stdout).isatty():
        if title:
            click.echo(title, err=err)
        for row in [headings, *rows]:
            click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip(), err=err)
        return
    columns = shutil.get_terminal_size().columns
    needed = [
        min(width, _LEAST_TEXT) if name in _TEXTS else width for name, width in zip(headings, widths, strict=True)
    ]
    if sum(needed) + _GAP * len(needed) <= columns:
        _print_with_lines(headings, rows, title, err)
    else:
        _print_paragraphs(headings, rows, title, columns, err)


def _print_with_lines(headings: Sequence[str], rows: Sequence[Sequence[str]], title: str, err: bool) -> None:
    from rich import box  # it takes a tenth of a second to import
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title or None, title_justify="left", box=box.SIMPLE_HEAD)
    for heading in headings:
        table.add_column(heading, no_wrap=heading not in _TEXTS)
    for row in rows:
        table.add_row(*(cell.replace("[", r"\[") for cell in row))
    Console(stderr=err).print(table)


def _print_paragraphs(
    headings: Sequence[str], rows: Sequence[Sequence[str]], title: str, columns: int, err: bool
) -> None:
    """Print for each row its ids, its texts, and its other cells with their headings."""
    if title:
        click.echo(title, err=err)
    for row in rows:
        cells = [(name, cell) for name, cell in zip(headings, row, strict=True) if cell]
        ids = [cell for name, cell in cells if name in _IDS]
        texts = [cell for name, cell in cells if name in _TEXTS]
        others = [f"{name.lower()} {cell}".strip() for name, cell in cells if name not in (*_IDS, *_TEXTS)]
        click.echo(err=err)
        click.echo(_filled(ids, columns, ""), err=err)
        for line in filter(None, (*([text] for text in texts), others)):
            click.echo(_filled(line, columns, "  "), err=err)
    click.echo(err=err)


def _filled(parts: Sequence[str], columns: int, indent: str) -> str:
    """Parts with two spaces between them, on as many lines as they need. A long part is wrapped at its blanks."""
    lines: list[str] = []
    for part in parts:
        if lines and len(lines[-1]) + 2 + len(part) <= columns:
            lines[-1] += f"  {part}"
        else:
            lines += textwrap.wrap(
                part,
                max(columns, 20),
                initial_indent=indent,
                subsequent_indent=f"{indent}  ",
                break_long_words=False,
                break_on_hyphens=False,
            )
    return "\n".join(lines)
