"""How a check of ``doctor`` comes out."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class State(Enum):
    """How a check came out."""

    OK = "ok"
    WARNING = "warning"
    """Loads and saves work, but perhaps not as they should."""
    PROBLEM = "problem"
    """Something does not work."""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    state: State
    seen: str
    advice: str = ""
    """What to do about it; empty if nothing is to be done."""


@dataclass(frozen=True)
class Diagnosis:
    """Everything that was looked at."""

    healthy: bool
    """Whether there is no problem; warnings do not count."""
    checks: tuple[Check, ...]


def ok(name: str, seen: str) -> Check:
    return Check(name, State.OK, seen)


def warning(name: str, seen: str, advice: str) -> Check:
    return Check(name, State.WARNING, seen, advice)


def problem(name: str, seen: str, advice: str) -> Check:
    return Check(name, State.PROBLEM, seen, advice)
