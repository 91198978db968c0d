"""Instant start: a warm start that skips Dynamo's tracing as well (docs/instant.md).

PyTorch can serialize what tracing a function came to: its guards, its bytecode, its compiled graphs. :func:`prepare`
has every later ``torch.compile`` of this process record that, and use what was recorded before; :func:`flush` writes
what was recorded below Inductor's cache directory, from where a save takes it like any other artifact.
"""

from __future__ import annotations

import importlib.util
import logging
from typing import TYPE_CHECKING

from ..concurrency.forks import no_fork
from ..environment.frameworks import torch_build
from ..errors import DeadlineExceededError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import ModuleType

    from ..concurrency.deadline import Deadline

logger = logging.getLogger(__name__)

_OLDEST_TORCH = (2, 13)
"""The oldest release that the test matrix of instant starts runs with. Older ones may differ in the same parts."""
_FIRST_UNTRIED_TORCH = (2, 15)
"""The test matrix has found wrong results with a new release before. So newer ones are refused until it passes."""
_hooks: ModuleType | None = None


def prepare(files: Sequence[Path], deadline: Deadline) -> str:
    """Set up instant starts in this process. Never raises.

    It imports torch: Dynamo must be patched before it compiles.

    Args:
        files: Files of traces that this process restored from accepted packs to a private cache. Others are not read.
        deadline: Once it has passed, nothing is patched.

    Returns:
        An empty string, or the reason why this process has no instant starts.
    """
    global _hooks
    try:
        if importlib.util.find_spec("torch") is None:
            return "torch is not installed"
        if (torch := torch_build()).is_before(_OLDEST_TORCH):
            return f"torch {torch.version} is too old, instant starts need {'.'.join(map(str, _OLDEST_TORCH))}"
        if not torch.is_before(_FIRST_UNTRIED_TORCH):
            return f"torch {torch.version} is too new, instant starts need an older one than 2.15"
        with no_fork:
            from . import hooks

        deadline.check("patching torch")
        reason = hooks.install()
        if not reason:
            hooks.accept(files)
            _hooks = hooks
        return reason
    except DeadlineExceededError as error:
        return str(error)
    except Exception as error:
        logger.debug("instant start", exc_info=True)
        return f"this torch lacks parts that instant starts need ({type(error).__name__}: {error})"


def report() -> tuple[str, ...]:
    """One line for each compiled class or function: whether it started instantly, or why not. Never raises."""
    try:
        return tuple(_hooks.report()) if _hooks is not None else ()
    except Exception:
        logger.debug("instant start", exc_info=True)
        return ()


def flush() -> int:
    """Write the traces that this process recorded; the number of files. Never raises; does nothing unless prepared."""
    if _hooks is None:
        return 0
    try:
        return int(_hooks.flush())
    except Exception as error:  # noqa: BLE001 - the ordinary artifacts are saved all the same
        logger.warning("instant start: traces could not be written: %s", error)
        return 0
