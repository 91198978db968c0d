"""What is known of each compiler's cache: where it is, which files are artifacts, how they group into units.

One file adds one: write a subclass of :class:`Adapter` in a module of its own and name it in :data:`ADAPTERS`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..config import Config
from .base import Adapter, Unit, UnitKind
from .inductor import InductorAdapter
from .triton import TritonAdapter

ADAPTERS: tuple[Adapter, ...] = (InductorAdapter(), TritonAdapter())


@dataclass(frozen=True)
class CacheRoot:
    """A directory in which a compiler keeps artifacts, and the adapter that knows it."""

    adapter: Adapter
    path: Path
    nested: tuple[Path, ...] = ()
    """Other roots below this one: their files are theirs alone."""

    @property
    def name(self) -> str:
        """What the root's files are filed under in a pack."""
        return self.adapter.name


def cache_roots(config: Config) -> list[CacheRoot]:
    """Every root of this process, whether or not it exists yet. A root inside another that covers it is left out."""
    found: list[CacheRoot] = []
    for adapter in ADAPTERS:
        path = adapter.locate(config)
        if not any(root.adapter.covers(root.path, path) for root in found):
            found.append(CacheRoot(adapter, path))
    return [
        CacheRoot(root.adapter, root.path, tuple(other.path for other in found if root.path in other.path.parents))
        for root in found
    ]


__all__ = ["ADAPTERS", "Adapter", "CacheRoot", "Unit", "UnitKind", "cache_roots"]
