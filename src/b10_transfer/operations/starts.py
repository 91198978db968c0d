"""Records which units a warm start used, so that later loads may restore these first."""

from __future__ import annotations

import logging

from ..concurrency.deadline import Deadline
from ..config import Config
from ..environment import identify
from ..errors import count
from ..local.usage import Usage
from ..pack import Limits
from ..repository import compaction
from ..repository.repository import Repository
from ..stores.opening import opened

logger = logging.getLogger(__name__)

_COMPACTING_S = 30.0
"""For the few starts of a day that have created a record. A pack of 64 MB, the largest, takes some seconds."""
_DEADLINE_S = 5.0
"""For some small requests, before the last save of a server perhaps."""
_recorded: dict[tuple[str, str], set[str]] = {}
"""The units that this process has recorded, by store and namespace."""


def record_start(usage: Usage, config: Config, *, compacts: bool = True) -> bool:
    """Record the units that a start used, if this pod's loads depend on such records. No caller waits for it.

    Args:
        usage: What was restored, and how it was used.
        config: The settings.
        compacts: Whether a new record may compact packs, which takes at most 30 s. Default: true.

    Returns:
        Whether a record was created. A failure is not important: another start tries it again.
    """
    if config.read_only or config.restore_rest == "before" or not usage.is_warm:
        return False
    try:
        deadline = Deadline("recording a start", _DEADLINE_S)
        used = usage.used_units()
        known = _recorded.setdefault((str(config.store), config.namespace), set())
        if used <= known:
            return False
        with opened(config, deadline) as store:
            repository = Repository(store, config.namespace, identify(logs=False), Limits.of(config), deadline)
            is_new = repository.record_start(used)
        known |= used
    except Exception as error:  # noqa: BLE001 - it only makes later loads faster
        logger.debug("the units that this start used are not recorded: %s", error)
        return False
    if is_new:
        logger.info("recorded that this start used %s", count(len(used), "unit"))
        if compacts:
            _compact(config)
    return is_new


def _compact(config: Config) -> None:
    """Put the units that starts use into frames of their own, so that loads need not fetch the others with them."""
    try:
        compaction.compact(config, identify(logs=False), Deadline("compacting", _COMPACTING_S))
    except Exception as error:  # noqa: BLE001 - the packs stay as they are
        logger.debug("the packs stay as they are until the next record: %s", error)
