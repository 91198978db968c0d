"""Plugins: entry points of installed packages that add caches and stores.

Every load and save searches for them, so this module reads the metadata of the packages itself: 0.5 ms for fifty
packages, where importing ``importlib.metadata`` takes 25 ms. A plugin's module is imported only when its cache or its
store is used.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import reduce
from typing import NamedTuple

ADAPTERS = "b10_transfer.adapters"
STORES = "b10_transfer.stores"
_GROUPS = (ADAPTERS, STORES)
_VALUE = r"(?P<module>[\w.]+)\s*:\s*(?P<attribute>[\w.]+)(?:\s*\[.*\])?"


class Plugin(NamedTuple):
    """One entry point."""

    name: str
    """An adapter's: the name of the cache. A store's: the scheme of its URLs."""
    value: str
    """``module:attribute``."""
    package: str
    """Name and version of the package that declares it."""

    def load(self) -> object:
        """Import the module, and return the attribute. Raises what the import raises, and ValueError."""
        if (match := re.fullmatch(_VALUE, self.value, re.ASCII)) is None:
            raise ValueError(f"{self.value!r} is not module:attribute")
        module = importlib.import_module(match["module"])
        return reduce(getattr, match["attribute"].split("."), module)


class InstalledPlugins:
    """The plugins of the packages that this process can import. They are searched for once, when first used."""

    def __init__(self) -> None:
        self._found: Mapping[str, tuple[Plugin, ...]] | None = None

    def of(self, group: str) -> tuple[Plugin, ...]:
        """The plugins of one group, sorted by package and name."""
        if self._found is None:
            self._found = find_plugins(sys.path)
        return self._found[group]

    def forget(self) -> None:
        """Search again next time. For tests."""
        self._found = None


installed = InstalledPlugins()
"""The plugins of this process."""


def find_plugins(folders: Sequence[str]) -> dict[str, tuple[Plugin, ...]]:
    """Find the plugins of all packages in some folders.

    Args:
        folders: The folders of ``sys.path``, in their order. Of two copies of a package the first is used.

    Returns:
        The plugins of each group, sorted by package and name.
    """
    found: dict[str, list[Plugin]] = {group: [] for group in _GROUPS}
    seen: set[str] = set()
    for folder in folders:
        try:
            names = os.listdir(folder or os.curdir)
        except OSError:  # missing, or an archive
            continue
        for name in names:
            package, dot, kind = name.rpartition(".")
            project = package.partition("-")[0].lower()
            if kind not in ("dist-info", "egg-info") or not dot or project in seen:
                continue
            seen.add(project)
            for group, plugin in _declared(os.path.join(folder, name, "entry_points.txt"), package):
                found[group].append(plugin)
    return {group: tuple(sorted(of_group, key=_order)) for group, of_group in found.items()}


def _order(plugin: Plugin) -> tuple[str, str]:
    return plugin.package, plugin.name


def _declared(path: str, package: str) -> Iterator[tuple[str, Plugin]]:
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError:  # most packages declare no entry points
        return
    if b"b10_transfer." not in content:
        return
    group, shown = "", package.replace("-", " ", 1)
    for line in content.decode(errors="replace").splitlines():
        line = line.strip()
        if line.startswith("["):
            group = line.strip("[] ")
        elif group in _GROUPS and "=" in line and not line.startswith("#"):
            name, _, value = line.partition("=")
            yield group, Plugin(name.strip(), value.strip(), shown)
