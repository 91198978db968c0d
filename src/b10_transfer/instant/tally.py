"""Counts for each compiled function which restored graphs its calls used."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch._dynamo

from .messages import with_remedy

_disable: Any = torch._dynamo.disable


class Tally:
    """The restored graphs of one function that ``torch.compile`` was called for.

    Args:
        name: For people: the class of a model, or the name of a function.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.restored: set[str] = set()
        """Names of the restored graphs."""
        self.used: set[str] = set()
        """Those of them that were called."""
        self.reasons: dict[str, None] = {}
        """Why it was traced, although there may be a trace in the store."""

    def noting_first_call(self, scope: dict[str, Any], name: str, graph: Callable[..., Any]) -> Any:
        """A graph to be put among the globals of a frame. When it is called, it makes way for the graph itself."""
        self.restored.add(name)
        graph = _disable(graph)

        def first_call(*arguments: Any, **options: Any) -> Any:
            self.used.add(name)
            scope[name] = graph
            return graph(*arguments, **options)

        return _disable(first_call)


def lines(tallies: Iterable[Tally]) -> list[str]:
    """One line for each name: how its functions started.

    For example ``Transformer: instant, 2 of 2 graphs used`` or ``Transformer: warm, because …; to fix: …``.
    """
    by_name: dict[str, list[Tally]] = {}
    for tally in tallies:
        by_name.setdefault(tally.name, []).append(tally)
    return [f"{name}: {_outcome(same)}" for name, same in by_name.items()]


def _outcome(tallies: list[Tally]) -> str:
    restored = sum(len(tally.restored) for tally in tallies)
    used = sum(len(tally.used) for tally in tallies)
    reasons = with_remedy([reason for tally in tallies for reason in tally.reasons])
    if not restored:
        return f"warm, because {reasons}" if reasons else "warm, because the store had no trace of it"
    graphs = "graph" if restored == 1 else "graphs"
    return f"instant, {used} of {restored} {graphs} used" + (f"; also traced, because {reasons}" if reasons else "")
