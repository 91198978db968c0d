"""Files that collect results: what all publications of one hold together."""

from __future__ import annotations

import logging

from ..adapters.accumulation import MOST_BYTES
from ..errors import PackError
from .admission import results_of
from .repository import ReadRepository
from .union import Union

logger = logging.getLogger(__name__)


def are_spread(union: Union, name: str) -> bool:
    """Whether a unit, by its name in packs, is a file that collects results, and several publications hold some."""
    root, _, path = name.partition("/")
    return results_of(root, path) is not None and len(union.versions(name)) > 1


def collected_results(repository: ReadRepository, union: Union, name: str) -> bytes | None:
    """All results that the packs hold of a unit. Every byte is verified, and a pack that cannot be read is passed over.

    Args:
        repository: Where the packs are.
        union: What they hold.
        name: The unit's name in packs.

    Returns:
        The content of the merged file; None if the unit is no such file, or nothing of it is sound.
    """
    root, _, path = name.partition("/")
    results = results_of(root, path)
    if results is None:
        return None
    found = []
    for pack, unit in union.versions(name):
        if unit.size > MOST_BYTES:
            continue
        try:
            with repository.opened(pack) as reader:
                found.append(b"".join(bytes(piece.data) for piece in reader.read_members(pack.index, unit.members)))
        except PackError as error:
            logger.debug("%s; its results are left out", error)
    return results.merge_all(found, name)
