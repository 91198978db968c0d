"""The adapters of other packages. An adapter that fails is left out, with one WARNING that names its package."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import TypeVar

from ..config.plugins import ADAPTERS, Plugin, installed
from ..config.reader import EnvReader, Variable
from ..errors import ConfigurationError
from ..notices import notices
from .base import Adapter
from .layout import Layout
from .units import Unit, UnitKind

logger = logging.getLogger(__name__)

T = TypeVar("T")
_NAME = re.compile(r"[a-z][a-z0-9_]{0,19}", re.ASCII)
_PLAIN_VERSION = re.compile(r"[a-z0-9.]{1,10}", re.ASCII)
"""The format has room for 32 characters: the cache's name, and its version or a digest of it."""


class PluginAdapter(Adapter):
    """Passes calls to the adapter of another package.

    The first error that a call raises is logged, and from then on the adapter finds no unit.

    Args:
        plugin: The entry point.

    Raises:
        Exception: The adapter cannot be imported, or is not an adapter.
    """

    is_plugin = True

    def __init__(self, plugin: Plugin) -> None:
        kind = plugin.load()
        if not (isinstance(kind, type) and issubclass(kind, Adapter)):
            raise TypeError(f"{plugin.value} is not a subclass of b10_transfer.adapters.Adapter")
        self._inner = kind()
        self._plugin = plugin
        self.problem = ""
        """The first error that it raised."""
        inner = self._inner
        _check("name", inner.name, inner.name == plugin.name, f"but its entry point is named {plugin.name!r}")
        version = _checked_text("version", inner.version)
        self.name = root_name(plugin.name, version) if version else plugin.name
        self.title = _checked_text("title", inner.title)
        self.units = _checked_text("units", inner.units)
        _check("layout", inner.layout, isinstance(inner.layout, Layout), "which is not a Layout")
        self.layout = inner.layout
        self.variables = tuple(inner.variables)
        are_variables = all(isinstance(variable, Variable) for variable in self.variables)
        _check("variables", self.variables, are_variables, "which is not a tuple of Variable")
        self.accompanies = bool(inner.accompanies)

    @property
    def failed(self) -> bool:
        """Whether it has raised an error, and so is not used any more."""
        return bool(self.problem)

    @property
    def cache(self) -> str:
        return self._plugin.name

    def locate(self, env: EnvReader) -> Path | None:
        return self._call(None, lambda: _checked_path(self._inner.locate(env)), passes=ConfigurationError)

    def check_place(self, env: EnvReader, path: Path) -> None:
        self._call(None, lambda: self._inner.check_place(env, path), passes=ConfigurationError)

    def unit_of(self, path: str) -> Unit | None:
        return self._call(None, lambda: _checked_unit(path, self._inner.unit_of(path)))

    def skips_folder(self, path: str) -> bool:
        return self._call(True, lambda: bool(self._inner.skips_folder(path)))

    def leaves_here(self, path: str) -> bool:
        return self._call(False, lambda: bool(self._inner.leaves_here(path)))

    def written(self, unit: Unit, files: Collection[str], *, is_mixed: bool = False) -> Collection[str]:
        def call() -> Collection[str]:
            found = set(self._inner.written(unit, files, is_mixed=is_mixed))
            return [file for file in files if file in found]

        return self._call((), call)

    def is_complete(self, root: Path, unit: Unit, files: Collection[str]) -> bool:
        return self._call(False, lambda: bool(self._inner.is_complete(root, unit, files)))

    def is_held(self, root: Path, unit: Unit) -> bool:
        return self._call(True, lambda: bool(self._inner.is_held(root, unit)))

    def may_be_replaced(self, unit: Unit, files: Collection[str] = ()) -> bool:
        return self._call(False, lambda: bool(self._inner.may_be_replaced(unit, files)))

    def depends_on_host(self, unit: Unit, files: Collection[str]) -> bool:
        return self._call(True, lambda: bool(self._inner.depends_on_host(unit, files)))

    def _call(self, default: T, function: Callable[[], T], passes: type[Exception] | tuple[()] = ()) -> T:
        """Call the adapter; the default if it fails. Errors of type ``passes`` are the caller's."""
        if self.failed:
            return default
        try:
            return function()
        except passes:
            raise
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever another package raises
            self.problem = f"{type(error).__name__}: {error}"
            _warn(self._plugin, self.problem)
            return default


class PluginAdapters:
    """The adapters of the packages that this process can import. Each is imported once, when first used."""

    def __init__(self) -> None:
        self._tried: dict[Plugin, PluginAdapter | str] = {}

    @property
    def declared(self) -> tuple[Plugin, ...]:
        """The entry points. Nothing is imported."""
        return installed.of(ADAPTERS)

    def usable(self, taken: Iterable[str], wanted: Callable[[str], bool]) -> list[PluginAdapter]:
        """The adapters of some caches.

        Args:
            taken: Names of the caches of this package.
            wanted: Whether a cache is used. An adapter that is not is not imported.
        """
        found = [self.find(plugin, taken) for plugin in self.declared if wanted(plugin.name)]
        return [adapter for adapter in found if isinstance(adapter, PluginAdapter) and not adapter.failed]

    def find(self, plugin: Plugin, taken: Iterable[str]) -> PluginAdapter | str:
        """The adapter of an entry point, or why it is left out."""
        if plugin not in self._tried:
            self._tried[plugin] = self._load(plugin, taken)
        return self._tried[plugin]

    def problem(self, plugin: Plugin, taken: Iterable[str]) -> str:
        """Why the adapter of an entry point is left out; empty if it is not."""
        found = self.find(plugin, taken)
        return found.problem if isinstance(found, PluginAdapter) else found

    def forget(self) -> None:
        """Import every adapter again. For tests."""
        self._tried.clear()

    def _load(self, plugin: Plugin, taken: Iterable[str]) -> PluginAdapter | str:
        first = next(other for other in self.declared if other.name == plugin.name)
        if plugin.name in taken:
            problem = "b10-transfer itself has a cache of this name"
        elif first != plugin:
            problem = f"{first.package} adds a cache of this name, too"
        elif not _NAME.fullmatch(plugin.name):
            problem = "the name of a cache consists of at most 20 lower-case letters, digits and '_'"
        else:
            try:
                return PluginAdapter(plugin)
            except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever another package raises
                problem = f"{type(error).__name__}: {error}"
        _warn(plugin, problem)
        return problem


plugin_adapters = PluginAdapters()
"""The adapters of other packages, in this process."""


def root_name(cache: str, version: str) -> str:
    """The name under which packs hold the units of one version of a cache. Two versions never have the same name."""
    if _PLAIN_VERSION.fullmatch(version):
        return f"{cache}_v{version.replace('.', '_')}"
    return f"{cache}_d{hashlib.sha256(version.encode()).hexdigest()[:10]}"


def _warn(plugin: Plugin, problem: str) -> None:
    message = f"the cache {plugin.name} of the package {plugin.package} is left out: {problem}"
    notices.log(logger, logging.WARNING, message)


def _check(attribute: str, value: object, is_right: bool, why: str) -> None:
    if not is_right:
        raise ValueError(f"its {attribute} is {value!r}, {why}")


def _checked_text(attribute: str, value: str) -> str:
    _check(attribute, value, isinstance(value, str), "which is not a text")
    return value


def _checked_path(path: Path | None) -> Path | None:
    if path is not None and not (isinstance(path, Path) and path.is_absolute() and path != path.parent):
        raise ValueError(f"locate() returned {path!r}, which is not the absolute path of a folder")
    return path


def _checked_unit(path: str, unit: Unit | None) -> Unit | None:
    """The unit, if the file at ``path`` can belong to it."""
    if unit is None:
        return None
    end = path.removeprefix(unit.path)
    is_right = end.startswith("/") if unit.kind is UnitKind.FOLDER else end == "" or end.startswith(".")
    if not unit.path or not path.startswith(unit.path) or not is_right:
        raise ValueError(f"unit_of({path!r}) returned {unit!r}, to which this file cannot belong")
    return unit
