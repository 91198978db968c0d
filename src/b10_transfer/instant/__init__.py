"""Instant start: a warm start that skips Dynamo's tracing as well (docs/instant.md).

PyTorch can serialize what tracing a function came to: its guards, its bytecode, its compiled graphs. :func:`prepare`
has every later ``torch.compile`` of this process record that, and use what was recorded before; :func:`flush` writes
what was recorded below Inductor's cache directory, from where a save takes it like any other artifact.
"""

from __future__ import annotations

import importlib.util
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType

logger = logging.getLogger(__name__)

_hooks: ModuleType | None = None


def prepare() -> str:
    """Set instant starts up in this process; empty, or why they cannot be had here. Never raises.

    Imports torch: whoever asks for an instant start is about to compile, and torch has to be told before that.
    """
    global _hooks
    try:
        if importlib.util.find_spec("torch") is None:
            return "torch is not installed"
        from . import hooks

        reason = hooks.install()
        if not reason:
            _hooks = hooks
        return reason
    except Exception as error:
        logger.debug("instant start", exc_info=True)
        return f"this torch lacks what it takes ({type(error).__name__}: {error})"


def flush() -> int:
    """Write what this process has recorded since; the number of files. Never raises; does nothing unless prepared."""
    if _hooks is None:
        return 0
    try:
        return int(_hooks.flush())
    except Exception as error:  # noqa: BLE001 - the ordinary artifacts are saved all the same
        logger.warning("instant start: what was traced could not be written: %s", error)
        return 0
