"""Which package records what Dynamo compiles in this thread, and what others need of it."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any, Protocol


class PassingError(Exception):
    """A trace cannot be kept for a reason that another process with the same code may not have."""


class Recorder(Protocol):
    """The part of a package that guards and graphs use."""

    def refuse(self, reason: str, *, is_lasting: bool = True) -> None:
        """Do not keep the frame that is being compiled.

        Args:
            is_lasting: Whether the reason is the same in every process with the same code.
        """

    def bind(self, value: object) -> None:
        """Bind the frame that is being compiled to a function's code."""

    def note(self, value: object) -> None:
        """Remember an object that tracing read without a guard."""

    def note_check(self, kind: Any, classes: Any) -> None:
        """Remember that tracing asked whether a class is a subclass of others. Raises whatever they raise."""

    def note_limit(self, name: str) -> None:
        """Remember that tracing called a function of ``sys`` and took its result for constant."""

    def accept_guards(self, expected: Any, describer: Any, output_graph: Any, hidden: Any) -> None:
        """Take what the guards compare with, the describer that met it, Dynamo's graph, and hidden state."""

    def accept_accessors(self, accessors: Any) -> None:
        """Take functions of the program that may have run, because all that they read is recorded."""


recording: ContextVar[Recorder | None] = ContextVar("recording", default=None)
"""The package for which this thread compiles a frame."""
