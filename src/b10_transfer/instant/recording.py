"""Which package records what Dynamo compiles in this thread, and what others need of it."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any, Protocol


class Recorder(Protocol):
    """The part of a package that guards and graphs use."""

    def refuse(self, reason: str) -> None:
        """Do not keep the frame that is being compiled."""

    def bind(self, value: object) -> None:
        """Bind the frame that is being compiled to a function's code."""

    def note(self, value: object) -> None:
        """Remember an object that tracing read without a guard."""

    def note_check(self, kind: Any, classes: Any) -> None:
        """Remember that tracing asked whether a class is a subclass of others. Raises whatever they raise."""

    def accept_guards(self, expected: Any, describer: Any, output_graph: Any) -> None:
        """Take what the guards of the frame compare with, the describer that met it, and Dynamo's graph."""


recording: ContextVar[Recorder | None] = ContextVar("recording", default=None)
"""The package for which this thread compiles a frame."""
