"""Descriptions in messages."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

Description = tuple[Any, ...]
"""A nested tuple of strings that describes a value (see :mod:`values`)."""


_REMEDIES = (
    (" ran while it was traced", "compute it before the model is called, and keep the result as an attribute"),
    ("found by name|belongs? to no module|what its name stands for", "define it at the top level of a module"),
    ("nothing that can be saved", "call the model under torch.no_grad()"),
    ("profilers? ", "start without the profiler"),
    ("has changed since torch.compile was called", "set torch's configuration before torch.compile is called"),
    ("assume_constant_result is used", "pass the value as an argument"),
    ("is set$|^CUDA graphs|^freezing", "compile without it"),
    ("was .*, is ", "give all replicas the same value, or save in one that has this value"),
)
"""What to do about a reason: the first whose pattern is found."""


def with_remedy(reasons: Iterable[str]) -> str:
    """Reasons in a message, with what to do about them if that is known."""
    text = "; ".join(dict.fromkeys(reasons))
    remedies = dict.fromkeys(
        next((remedy for pattern, remedy in _REMEDIES if re.search(pattern, reason)), "") for reason in reasons
    )
    known = ", and ".join(filter(None, remedies))
    return f"{text}; to fix: {known}" if known else text


def difference(was: Description, now: Description) -> str:
    """The innermost difference of two descriptions, for a message."""
    while len(was) == len(now):
        differing = [(a, b) for a, b in zip(was, now, strict=True) if a != b]
        if len(differing) != 1 or not isinstance(differing[0][0], tuple) or not isinstance(differing[0][1], tuple):
            break
        was, now = differing[0]
    before, after = shown(was), shown(now)
    return f"was {before}, is {after}" if before != after else f"{before} has changed"


def shown(description: Description) -> str:
    """A description in a message."""
    if not description:
        return "nothing"
    kind, *parts = description
    if kind in ("tuple", "list"):
        return f"{kind}({', '.join(map(shown, parts))})"
    if kind in ("function", "class") and len(parts) > 1:
        return f"{kind} {parts[0]}.{parts[1]}"
    return (
        str(parts[0]) if len(parts) == 1 and isinstance(parts[0], str) else f"{kind} {' '.join(_texts(parts))}".strip()
    )


def _texts(parts: list[Any]) -> list[str]:
    return [part for part in parts if isinstance(part, str)][:3]
