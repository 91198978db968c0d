"""Files in which a compiler collects results over time, and how two of them become one.

A file is a table of tables. The value at one path of keys is one result. A merge keeps every result of both files. If
both have a result at one path, the later one stays. If one of them is a table and the other a single value, the table
stays. So the order of merges matters only for conflicts.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from typing import Any

logger = logging.getLogger(__name__)

MOST_BYTES = 16 * 1024 * 1024
"""Larger files are not merged: the latest stays."""
_DEEPEST = 32

Table = dict[str, Any]


class Results:
    """The format of such files: JSON. A subclass reads and writes another format.

    Args:
        same: Keys at the top that say for which system results hold. Where they differ, the newer file stays alone.
    """

    def __init__(self, *same: str) -> None:
        self._same = same

    def merge(self, older: bytes, newer: bytes) -> bytes:
        """One file with the results of both.

        Args:
            older: What was published earlier.
            newer: What was published later, or lies here.

        Raises:
            ValueError: One of them is not as a compiler writes it, or over a limit.
        """
        one, other = self.read(older), self.read(newer)
        is_same = all(one.get(key) == other.get(key) for key in self._same)
        return self._text(merged_tables(one, other) if is_same else other)

    def merge_all(self, versions: Iterable[bytes], where: str = "") -> bytes | None:
        """All files, the oldest first, as one. One that is malformed is left out with a message; None if all are."""
        merged: bytes | None = None
        for version in versions:
            try:
                merged = self.merge(merged if merged is not None else version, version)
            except ValueError as error:
                logger.warning("results in %s are left out: %s", where, error)
        return merged

    def read(self, data: bytes) -> Table:
        """The table in a file. Raises ValueError if there is none, or if it is too large or too deep."""
        if len(data) > MOST_BYTES:
            raise ValueError(f"{len(data)} bytes are more than {MOST_BYTES}")
        table = self._table(data)
        _check_depth(table)
        return table

    def _table(self, data: bytes) -> Table:
        try:
            table = json.loads(data)
        except RecursionError as error:
            raise ValueError("tables lie too deep in each other") from error
        if not isinstance(table, dict):
            raise ValueError("it holds no table")
        return table

    def _text(self, table: Table) -> bytes:
        return json.dumps(table, indent=4).encode()


def merged_tables(older: Table, newer: Table) -> Table:
    """The results of two tables."""
    merged = dict(older)
    for key, value in newer.items():
        known = merged.get(key)
        if isinstance(known, dict):
            merged[key] = merged_tables(known, value) if isinstance(value, dict) else known
        else:
            merged[key] = value
    return merged


def _check_depth(value: Any, depth: int = 0) -> None:
    if depth > _DEEPEST:
        raise ValueError(f"tables lie more than {_DEEPEST} deep in each other")
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            _check_depth(item, depth + 1)
