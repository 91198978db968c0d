"""What a benchmark leaves behind: one JSON file of rows, from which docs/benchmarks.md is generated.

A benchmark is a program ``benchmarks/NAME.py`` that takes ``--results FILE`` and ``--quick``::

    results = Results.begin("load", "How long a load takes", versions={"torch": "2.13.0"}, file_system="tmpfs")
    results.add("load, ours", "s", [0.10, 0.11], labels={"program": "ours", "kernels": 300})
    results.cannot("load, published", "s", why="no interpreter with it was given (--peer)")
    results.write(options.results)

Every row names itself, its unit and every value that was measured, or says why there is none. What all rows of a file
share (the command that makes it, versions, the machine) is in the file once. Files are written whole or not at all.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shlex
import statistics
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SCHEMA = 1
FOLDER = Path(__file__).resolve().parent / "results"
Label = str | int | float


class ResultsError(ValueError):
    """A file that holds no results, or results that contradict themselves."""


@dataclass(frozen=True)
class Row:
    """One measured quantity. Without ``values`` it could not be measured, and ``why_not`` says why."""

    name: str
    """Of its own in its file."""
    unit: str
    """``s``, ``MB`` (of 10^6 bytes), ``%``, ``x`` for a ratio, empty for a count."""
    values: tuple[float, ...] = ()
    """Every run's, in the order in which they were made."""
    why_not: str = ""
    labels: Mapping[str, Label] = field(default_factory=dict)
    """What tables and plots group by, such as ``{"program": "ours", "kernels": 300}``."""
    command: str = ""
    """What was measured, where that is not the file's own command."""
    detail: str = ""

    def __post_init__(self) -> None:
        if bool(self.values) == bool(self.why_not):
            raise ResultsError(f"row {self.name!r} needs values or a reason why there are none, and not both")

    @property
    def runs(self) -> int:
        return len(self.values)

    @property
    def median(self) -> float:
        """Raises ResultsError for a row without values."""
        if not self.values:
            raise ResultsError(f"row {self.name!r} has no values: {self.why_not}")
        return statistics.median(self.values)

    @property
    def spread(self) -> tuple[float, float]:
        """The smallest and the largest value. Raises ResultsError for a row without values."""
        if not self.values:
            raise ResultsError(f"row {self.name!r} has no values: {self.why_not}")
        return min(self.values), max(self.values)

    def to_json(self) -> dict[str, Any]:
        document: dict[str, Any] = {"name": self.name, "unit": self.unit, "runs": self.runs}
        if self.values:
            document |= {"median": self.median, "spread": list(self.spread), "values": list(self.values)}
        optional = {
            "why_not": self.why_not,
            "labels": dict(self.labels),
            "command": self.command,
            "detail": self.detail,
        }
        return document | {name: value for name, value in optional.items() if value}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Row:
        """Raises ResultsError, KeyError or TypeError."""
        return cls(
            name=document["name"],
            unit=document["unit"],
            values=tuple(float(value) for value in document.get("values", ())),
            why_not=document.get("why_not", ""),
            labels=document.get("labels", {}),
            command=document.get("command", ""),
            detail=document.get("detail", ""),
        )


@dataclass
class Results:
    """All rows of one benchmark, with what they share."""

    benchmark: str
    """The program's name: ``load`` for ``benchmarks/load.py``."""
    title: str
    command: str
    """Run in the repository's root, it makes these results again."""
    time: str
    machine: Mapping[str, str]
    versions: Mapping[str, str]
    rows: list[Row] = field(default_factory=list)
    notes: str = ""
    """Markdown for the page: what a reader must know to judge the rows."""

    @classmethod
    def begin(
        cls,
        benchmark: str,
        title: str,
        *,
        versions: Mapping[str, str],
        file_system: str,
        command: str = "",
        notes: str = "",
        extra_machine: Mapping[str, str] | None = None,
    ) -> Results:
        """Results without rows, for this machine and moment; ``extra_machine`` may name a GPU, say."""
        return cls(
            benchmark=benchmark,
            title=title,
            command=command or this_command(),
            time=time.strftime("%Y-%m-%d %H:%M %z"),
            machine=machine(file_system) | dict(extra_machine or {}),
            versions={"python": platform.python_version(), **versions},
            notes=notes,
        )

    def add(
        self,
        name: str,
        unit: str,
        values: Iterable[float],
        *,
        labels: Mapping[str, Label] | None = None,
        command: str = "",
        detail: str = "",
    ) -> Row:
        """Add a row of measured values. Raises ResultsError without any, or if its name is taken."""
        return self._append(Row(name, unit, tuple(values), "", labels or {}, command, detail))

    def cannot(
        self, name: str, unit: str, *, why: str, labels: Mapping[str, Label] | None = None, command: str = ""
    ) -> Row:
        """Add a row that could not be measured."""
        return self._append(Row(name, unit, (), why, labels or {}, command))

    def find(self, **labels: Label) -> Row | None:
        """The first measured row that has all of these labels."""
        found = (row for row in self.rows if row.values and labels.items() <= dict(row.labels).items())
        return next(found, None)

    def write(self, path: Path) -> None:
        """Write the file; whoever looks sees all of it or none."""
        document = {
            "schema": SCHEMA,
            "benchmark": self.benchmark,
            "title": self.title,
            "command": self.command,
            "time": self.time,
            "machine": dict(self.machine),
            "versions": dict(self.versions),
            "notes": self.notes,
            "rows": [row.to_json() for row in self.rows],
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_name(f".{path.name}.{os.getpid()}")
        scratch.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        scratch.replace(path)

    def _append(self, row: Row) -> Row:
        if any(other.name == row.name for other in self.rows):
            raise ResultsError(f"{self.benchmark} has two rows named {row.name!r}")
        self.rows.append(row)
        return row


def read(path: Path) -> Results:
    """The results in a file. Raises ResultsError if it holds none, OSError if it cannot be read."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["schema"] != SCHEMA:
            raise ResultsError(f"schema {document['schema']!r} is not {SCHEMA}")
        results = Results(
            benchmark=document["benchmark"],
            title=document["title"],
            command=document["command"],
            time=document["time"],
            machine=document["machine"],
            versions=document["versions"],
            notes=document.get("notes", ""),
        )
        for row in document["rows"]:
            results._append(Row.from_json(row))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ResultsError(f"{path} holds no results: {error!r}") from error
    return results


def read_all(folder: Path) -> dict[str, Results]:
    """Every results file of a folder, by the benchmark's name. Raises ResultsError or OSError."""
    found = (read(path) for path in sorted(folder.glob("*.json")))
    return {results.benchmark: results for results in found}


def machine(file_system: str) -> dict[str, str]:
    """What a reader needs to know of this machine to judge the figures; no name that would identify it."""
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return {
        "CPU": _cpu(),
        "cores": str(os.cpu_count()),
        "memory": f"{memory_gb:.0f} GB",
        "system": f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}",
        "file system": file_system,
        "load average at the start": f"{os.getloadavg()[0]:.2f}",
    }


def this_command() -> str:
    """How this program was called, as one would type it in the repository's root."""
    program, *arguments = sys.argv
    path = Path(program).resolve()
    root = FOLDER.parents[1]
    shown = str(path.relative_to(root)) if path.is_relative_to(root) else path.name
    # Where the results and the interpreters lie differs from one machine to the next.
    kept, skip = [], False
    for argument in arguments:
        if skip:
            skip = False
        elif argument in ("--results", "--peer"):
            skip = True
        elif not argument.startswith(("--results=", "--peer=")):
            kept.append(argument)
    return shlex.join(["python", shown, *kept])


def _cpu() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.machine()
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found.group(1).strip() if found else platform.machine()
