"""Files that collect results: what all publications of one hold together."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from ..adapters.accumulation import MOST_BYTES
from ..errors import PackError
from .admission import results_of
from .repository import ReadRepository
from .union import Union

logger = logging.getLogger(__name__)

_MOST_READ = 256 * 1024 * 1024
"""So many bytes of such files one operation reads, and beyond that only the latest publication of each."""


def are_spread(union: Union, name: str) -> bool:
    """Whether a unit, by its name in packs, is a file that collects results, and several publications hold some."""
    root, _, path = name.partition("/")
    return results_of(root, path) is not None and len(union.versions(name)) > 1


class CollectedResults:
    """Merges the results of all publications, within limits for one operation.

    Every byte is verified, and a pack that cannot be read is passed over.

    Args:
        repository: Where the packs are.
        union: What they hold.
    """

    def __init__(self, repository: ReadRepository, union: Union) -> None:
        self._repository = repository
        self._union = union
        self._left = _MOST_READ

    def of(self, name: str) -> bytes | None:
        """All results of a unit, by its name in packs.

        Returns:
            The content of the merged file; None if the unit is no such file, or nothing of it is sound or fits.
        """
        root, _, path = name.partition("/")
        results = results_of(root, path)
        return None if results is None else results.merge_all(self._versions(name), name)

    def _versions(self, name: str) -> Iterator[bytes]:
        """The files of all publications, the newest first."""
        versions = self._union.versions(name)[::-1]
        if versions[0][1].size > MOST_BYTES:
            return  # the latest stays
        for number, (pack, unit) in enumerate(versions):
            if number and unit.size > min(MOST_BYTES, self._left):
                continue
            self._left -= unit.size
            try:
                with self._repository.opened(pack) as reader:
                    found = reader.read_members(pack.index, unit.members)
                    data = b"".join(bytes(piece.data) for piece in found)
            except PackError as error:
                logger.debug("%s; its results are left out", error)
                continue
            yield data
