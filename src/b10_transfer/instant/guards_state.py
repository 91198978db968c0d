"""Reads guards that torch has serialized."""

from __future__ import annotations

from typing import Any

from torch._dynamo.package import load_guards_state
from torch._guards import TracingContext, tracing


def load_guards(state: bytes) -> Any:
    """The state of guards. Raises whatever unpickling may raise."""
    with tracing(TracingContext(None)):  # sources of imports install a guard when they are made: the state has it
        return load_guards_state(state)
