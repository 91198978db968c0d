"""Opens the store of another package, in the worker process."""

from __future__ import annotations

from typing import Any

from ...config.plugins import Plugin
from ...errors import StoreError
from ..base import Store


def open_plugin(url: str, timeout_s: float, value: str, package: str) -> Store:
    """Import a plugin's factory, and call it.

    Args:
        url: URL of the store.
        timeout_s: Seconds until the deadline of the operation.
        value: The entry point, ``module:attribute``.
        package: Name and version of the package that declares it.

    Raises:
        StoreError: The factory cannot be imported, failed, or returned something else than a store.
    """
    plugin = Plugin(url.partition(":")[0], value, package)
    try:
        factory: Any = plugin.load()
        store = factory(url, timeout_s)
    except StoreError:
        raise
    except (Exception, SystemExit) as error:
        detail = f"the package {package}, which adds this store, failed: {type(error).__name__}: {error}"
        raise StoreError("open", url, detail) from error
    if not isinstance(store, Store):
        detail = f"{value} of the package {package} returned {type(store).__name__!r}, which is not a Store"
        raise StoreError("open", url, detail)
    return store
