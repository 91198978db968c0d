"""Descriptions in messages."""

from __future__ import annotations

from typing import Any

Description = tuple[Any, ...]
"""A nested tuple of strings that describes a value (see :mod:`values`)."""


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
