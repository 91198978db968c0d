"""The check that every subcommand makes before it changes the store."""

from __future__ import annotations

from ..config import Config
from ..errors import ReadOnlyStoreError


def require_write_access(config: Config) -> None:
    """Raise ReadOnlyStoreError if ``B10_READ_ONLY`` forbids this pod to change the store."""
    if config.read_only:
        rule = "B10_READ_ONLY=1: this pod may not change the store; unset it, or run this where it is not set"
        raise ReadOnlyStoreError("change", str(config.store), rule)
