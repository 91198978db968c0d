"""docs/guarantees.md: every test that it names exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
PAGE = (PROJECT / "docs" / "guarantees.md").read_text()
NAMED = sorted(set(re.findall(r"`(test_\w+|tests/[\w/]+\.py)`", PAGE)))
TABLES = [table for table in PAGE.split("\n\n") if table.startswith("| attempt | result | test |")]


@pytest.fixture(scope="module")
def tests() -> set[str]:
    """The names of all functions in files of tests."""
    files = (PROJECT / "tests").rglob("test_*.py")
    return {name for file in files for name in re.findall(r"(?m)^(?:def|async def) (test_\w+)\(", file.read_text())}


@pytest.mark.parametrize("name", NAMED)
def test_test_that_the_page_names_exists(tests: set[str], name: str) -> None:
    assert (PROJECT / name).is_file() if name.startswith("tests/") else name in tests


def test_every_attempt_of_an_attacker_names_a_test() -> None:
    rows = [row for table in TABLES for row in table.splitlines()[2:]]
    assert len(rows) > 30
    assert [row for row in rows if not re.search(r"\| `tests?[\w/]+(\.py)?`(, `tests?[\w/]+(\.py)?`)* \|$", row)] == []
