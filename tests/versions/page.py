"""docs/compatibility.md, from the results of all cells that were ever run."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from .cells import DISTRIBUTIONS, PROJECT, PYTHON_CHECKS, TORCH_CHECKS, VLLM_CHECKS, Result

RESULTS = PROJECT / "docs" / "compatibility.json"
PAGE = PROJECT / "docs" / "compatibility.md"
HEAD = """# Compatibility

b10-transfer supports torch 2.6 and Python 3.10 or newer, on Linux. `make test-matrix` runs every cell of these
tables in an environment of its own and writes this page.

Every cell compiles on the CPU. The kernels for sm_90 are compiled by the Triton in the second
column and restored to another path. They must hit there, although the first path is gone. A torch for GPUs requires one
release of Triton. A torch for CPUs (`+cpu`) requires none: the cell installs the newest.

There are two wheels. One has the module in C, for glibc 2.34 or newer on x86-64 and Pythons with a global lock. pip
takes the other one, in pure Python, elsewhere: it does the same, and restores many small files more slowly.

Python 3.14 without a global lock (3.14t) is not supported: zstandard 0.25.0, which b10-transfer needs, has no wheel for
it. Its other dependencies and torch 2.14.1 have one.
"""


OF_VLLM = """
A cell starts the server under `b10-compile-cache run`, empties the pod, and starts it again: nothing may be compiled.
The check says how many units of each cache the store then has.
"""


def record(results: Iterable[Result], path: Path = RESULTS) -> None:
    """Put results into the file, in the place of earlier ones of the same cells."""
    known = {result.name: result for result in recorded(path)} | {result.name: result for result in results}
    path.write_text(json.dumps([asdict(known[name]) for name in sorted(known, key=_order)], indent=1) + "\n")


def recorded(path: Path = RESULTS) -> list[Result]:
    """The results of earlier runs."""
    return [Result(**entry) for entry in json.loads(path.read_text())] if path.exists() else []


def write_page(results: list[Result]) -> None:
    """Write docs/compatibility.md."""
    kinds = [
        ("torch", "", ["torch", "triton", "python"], list(TORCH_CHECKS)),
        ("Python", "", ["python", "triton", "torch"], [DISTRIBUTIONS, *PYTHON_CHECKS]),
        ("vLLM", OF_VLLM, ["vllm", "torch", "python"], list(VLLM_CHECKS)),
    ]
    tables = [
        _table(title, text, found, versions, checks)
        for title, text, versions, checks in kinds
        if (found := [result for result in results if result.name.startswith(f"{title.lower()} ")])
    ]
    PAGE.write_text("\n".join([HEAD, *tables]))


def _table(title: str, text: str, results: list[Result], versions: list[str], checks: list[str]) -> str:
    columns = [*versions, *checks, "date", "seconds"]
    lines = [f"## {title}", text, "| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for result in results:
        cells = [*(result.versions[name] for name in versions), *(result.checks[check] for check in checks)]
        lines.append("| " + " | ".join([*cells, result.date, str(result.seconds)]) + " |")
    return "\n".join([*lines, ""])


def _order(name: str) -> tuple[str, list[int], str]:
    """torch before Python is not needed: tables are apart. Releases in the order of their numbers, the newest last."""
    kind, _, version = name.partition(" ")
    numbers = [int(part) for part in version.split(".") if part.isdigit()]
    return kind, numbers or [10**6], version
