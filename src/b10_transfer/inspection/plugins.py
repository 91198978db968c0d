"""Caches and stores that installed packages add."""

from __future__ import annotations

from dataclasses import dataclass

from ..adapters import ADAPTERS
from ..adapters.plugins import plugin_adapters
from ..config.store import store_plugins


@dataclass(frozen=True)
class Addition:
    """A cache or a store that another package adds."""

    kind: str
    """``cache`` or ``store``."""
    name: str
    """Name of the cache, or scheme of the URLs of the store."""
    package: str
    """Name and version of the package."""
    problem: str
    """Why it is ignored; empty if it is used."""


def list_additions() -> tuple[Addition, ...]:
    """List the caches and stores that other packages add. Stores are not imported."""
    names = [adapter.name for adapter in ADAPTERS]
    caches = [
        Addition("cache", plugin.name, plugin.package, plugin_adapters.problem(plugin, names))
        for plugin in plugin_adapters.declared
    ]
    stores = [Addition("store", plugin.name, plugin.package, problem) for plugin, problem in store_plugins()]
    return (*caches, *stores)
