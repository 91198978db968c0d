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

from .operations import load, load_compile_cache, save, save_compile_cache
from .status import LoadReport, OperationStatus, SaveReport

__all__ = [
    "LoadReport",
    "OperationStatus",
    "SaveReport",
    "load",
    "load_compile_cache",
    "save",
    "save_compile_cache",
]
