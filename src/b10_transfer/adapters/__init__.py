"""The adapters. Each knows one compiler's cache: its place, its artifacts, and their units.

To add one, write a subclass of :class:`Adapter` in a module of its own and list it in :data:`ADAPTERS`.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ..concurrency.forks import no_fork
from ..config import Config, plugins
from ..config.extra import EXTRA_CACHES
from ..config.reader import EnvReader, Variable, is_below, resolve
from ..errors import ConfigurationError, RemotePathError
from ..notices import notices
from .aiter import AiterAdapter, AiterTemplatesAdapter
from .base import Adapter, Unit, UnitKind, is_transient
from .cuda import CudaAdapter
from .cute_dsl import CuteDslAdapter
from .deep_gemm import DeepGemmAdapter, VllmDeepGemmAdapter
from .flashinfer import FlashInferAdapter, FlashInferAutotuneAdapter
from .flashinfer_knobs import FlashInferKnobsAdapter
from .headers import HeadersAdapter
from .helion import HelionAdapter
from .inductor import InductorAdapter
from .kernels import KERNEL_ADAPTERS
from .layout import Layout, folder_shape, stem_shape
from .places import closed_by_name, closed_places, lies_in_a_hub, other_uses, use_at
from .sglang import (
    SglangCuteAdapter,
    SglangDeepGemmAdapter,
    SglangFlashInferAdapter,
    SglangInductorAdapter,
    SglangJitAdapter,
    SglangOldDeepGemmAdapter,
    SglangRustAdapter,
    SglangTileLangAdapter,
    SglangTritonAdapter,
)
from .sglang_graphs import (
    SglangDiffusionInductorAdapter,
    SglangDiffusionTritonAdapter,
    SglangGraphsAdapter,
)
from .tilelang import TileLangAdapter
from .torch_extensions import TorchExtensionsAdapter
from .triton import TritonAdapter
from .tunableop import TunableOpAdapter
from .tvm_ffi import TvmFfiAdapter
from .vllm import VllmAdapter
from .vllm_modelinfos import VllmModelInfosAdapter
from .vllm_startup_plan import VllmStartupPlanAdapter

logger = logging.getLogger(__name__)

# vLLM's comes first: vLLM points Inductor and Triton into its own cache, which covers theirs.
ADAPTERS: tuple[Adapter, ...] = (
    # Places that a server chooses come first. The server sets a compiler's variable to such a place, and the cache
    # must have the same name in the server's process and in others.
    VllmAdapter(),
    VllmModelInfosAdapter(),
    VllmStartupPlanAdapter(),
    VllmDeepGemmAdapter(),
    FlashInferAutotuneAdapter(),
    SglangJitAdapter(),
    SglangCuteAdapter(),
    SglangInductorAdapter(),
    SglangTritonAdapter(),
    SglangFlashInferAdapter(),
    SglangDeepGemmAdapter(),
    SglangTileLangAdapter(),
    SglangGraphsAdapter(),
    SglangDiffusionInductorAdapter(),
    SglangDiffusionTritonAdapter(),
    SglangOldDeepGemmAdapter(),
    SglangRustAdapter(),
    HelionAdapter(),
    InductorAdapter(),
    HeadersAdapter(),
    TritonAdapter(),
    FlashInferKnobsAdapter(),
    FlashInferAdapter(),
    DeepGemmAdapter(),
    TileLangAdapter(),
    CuteDslAdapter(),
    TvmFfiAdapter(),
    TorchExtensionsAdapter(),
    CudaAdapter(),
    TunableOpAdapter(),
    *KERNEL_ADAPTERS,
    AiterAdapter(),
    AiterTemplatesAdapter(),
)


_BY_NAME = {adapter.name: adapter for adapter in ADAPTERS}
_BOUND = tuple(adapter for adapter in ADAPTERS if type(adapter).root is not Adapter.root)
"""Those whose units are bound to more than the environment key."""
_NO_CACHE = "/dev/null/"
"""A cache with a path there is switched off."""


def all_adapters(wanted: Callable[[str], bool] = bool) -> list[Adapter]:
    """List the adapters of this package and of other packages.

    Args:
        wanted: Whether the cache with a name is used. The adapter of another package is imported only then. Default:
            all caches.
    """
    built_in = [adapter for adapter in (*ADAPTERS, *_extra()) if wanted(adapter.name)]
    return [*built_in, *_of_plugins(wanted)]


def find_adapter(root: str) -> Adapter | None:
    """The adapter whose units a pack holds under a name; None if there is none that works."""
    if (adapter := _BY_NAME.get(root)) is not None and adapter.root == root:
        return adapter
    others = (*_BOUND, *_extra(), *_of_plugins(root.startswith))
    return next((adapter for adapter in others if adapter.root == root), None)


def _extra() -> Sequence[Adapter]:
    """The adapters of the caches that an operator adds; none if the variable is wrong."""
    if not (text := os.environ.get(EXTRA_CACHES)):  # the usual case: nothing more is imported
        return ()
    with no_fork:
        from .extra import extra_adapters

    try:
        return extra_adapters(text)
    except ConfigurationError:
        return ()


def _of_plugins(wanted: Callable[[str], bool]) -> Sequence[Adapter]:
    if not plugins.installed.of(plugins.ADAPTERS):  # the usual case: nothing more is imported
        return ()
    with no_fork:
        from .plugins import plugin_adapters

    return plugin_adapters.usable(_BY_NAME, wanted)


class Neighbour(NamedTuple):
    """Another cache with the same directory, or with a directory in this one or around it."""

    adapter: Adapter
    inside: str
    """Its path in this cache, with a slash at the end; empty if it is not in this cache."""
    around: str
    """The path of this cache in it, with a slash at the end; empty if this cache is not in it."""
    takes_first: bool
    """Whether a file that could belong to both belongs to it."""

    def claims(self, path: str) -> bool:
        """Whether a file of this root could be one of the neighbour's artifacts."""
        there = self._there(path)
        return bool(there) and self.adapter.unit_of(there) is not None

    def knows(self, path: str) -> bool:
        """Whether the neighbour writes such a file or folder, or has its directory in it."""
        if self.inside.startswith(f"{path}/"):
            return True
        there = self._there(path)
        return bool(there) and (
            self.adapter.leaves_here(there)
            or self.adapter.unit_of(there) is not None
            or not self.adapter.skips_folder(there)
        )

    def _there(self, path: str) -> str:
        """A path of this root as a path of the neighbour; empty if the neighbour has no such path."""
        if self.inside:
            return path[len(self.inside) :] if path.startswith(self.inside) else ""
        return self.around + path


@dataclass(frozen=True)
class CacheRoot:
    """A directory in which a compiler keeps artifacts, and the adapter that knows it."""

    adapter: Adapter
    path: Path
    nested: tuple[Path, ...] = ()
    """Directories in this root that are never entered: the store, the work directory, the node's cache."""
    reserved: tuple[tuple[str, str], ...] = ()
    """Other places in this root that are never saved, and what they are. Only if every other file of it is."""
    outer: Path | None = None
    """The outermost root that contains this one; None if there is none."""
    may_be_shared: bool = False
    """Whether it is used even if other users could have written there."""

    neighbours: tuple[Neighbour, ...] = ()
    """Caches with the same directory, or with a directory in this one or around it."""

    def unit_of(self, path: str) -> Unit | None:
        """The unit of a file; None if the file is no artifact, or belongs to a neighbour."""
        unit = self.adapter.unit_of(path)
        if unit is None or not self.neighbours:
            return unit
        return None if any(other.takes_first and other.claims(path) for other in self.neighbours) else unit

    def knows(self, path: str) -> bool:
        """Whether this compiler or a neighbour writes such a file or folder."""
        return (
            self.adapter.leaves_here(path)
            or any(str(place).startswith(f"{self.path}/{path}") for place in self.nested)
            or any(other.knows(path) for other in self.neighbours)
        )

    @property
    def other_places(self) -> frozenset[str]:
        """Paths in this root that are never entered, relative to it: the store, for example.

        Of an extra cache also the places of another use and of other caches.
        """
        inside = len(str(self.path)) + 1
        places = {str(path)[inside:] for path in self.nested}
        if self.adapter.takes_everything:
            places |= {other.inside[:-1] for other in self.neighbours if other.inside}
            places |= {path for path, _use in self.reserved}
        return frozenset(places)

    @property
    def outermost(self) -> Path:
        """The directory beside which staging and lock lie. They must not make an outer root look used."""
        return self.outer or self.path

    @property
    def name(self) -> str:
        """The name of this cache in packs."""
        return self.adapter.root


class LocatedCaches(NamedTuple):
    """The caches of this process."""

    roots: list[CacheRoot]
    """The caches that can be used, whether or not they exist."""
    refused: Mapping[str, ConfigurationError]
    """Why other caches are not used, by name."""


def cache_roots(config: Config) -> list[CacheRoot]:
    """The roots of :func:`locate_caches`."""
    return locate_caches(config).roots


def locate_caches(config: Config) -> LocatedCaches:
    """Find the root of every cache. A root inside another that covers it is left out, as is one at ``/dev/null``.

    A variable with a wrong place affects only its own cache. A cache at a URL is its compiler's own: it is left out.

    Raises:
        ConfigurationError: B10_CACHES is wrong.
    """
    known = [
        *_BY_NAME,
        *(adapter.name for adapter in _extra()),
        *(plugin.name for plugin in plugins.installed.of(plugins.ADAPTERS)),
    ]
    if unknown := config.caches.named - set(known):
        raise ConfigurationError("B10_CACHES", ", ".join(sorted(unknown)), f"the caches are {', '.join(known)}")
    found: list[CacheRoot] = []
    refused: dict[str, ConfigurationError] = {}
    uses = other_uses(config.reader)
    closed = closed_places(config.reader) if _extra() else {}
    for adapter in all_adapters(config.caches.__contains__):
        try:
            path = adapter.locate(config.reader)
            if path is None or f"{path}/".startswith(_NO_CACHE):
                continue
            path = resolve(_variable(adapter), str(path))  # the last part may be a link, too
            _check_is_other(adapter, path, found, config)
            if any(root.adapter.covers(str(root.path), str(path), adapter) for root in found):
                continue
            _check_use(adapter, str(path), uses, closed, config)
            adapter.check_place(config.reader, path)
            found.append(CacheRoot(adapter, path))
        except RemotePathError as error:
            message = f"{error.variable}={error.value} is a URL: the cache {adapter.name} is neither saved nor restored"
            notices.log(logger, logging.WARNING, f"{message}. To save it here, name a local directory")
        except ConfigurationError as error:
            refused[adapter.root] = error
    return LocatedCaches(_related(found, config, {**closed, **uses}), refused)


def _check_is_other(adapter: Adapter, path: Path, found: Iterable[CacheRoot], config: Config) -> None:
    """Raise ConfigurationError if another extra cache is at the same path."""
    if adapter.takes_everything:
        for root in found:
            if root.path == path and root.adapter.takes_everything:
                rule = f"{root.name} and {adapter.root} are both at {path}: remove one of them"
                raise ConfigurationError(EXTRA_CACHES, config.reader.text(EXTRA_CACHES) or "", rule)


def _check_use(adapter: Adapter, path: str, uses: Mapping[str, str], closed: Mapping[str, str], config: Config) -> None:
    """Raise ConfigurationError if a directory clearly has another use than a cache."""
    use = _closed_use(path, closed, config) if adapter.takes_everything else None
    advice = "elsewhere" if use else "for example in it"
    if use is None:
        use = "part of a model hub" if lies_in_a_hub(path) else uses.get(path)
    if use is None and isinstance(config.store, Path) and is_below(Path(path), [config.store]):
        use = "part of the store"
    if use is not None:
        names = [variable.name for variable in adapter.variables if config.reader.text(variable.name)]
        name = names[-1] if names else _variable(adapter)
        rule = f"{path} is {use}, no cache: point {name} at a directory of its own, {advice}"
        raise ConfigurationError(name, config.reader.text(name) or path, rule)


def _closed_use(path: str, closed: Mapping[str, str], config: Config) -> str | None:
    """What a directory is of which no part may be published; None if it may be."""
    if path == str(config.work_dir):
        return "the directory for temporary files (LOCAL_WORK_DIR)"
    own = {str(config.store): "the store", str(config.node_cache): "the node's cache of packs (B10_NODE_CACHE)"}
    return closed_by_name(path) or use_at(path, {**closed, **own})


def _variable(adapter: Adapter) -> str:
    return adapter.variables[-1].name if adapter.variables else adapter.name


def _related(found: Sequence[CacheRoot], config: Config, uses: Mapping[str, str]) -> list[CacheRoot]:
    """The same roots, each with the caches in it and around it, and an extra cache with the places of another use."""
    # A store in a cache would otherwise save its own packs, again and again.
    # Compared as text: with ``Path.parents`` the places of twenty caches take 8 ms.
    foreign = {
        f"{path}/": path for path in (config.store, config.work_dir, config.node_cache) if isinstance(path, Path)
    }
    places = [f"{root.path}/" for root in found]
    return [
        CacheRoot(
            root.adapter,
            root.path,
            nested=tuple(path for text, path in foreign.items() if text.startswith(own) and text != own),
            reserved=tuple((path[len(own) :], use) for path, use in uses.items() if path.startswith(own))
            if root.adapter.takes_everything
            else (),
            outer=min(
                (found[index].path for index in range(len(found)) if _is_in(own, places[index])),
                key=_length,
                default=None,
            ),
            may_be_shared=config.shared_roots,
            neighbours=tuple(_neighbours(number, found, places)),
        )
        for number, (own, root) in enumerate(zip(places, found, strict=True))
    ]


def _is_in(place: str, other: str) -> bool:
    return place.startswith(other) and place != other


def _length(path: Path) -> int:
    return len(str(path))


def _neighbours(number: int, roots: Sequence[CacheRoot], places: Sequence[str]) -> Iterator[Neighbour]:
    """The innermost of several caches takes a file; of those in one directory the first."""
    own = places[number]
    for index, (root, place) in enumerate(zip(roots, places, strict=True)):
        if index != number and (place.startswith(own) or own.startswith(place)):
            inside, around = place[len(own) :], own[len(place) :]
            takes_first = bool(inside) or (not around and index < number)
            yield Neighbour(root.adapter, inside, around, takes_first)


def named(roots: Sequence[CacheRoot]) -> str:
    """The roots' paths in a sentence: ``a``, ``a and b``, ``a, b and c``."""
    *others, last = dict.fromkeys(str(root.path) for root in roots)  # two caches may share a directory
    return f"{', '.join(others)} and {last}" if others else last


__all__ = [
    "ADAPTERS",
    "Adapter",
    "CacheRoot",
    "EnvReader",
    "Layout",
    "LocatedCaches",
    "Unit",
    "UnitKind",
    "Variable",
    "all_adapters",
    "cache_roots",
    "closed_by_name",
    "find_adapter",
    "folder_shape",
    "is_transient",
    "locate_caches",
    "named",
    "stem_shape",
]
