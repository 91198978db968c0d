"""The result of ``doctor``: checks, each with a state."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class State(Enum):
    """The result of one check."""

    OK = "ok"
    WARNING = "warning"
    """Loads and saves work, but perhaps not well."""
    PROBLEM = "problem"
    """Something does not work."""


@dataclass(frozen=True)
class Check:
    """One check."""

    name: str
    state: State
    seen: str
    advice: str = ""
    """What to do; empty if nothing is to be done."""


@dataclass(frozen=True)
class Diagnosis:
    """All checks."""

    healthy: bool
    """Whether no check found a problem. Warnings do not count."""
    checks: tuple[Check, ...]


def ok(name: str, seen: str) -> Check:
    return Check(name, State.OK, seen)


def warning(name: str, seen: str, advice: str) -> Check:
    return Check(name, State.WARNING, seen, advice)


def problem(name: str, seen: str, advice: str) -> Check:
    return Check(name, State.PROBLEM, seen, advice)
