"""The results of a benchmark: one JSON file of rows, from which docs/benchmarks.md is generated.

    results = Results.begin("load", "How long a load takes", versions={"torch": "2.13.0"}, file_system="tmpfs")
    results.add("load, b10-transfer", "s", [0.10, 0.11], labels={"program": "b10-transfer", "kernels": 300})
    results.cannot("load, published", "s", why="no interpreter was given (--peer)")
    results.write(options.results)

A row has a name, a unit, and either every measured value or the reason why there is none. A file has the command, the
machine and the versions once for all its rows. A file is written atomically.
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
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

SCHEMA = 1
FOLDER = Path(__file__).resolve().parent / "results"
Label = str | int | float
_OPTIONAL = ("values", "why_not", "labels", "command", "detail")


class ResultsError(ValueError):
    """A file without results, or contradictory results."""


@dataclass(frozen=True)
class Row:
    """One measured quantity, or the reason (``why_not``) why it was not measured."""

    name: str
    """Unique in its file."""
    unit: str
    """``s``, ``ms``, ``MB`` (10^6 bytes), ``%``, ``x`` for a ratio, empty for a count."""
    values: tuple[float, ...] = ()
    """One value for each run, in order."""
    why_not: str = ""
    labels: Mapping[str, Label] = field(default_factory=dict)
    """Tables and plots select rows by these, for example ``{"program": "cp -r", "kernels": 300}``."""
    command: str = ""
    """The measured command, if it is not the command of the file."""
    detail: str = ""

    def __post_init__(self) -> None:
        if bool(self.values) == bool(self.why_not):
            raise ResultsError(f"row {self.name!r} needs either values or a reason why there are none")

    @property
    def median(self) -> float:
        """The median of the values. Raises ResultsError without values."""
        if not self.values:
            raise ResultsError(f"row {self.name!r} has no values: {self.why_not}")
        return statistics.median(self.values)

    def to_json(self) -> dict[str, Any]:
        """The row, with the figures that a reader of the file wants and without empty fields."""
        document: dict[str, Any] = {"name": self.name, "unit": self.unit, "runs": len(self.values)}
        if self.values:
            document |= {"median": self.median, "spread": [min(self.values), max(self.values)]}
        optional = {name: getattr(self, name) for name in _OPTIONAL}
        return document | {name: value for name, value in optional.items() if value}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Row:
        """Raises ResultsError, KeyError or TypeError."""
        optional = {name: document[name] for name in _OPTIONAL if name in document}
        return cls(document["name"], document["unit"], **{**optional, "values": tuple(optional.get("values", ()))})


@dataclass
class Results:
    """All rows of one benchmark."""

    benchmark: str
    """Name of the program: ``load`` for ``benchmarks/load.py``."""
    title: str
    command: str
    """The command, run in the root of the repository, that makes these results again."""
    time: str
    machine: Mapping[str, str]
    versions: Mapping[str, str]
    notes: str = ""
    """Facts about this run, in Markdown."""
    rows: list[Row] = field(default_factory=list)
    missed: list[str] = field(default_factory=list, compare=False)
    """Limits that this run missed."""

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
        gpu: Mapping[str, str] | None = None,
    ) -> Results:
        """Start results for this machine and time, without rows."""
        return cls(
            benchmark=benchmark,
            title=title,
            command=command or _this_command(),
            time=time.strftime("%Y-%m-%d %H:%M %z"),
            machine={**_machine(file_system), **(gpu or {})},
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
        at_most: float | None = None,
        at_least: float | None = None,
    ) -> Row:
        """Add a row of measured values, and compare their median with a limit.

        Raises:
            ResultsError: there are no values, or the name is taken.
        """
        row = Row(name, unit, tuple(values), "", labels or {}, command, detail)
        if (limit := at_least if at_most is None else at_most) is not None:
            words = f"at {'least' if at_most is None else 'most'} {limit:g} {unit}".rstrip()
            is_kept = row.median >= limit if at_most is None else row.median <= limit
            row = replace(row, detail="; ".join(filter(None, (f"{words}: {'ok' if is_kept else 'FAILED'}", detail))))
            if not is_kept:
                self.missed.append(f"{name}: {row.median:.3g} {unit}, {words} wanted")
        return self._append(row)

    def cannot(self, name: str, unit: str, *, why: str, labels: Mapping[str, Label] | None = None) -> Row:
        """Add a row that could not be measured, with the reason."""
        return self._append(Row(name, unit, (), why, labels or {}))

    def select(self, **labels: Label) -> list[Row]:
        """All rows with these labels, measured or not."""
        return [row for row in self.rows if labels.items() <= dict(row.labels).items()]

    def find(self, **labels: Label) -> Row | None:
        """The first measured row with these labels."""
        return next((row for row in self.select(**labels) if row.values), None)

    def write(self, path: Path) -> None:
        """Write the file atomically."""
        names = ("benchmark", "title", "command", "time", "machine", "versions", "notes")
        document = {"schema": SCHEMA, **{name: getattr(self, name) for name in names}}
        document["rows"] = [row.to_json() for row in self.rows]
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
    """Read a results file. Raises ResultsError if it is invalid, OSError if it cannot be read."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document.pop("schema") != SCHEMA:
            raise ResultsError(f"the schema is not {SCHEMA}")
        rows = document.pop("rows")
        results = Results(**document)
        for row in rows:
            results._append(Row.from_json(row))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ResultsError(f"{path} holds no results: {error!r}") from error
    return results


def read_all(folder: Path) -> dict[str, Results]:
    """Read every results file of a folder, by benchmark. Raises ResultsError or OSError."""
    return {results.benchmark: results for results in map(read, sorted(folder.glob("*.json")))}


def _machine(file_system: str) -> dict[str, str]:
    """Describe this machine without a name that identifies it."""
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    info = Path("/proc/cpuinfo")
    model = re.search(r"^model name\s*:\s*(.+)$", info.read_text() if info.exists() else "", re.MULTILINE)
    return {
        "CPU": model.group(1).strip() if model else platform.machine(),
        "cores": str(os.cpu_count()),
        "memory": f"{memory_gb:.0f} GB",
        "system": f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}",
        "file system": file_system,
        "load average at the start": f"{os.getloadavg()[0]:.2f}",
    }


def _this_command() -> str:
    """The command line of this program, without paths that differ between machines."""
    path, root = Path(sys.argv[0]).resolve(), FOLDER.parents[1]
    shown = str(path.relative_to(root)) if path.is_relative_to(root) else path.name
    return shlex.join(["python", shown, *(argument for argument in sys.argv[1:] if argument == "--quick")])
