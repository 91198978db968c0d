"""Caches that an operator adds by ``B10_EXTRA_CACHES``. Each file and folder in such a directory is a unit.

Nothing is known of such a cache, so the operator must know what docs/configuration.md names. A load puts units into
the directory that this pod's variable names, and no other: the pack has the cache's name alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from ..config.extra import EXTRA_CACHES, extra_caches
from ..config.reader import EnvReader, Variable, resolve
from .base import Adapter, Unit, is_transient
from .layout import ANY_DEPTH, Layout, folder_shape, stem_shape
from .places import closed_by_name

_ANY = "(?s:.+)"
"""Any name. One that the format has no room for keeps its whole unit from being saved."""
_VARIABLE = Variable(EXTRA_CACHES, "unset", "name=/path", "An extra cache.")


class ExtraAdapter(Adapter):
    """One directory."""

    units = "a file or folder in it"
    variables = (_VARIABLE,)
    layout = Layout(stem_shape(_ANY), folder_shape(_ANY, f"{ANY_DEPTH}/{_ANY}"))
    takes_everything = True

    def __init__(self, name: str, path: str) -> None:
        self.name = name
        self.title = f"The extra cache {path}"
        self._path = path

    def locate(self, env: EnvReader) -> Path:
        return resolve(EXTRA_CACHES, self._path)

    def unit_of(self, path: str) -> Unit | None:
        # The patterns match any name.
        return None if is_transient(path) or closed_by_name(path) else super().unit_of(path)

    def skips_folder(self, path: str) -> bool:
        return bool(closed_by_name(path)) or super().skips_folder(path)


@lru_cache(maxsize=8)
def extra_adapters(text: str) -> Sequence[Adapter]:
    """The adapters for a value of the variable. Raises ConfigurationError."""
    return [ExtraAdapter(name, path) for name, path in extra_caches(text).items()]
