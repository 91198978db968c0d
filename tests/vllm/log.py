"""What vLLM (0.32.0) says about compilation in its log, and what ``b10-compile-cache`` says there about its caches."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta

_TOTAL = re.compile(r"torch\.compile(?: and initial profiling/warmup run together)? took ([\d.]+) s in total")
_STAMP = r"^.*(\d\d-\d\d \d\d:\d\d:\d\d) \[[^]]*\] "
_BEGINS = re.compile(_STAMP + r"Warming up model for the compilation", re.MULTILINE)
_ENDS = re.compile(_STAMP + r"Warming up done", re.MULTILINE)
_LOADED = re.compile(r"Directly load AOT compilation from path (\S+)")
_COMPILED = re.compile(r"Compiling a graph for compile range")
_OURS = re.compile(r"b10-compile-cache [A-Z]+: ")
_PROOF = re.compile(
    r"INFO: (\w+): (?=restored|compiled)(?:restored (\d+), used (\d+))?(?:, )?(?:compiled anew (\d+))?$", re.MULTILINE
)


@dataclass(frozen=True)
class CacheLine:
    """What the command said of one cache, in units."""

    cache: str
    restored: int
    used: int
    compiled: int


def compile_s(log: str) -> float:
    """Seconds of the compile phase: as vLLM adds them up, or, as it does not on stock CPUs, from the time stamps of the
    two lines around it, to a second. Raises ValueError if the log has neither."""
    if totals := _TOTAL.findall(log):
        return sum(map(float, totals))
    begins, ends = _BEGINS.search(log), _ENDS.search(log)
    if begins is None or ends is None:
        raise ValueError("the server's log does not say how long it compiled")
    took = _time(ends[1]) - _time(begins[1])
    return (took + timedelta(days=366) if took < timedelta(0) else took).total_seconds()


def loaded_artifacts(log: str) -> list[str]:
    """The ahead-of-time artifacts that were taken from the cache."""
    return _LOADED.findall(log)


def graphs_compiled(log: str) -> int:
    """How often vLLM's own backend (that of the GPU's mode) compiled all graphs for a range of sizes."""
    return len(_COMPILED.findall(log))


def cache_lines(log: str) -> list[CacheLine]:
    """The command's lines about each cache, once the server served."""
    return [CacheLine(name, *(int(count or 0) for count in counts)) for name, *counts in _PROOF.findall(log)]


def lines_with(text: str, log: str) -> list[str]:
    """The command's own lines that hold a text."""
    return [line for line in log.splitlines() if _OURS.search(line) and text in line]


def _time(stamp: str) -> datetime:
    # The log leaves the year out; a leap year has every date.
    return datetime.strptime(f"2028-{stamp}", "%Y-%m-%d %H:%M:%S")
