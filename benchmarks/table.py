"""Rows of results with their bounds, and how they are shown."""

from __future__ import annotations

import json
import os
import platform
import re
import shlex
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.measure import Program

_VERSIONS = """
import json, importlib.metadata as m
def version(name):
    try:
        return m.version(name)
    except m.PackageNotFoundError:
        return None
print(json.dumps({name: version(name) for name in ("b10-transfer", "torch", "triton", "zstandard")}))
"""


@dataclass(frozen=True)
class Row:
    """One figure. Without ``measured`` it was not run, without ``bound`` it is for information."""

    what: str
    measured: float | None = None
    unit: str = ""
    bound: float | None = None
    is_minimum: bool = False
    detail: str = ""

    @property
    def ok(self) -> bool:
        """Whether no bound is missed."""
        if self.measured is None or self.bound is None:
            return True
        return self.measured >= self.bound if self.is_minimum else self.measured <= self.bound

    @property
    def verdict(self) -> str:
        if self.measured is None:
            return "not run"
        if self.bound is None:
            return ""
        return "ok" if self.ok else "FAILED"

    def with_detail(self, detail: str) -> Row:
        """The same row with what the figure was computed from: medians, and smallest to largest."""
        return replace(self, detail=detail)

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "verdict": self.verdict}


def at_most(what: str, measured: float, unit: str, bound: float | None) -> Row:
    return Row(what, measured, unit, bound)


def at_least(what: str, measured: float, unit: str, bound: float) -> Row:
    return Row(what, measured, unit, bound, is_minimum=True)


def to_text(title: str, rows: list[Row]) -> str:
    """A section of the table."""
    lines = [f"\n{title}"]
    for row in rows:
        measured = "" if row.measured is None else f"{row.measured:.3g} {row.unit}"
        sign = ">=" if row.is_minimum else "<="
        bound = "" if row.bound is None else f"{sign} {row.bound:g} {row.unit}"
        lines.append(f"  {row.what:<40}{measured:>9}  {bound:<11}{row.verdict:<8}{row.detail}".rstrip())
    return "\n".join(lines)


def about_this_machine(ours: Program, peer: Program | None, file_system: str) -> dict[str, str]:
    """What a reader needs to know to judge the figures."""
    return {
        "command": shlex.join(["python", *sys.argv]),
        "time": time.strftime("%Y-%m-%d %H:%M %z"),
        "machine": f"{_cpu()}, {os.cpu_count()} CPUs, {_memory_gb():.0f} GB, {platform.system()} {platform.release()}",
        "load average": f"{os.getloadavg()[0]:.2f}",
        "file system": file_system,
        "python": platform.python_version(),
        "ours": _versions(ours),
        "published": _versions(peer) if peer else "not run (--peer, and a writable /cache/model)",
    }


def versions(program: Program) -> dict[str, str]:
    """What of ours and of those we depend on a program's interpreter has installed, by the names of their packages."""
    shown = subprocess.run([program.python, "-c", _VERSIONS], check=True, capture_output=True, text=True).stdout
    return {name: version for name, version in json.loads(shown).items() if version}


def _versions(program: Program) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions(program).items())


def _cpu() -> str:
    found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found.group(1) if found else platform.machine()


def _memory_gb() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
