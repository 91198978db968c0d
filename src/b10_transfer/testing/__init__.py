"""Tests that every store must pass, and a store in memory. For packages that add a store (docs/extending.md).

:class:`StoreContract` needs pytest, which is imported only together with it.
"""

from __future__ import annotations

from .memory import MemoryStore
from .place import StorePlace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .contract import StoreContract

__all__ = ["MemoryStore", "StoreContract", "StorePlace"]


def __getattr__(name: str) -> object:
    if name != "StoreContract":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import pytest

    # A failed check then shows the values that it compared.
    pytest.register_assert_rewrite(f"{__name__}.contract", f"{__name__}.readers")
    from .contract import StoreContract

    return StoreContract
