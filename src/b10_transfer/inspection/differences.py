"""Compares two keys part by part, in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Difference:
    """One part of the key in which the store and this pod differ."""

    part: str
    store: str
    pod: str
    text: str
    """The difference in words, for people."""


def compare(store: Mapping[str, str], pod: Mapping[str, str]) -> tuple[Difference, ...]:
    """The parts in which two keys differ, in the order of the pod's."""
    names = [*pod, *(name for name in sorted(store) if name not in pod)]
    return tuple(
        Difference(name, store.get(name, ""), pod.get(name, ""), _in_words(name, store.get(name), pod.get(name)))
        for name in names
        if store.get(name) != pod.get(name)
    )


def _in_words(part: str, store: str | None, pod: str | None) -> str:
    if part == "cpu features" and store is not None and pod is not None:
        stored, own = set(store.split()), set(pod.split())
        words = [
            f"{has} {' '.join(sorted(extra))}"
            for has, extra in (("this pod lacks", stored - own), ("this pod also has", own - stored))
            if extra
        ]
        return "; ".join(words) or f"store has {store!r}, this pod {pod!r}"
    return f"store has {_shown(store)}, this pod {_shown(pod)}"


def _shown(value: str | None) -> str:
    """A part's value in words. Another version of this package may lack a part."""
    return "no such part" if value is None else value or "none"
