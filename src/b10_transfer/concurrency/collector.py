"""Holds back Python's garbage collector for a short time.

An import or a load allocates enough to trigger full collections. A collection visits every object of the program, and
a program that has imported torch has hundreds of thousands. So the collections would take longer than the load.

The thresholds are raised, and the collector stays enabled: it still runs after very many allocations, and a program may
call ``gc.disable()`` or ``gc.enable()`` meanwhile.
"""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_HELD_BACK = 999_983
"""Net allocations until the next collection. An odd number: a program that sets its own thresholds is recognised."""


class _State:
    """The number of callers that hold the collector back, and the thresholds before the first of them."""

    def __init__(self) -> None:
        # Reentrant: a signal handler may load while this thread has the lock.
        self.lock = threading.RLock()
        self.callers = 0
        self.before: tuple[int, int, int] | None = None


_state = _State()


@contextmanager
def held_back() -> Iterator[None]:
    """Hold back the collector in this context. Contexts may nest, and overlap in several threads."""
    with _state.lock:
        _state.callers += 1
        first, second, third = gc.get_threshold()
        if _state.before is None and 0 < first < _HELD_BACK:
            _state.before = (first, second, third)
            gc.set_threshold(_HELD_BACK, second, third)
    try:
        yield
    finally:
        with _state.lock:
            # A child forked in a context has restored the thresholds, and counts no callers.
            _state.callers = max(0, _state.callers - 1)
            if not _state.callers:
                _restore()


def _restore() -> None:
    before, _state.before = _state.before, None
    if before is not None and gc.get_threshold()[0] == _HELD_BACK:  # else the program has set its own
        gc.set_threshold(*before)


def _in_child() -> None:
    """Restore the thresholds in a forked child: it has none of the threads that would."""
    global _state
    before = _state.before
    _state = _State()
    _state.before = before
    _restore()


os.register_at_fork(after_in_child=_in_child)
