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

from ..errors import count

logger = logging.getLogger(__name__)

MOST_BYTES = 16 * 1024 * 1024
"""Larger files are not merged: the latest stays."""
MOST_MEMORY = 48 * 1024 * 1024
"""The tables of one merge take this much memory together, by :meth:`Results.memory_of`. The newest ones are merged."""
_DEEPEST = 32
_VALUE_BYTES, _TABLE_BYTES, _TEXT_BYTES = 40, 64, 64
"""Memory that a value, a table or list, and a text take in Python, beyond their own characters."""

Table = dict[str, Any]


class ResultsTooLargeError(ValueError):
    """A file is over the limits of a merge. It may be sound."""


class Results:
    """The format of such files: JSON. A subclass reads and writes another format.

    Args:
        same: Keys at the top that say for which system results hold. Where they differ, the newer file stays alone.
    """

    def __init__(self, *same: str) -> None:
        self._same = same

    def merge(self, older: bytes, newer: bytes) -> bytes:
        """One file with the results of both; the newer one alone if both together are over the limit.

        Args:
            older: What was published earlier.
            newer: What was published later, or lies here.

        Raises:
            ValueError: One of them is not as a compiler writes it, or over a limit.
        """
        one, other = self.read(older), self.read(newer)
        if not self._is_same(one, other) or self.memory_of(older) + self.memory_of(newer) > MOST_MEMORY:
            return newer
        return self._text(merged_tables(one, other))

    def merge_all(self, versions: Iterable[bytes], where: str = "") -> bytes | None:
        """As many files as the limit allows, as one.

        Args:
            versions: The files, the newest first. Each is read when the ones before it are merged.
            where: A name for messages.

        Returns:
            The merged file; the newest as it is if that alone is over the limit; None if no file is sound. Malformed
            files are left out with a message.
        """
        merged: Table = {}
        newest: bytes | None = None
        is_merged, room, malformed = False, MOST_MEMORY, []
        for version in versions:
            memory = self.memory_of(version)
            if memory > room:
                if newest is None:
                    return version
                continue
            room -= memory
            try:
                table = self.read(version)
            except ValueError as error:
                malformed.append(error)
                continue
            if newest is None:
                newest, merged = version, table
            elif self._is_same(table, merged):
                merged, is_merged = merged_tables(table, merged), True
        if malformed:
            logger.warning("results of %s in %s are left out: %s", count(len(malformed), "pack"), where, malformed[0])
        return self._text(merged) if is_merged else newest

    def memory_of(self, data: bytes) -> int:
        """Bytes of memory that the table in a file takes at most. Known before it is parsed."""
        lists = data.count(b"[") + data.count(b"{")
        texts = data.count(b'"') // 2
        return _width(data) * len(data) + data.count(b",") * _VALUE_BYTES + lists * _TABLE_BYTES + texts * _TEXT_BYTES

    def read(self, data: bytes) -> Table:
        """The table in a file.

        Raises:
            ResultsTooLargeError: It is over a limit.
            ValueError: There is none, or it is too deep.
        """
        if len(data) > MOST_BYTES:
            raise ResultsTooLargeError(f"{len(data)} bytes are more than {MOST_BYTES}")
        if (memory := self.memory_of(data)) > MOST_MEMORY:
            raise ResultsTooLargeError(f"its table takes {memory} bytes of memory, more than {MOST_MEMORY}")
        table = self._table(data)
        _check_depth(table)
        return table

    def _is_same(self, one: Table, other: Table) -> bool:
        """Whether the results of two tables hold for the same system."""
        return all(one.get(key) == other.get(key) for key in self._same)

    def _table(self, data: bytes) -> Table:
        try:
            table = json.loads(data)
        except RecursionError as error:
            raise ValueError("tables lie too deep in each other") from error
        if not isinstance(table, dict):
            raise ValueError("it holds no table")
        return table

    def _text(self, table: Table) -> bytes:
        return json.dumps(table, separators=(",", ":")).encode()


def _width(data: bytes) -> int:
    """Bytes that a character takes in Python: one beyond Latin-1 makes all of its text wider."""
    return 1 if data.isascii() and b"\\u" not in data else 4


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
