"""What installed packages add."""

from __future__ import annotations

from dataclasses import dataclass

from ..config.store import store_plugins


@dataclass(frozen=True)
class Addition:
    """A cache or a store that another package adds."""

    kind: str
    """``cache`` or ``store``."""
    name: str
    """Name of the cache, or scheme of the store's URLs."""
    package: str
    """Name and version of the package."""
    problem: str
    """Why it is ignored; empty if it is used."""


def list_additions() -> tuple[Addition, ...]:
    """List the caches and stores that other packages add. Stores are not imported."""
    return tuple(Addition("store", plugin.name, plugin.package, problem) for plugin, problem in store_plugins())
