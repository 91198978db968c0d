"""What is known of each compiler's cache: where it is, which files are artifacts, how they group into units.

One file adds one: write a subclass of :class:`Adapter` in a module of its own and name it in :data:`ADAPTERS`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..config import Config
from ..config.reader import resolve
from ..errors import ConfigurationError
from .base import Adapter, Unit, UnitKind
from .cuda import CudaAdapter
from .cute_dsl import CuteDslAdapter
from .deep_gemm import DeepGemmAdapter, VllmDeepGemmAdapter
from .flashinfer import FlashInferAdapter, FlashInferAutotuneAdapter
from .headers import HeadersAdapter
from .inductor import InductorAdapter
from .sglang import (
    SglangCuteAdapter,
    SglangDeepGemmAdapter,
    SglangFlashInferAdapter,
    SglangInductorAdapter,
    SglangJitAdapter,
    SglangTileLangAdapter,
    SglangTritonAdapter,
)
from .tilelang import TileLangAdapter
from .torch_extensions import TorchExtensionsAdapter
from .triton import TritonAdapter
from .tvm_ffi import TvmFfiAdapter
from .vllm import VllmAdapter
from .vllm_modelinfos import VllmModelInfosAdapter

# vLLM's first: it points Inductor and Triton into its own cache, and takes theirs along.
ADAPTERS: tuple[Adapter, ...] = (
    # Places that a server chooses come first: it sets a compiler's variable to one, and a cache keeps its name.
    VllmAdapter(),
    VllmModelInfosAdapter(),
    VllmDeepGemmAdapter(),
    FlashInferAutotuneAdapter(),
    SglangJitAdapter(),
    SglangCuteAdapter(),
    SglangInductorAdapter(),
    SglangTritonAdapter(),
    SglangFlashInferAdapter(),
    SglangDeepGemmAdapter(),
    SglangTileLangAdapter(),
    InductorAdapter(),
    HeadersAdapter(),
    TritonAdapter(),
    FlashInferAdapter(),
    DeepGemmAdapter(),
    TileLangAdapter(),
    CuteDslAdapter(),
    TvmFfiAdapter(),
    TorchExtensionsAdapter(),
    CudaAdapter(),
)


_NO_CACHE = "/dev/null/"
"""A cache whose path leads there is switched off."""


@dataclass(frozen=True)
class CacheRoot:
    """A directory in which a compiler keeps artifacts, and the adapter that knows it."""

    adapter: Adapter
    path: Path
    nested: tuple[Path, ...] = ()
    """What lies below this root and is none of its own: other roots, the store."""
    outer: Path | None = None
    """The outermost root that this one is nested in, if it is."""
    may_be_shared: bool = False
    """Whether it is used even if other users could have put something there."""

    @property
    def outermost(self) -> Path:
        """Beside this lie the root's staging and its lock: nothing of ours shall make an outer root look in use."""
        return self.outer or self.path

    @property
    def name(self) -> str:
        """What the root's files are filed under in a pack."""
        return self.adapter.name


@dataclass(frozen=True)
class LocatedCaches:
    """The caches of this process."""

    roots: list[CacheRoot]
    """Those that can be used, whether or not they exist yet."""
    refused: Mapping[str, ConfigurationError]
    """Why a cache is not used at the place where it is, by its name."""


def cache_roots(config: Config) -> list[CacheRoot]:
    """The roots of :func:`locate_caches`."""
    return locate_caches(config).roots


def locate_caches(config: Config) -> LocatedCaches:
    """Find the root of every cache. A root inside another that covers it is left out, as is one at ``/dev/null``.

    A variable that puts a cache where it must not be affects that cache alone. Raises ConfigurationError if B10_CACHES
    is wrong.
    """
    if unknown := config.caches.named - {adapter.name for adapter in ADAPTERS}:
        known = ", ".join(adapter.name for adapter in ADAPTERS)
        raise ConfigurationError("B10_CACHES", ", ".join(sorted(unknown)), f"the caches are {known}")
    found: list[CacheRoot] = []
    refused: dict[str, ConfigurationError] = {}
    for adapter in ADAPTERS:
        if adapter.name not in config.caches:
            continue
        try:
            path = adapter.locate(config.reader)
            if path is None or f"{path}/".startswith(_NO_CACHE):
                continue
            path = resolve(_variable(adapter), str(path))  # the last part may be a link, too
            if any(root.adapter.covers(str(root.path), str(path)) for root in found):
                continue
            adapter.check_place(config.reader, path)
            found.append(CacheRoot(adapter, path))
        except ConfigurationError as error:
            refused[adapter.name] = error
    return LocatedCaches(_related(found, config), refused)


def _variable(adapter: Adapter) -> str:
    return adapter.variables[-1].name if adapter.variables else adapter.name


def _related(found: Sequence[CacheRoot], config: Config) -> list[CacheRoot]:
    """The same roots, each knowing what lies in it and around it."""
    # A store in a cache would otherwise save its own packs, again and again.
    # Compared as text: with ``Path.parents`` the places of twenty caches take 8 ms.
    foreign = {
        f"{path}/": path for path in (config.store, config.work_dir, config.node_cache) if isinstance(path, Path)
    }
    places = {f"{root.path}/": root.path for root in found}
    by_length = sorted(places, key=len)
    return [
        CacheRoot(
            root.adapter,
            root.path,
            nested=tuple(path for text, path in (places | foreign).items() if text.startswith(own) and text != own),
            outer=next((places[text] for text in by_length if own.startswith(text) and text != own), None),
            may_be_shared=config.shared_roots,
        )
        for own, root in zip(places, found, strict=True)
    ]


def named(roots: Sequence[CacheRoot]) -> str:
    """The roots' paths in a sentence: ``a``, ``a and b``, ``a, b and c``."""
    *others, last = [str(root.path) for root in roots]
    return f"{', '.join(others)} and {last}" if others else last


__all__ = [
    "ADAPTERS",
    "Adapter",
    "CacheRoot",
    "LocatedCaches",
    "Unit",
    "UnitKind",
    "cache_roots",
    "locate_caches",
    "named",
]
