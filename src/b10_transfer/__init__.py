"""Saves torch.compile artifacts in shared storage and restores them, so that a new replica starts warm.

One call in a program that compiles::

    from b10_transfer import load_compile_cache

    load_compile_cache(autosave=True)
    model = torch.compile(model)

Or two::

    from b10_transfer import load_compile_cache, save_compile_cache

    load_compile_cache()
    model = torch.compile(model)
    model(example)  # warm up
    save_compile_cache()

:func:`load` and :func:`save` do the same and return a report. No function here raises an error or imports torch, except
for ``load(instant=True)``, which imports torch.
"""

from __future__ import annotations

from .version import __version__

TYPE_CHECKING = False  # type checkers know this name; importing typing would cost every worker process 4 ms
if TYPE_CHECKING:
    from .compat import (
        clear_local_cache,
        get_b10_logger,
        get_cache_info,
        list_available_caches,
        save_vllm_compile_cache,
        transfer,
    )
    from .concurrency.deadline import Deadline
    from .errors import (
        CacheError,
        CacheOperationInterrupted,
        CacheValidationError,
        ConfigurationError,
        CorruptPackError,
        DeadlineExceededError,
        LocalCacheError,
        NoSpaceError,
        NoThreadError,
        PackError,
        PackTooLargeError,
        ReadOnlyStoreError,
        SaveTooLargeError,
        StoreError,
        UnidentifiedDeviceError,
        UnreadablePackError,
        UnsupportedPackError,
        UntrustedPackError,
    )
    from .local.usage import CacheReport, CacheUse
    from .operations.public import cache_report, load, load_compile_cache, save, save_compile_cache
    from .status import LoadReport, OperationStatus, Report, SaveReport

__all__ = [
    "CacheError",
    "CacheOperationInterrupted",
    "CacheReport",
    "CacheUse",
    "CacheValidationError",
    "ConfigurationError",
    "CorruptPackError",
    "Deadline",
    "DeadlineExceededError",
    "LoadReport",
    "LocalCacheError",
    "NoSpaceError",
    "NoThreadError",
    "OperationStatus",
    "PackError",
    "PackTooLargeError",
    "ReadOnlyStoreError",
    "Report",
    "SaveReport",
    "SaveTooLargeError",
    "StoreError",
    "UnidentifiedDeviceError",
    "UnreadablePackError",
    "UnsupportedPackError",
    "UntrustedPackError",
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

_MODULES = ("status", "errors", "concurrency.deadline", "local.usage", "operations.public", "compat")
"""The modules of these names, cheapest first."""


def __getattr__(name: str) -> object:
    # Imported on first use (PEP 562): the store's worker process starts with this package and needs little of it.
    if name in __all__:
        from importlib import import_module

        from .concurrency.collector import held_back

        with held_back():
            from .concurrency.forks import no_fork

            for module in _MODULES:
                with no_fork:
                    found = getattr(import_module(f"{__name__}.{module}"), name, None)
                if found is not None:
                    return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
