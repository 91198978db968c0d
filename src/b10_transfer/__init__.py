"""Carries torch.compile artifacts between machines, so that a new replica starts warm.

Two calls in a program that compiles::

    from b10_transfer import OperationStatus, load_compile_cache, save_compile_cache

    loaded = load_compile_cache()
    model = torch.compile(model)
    model(example)  # warm up
    if loaded is not OperationStatus.SUCCESS:
        save_compile_cache()

:func:`load` and :func:`save` do the same and return a report. Nothing here raises or imports torch.
"""

from __future__ import annotations

from .version import __version__

TYPE_CHECKING = False  # known to type checkers by its name; the module typing would cost every worker process 4 ms
if TYPE_CHECKING:
    from .compat import (
        CacheError,
        CacheOperationInterrupted,
        CacheValidationError,
        clear_local_cache,
        get_b10_logger,
        get_cache_info,
        list_available_caches,
        save_vllm_compile_cache,
        transfer,
    )
    from .local.usage import CacheReport, CacheUse
    from .operations.public import cache_report, load, load_compile_cache, save, save_compile_cache
    from .status import LoadReport, OperationStatus, SaveReport

__all__ = [
    "CacheError",
    "CacheOperationInterrupted",
    "CacheReport",
    "CacheUse",
    "CacheValidationError",
    "LoadReport",
    "OperationStatus",
    "SaveReport",
    "__version__",
    "cache_report",
    "clear_local_cache",
    "get_b10_logger",
    "get_cache_info",
    "list_available_caches",
    "load",
    "load_compile_cache",
    "save",
    "save_compile_cache",
    "save_vllm_compile_cache",
    "transfer",
]


def __getattr__(name: str) -> object:
    # Imported when first used (PEP 562): the store's worker process starts with this package and needs little of it.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .operations import public as operations

    if name in operations.__all__:
        return getattr(operations, name)
    from . import compat

    return getattr(compat, name)


def __dir__() -> list[str]:
    return sorted(__all__)
