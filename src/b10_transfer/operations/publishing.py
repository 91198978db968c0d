"""Publish units in as many packs as the limits ask for. Each pack is complete by itself, and each unit is in one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

from ..concurrency.deadline import Deadline
from ..errors import PackTooLargeError, SaveTooLargeError, count
from ..local import snapshot
from ..local.files import LocalUnit
from ..local.snapshot import Packed
from ..pack import Budget, Index, PackWriter
from ..pack.spool import building_errors, spool
from ..repository.repository import Repository


@dataclass
class Published:
    """What was published of some units, and what was not."""

    packs: list[str] = field(default_factory=list)
    units: int = 0
    files: int = 0
    bytes: int = 0
    packed_bytes: int = 0
    left_out: Packed = field(default_factory=Packed)

    def count(self, pack_id: str, index: Index, packed_bytes: int) -> None:
        """Note that a pack was published."""
        self.packs.append(pack_id)
        self.units += len(index.units)
        self.files += sum(len(unit.members) for unit in index.units)
        self.bytes += sum(unit.size for unit in index.units)
        self.packed_bytes += packed_bytes


class Publisher:
    """Publishes units for one save."""

    def __init__(
        self,
        repository: Repository,
        work_dir: Path,
        deadline: Deadline,
        transferring: Callable[[], AbstractContextManager[None]],
        on_published: Callable[[str], None],
        facts: Mapping[str, str],
    ) -> None:
        """
        Args:
            repository: Where packs go.
            work_dir: Where packs are built, one at a time.
            deadline: Of the save.
            transferring: A context in which one pack is transferred.
            on_published: Given the id of each pack when it is part of the union.
            facts: Recorded in the packs, beside the facts of the environment.
        """
        self._repository = repository
        self._work_dir = work_dir
        self._deadline = deadline
        self._transferring = transferring
        self._on_published = on_published
        self._facts = facts

    def publish(self, units: Sequence[LocalUnit]) -> Published:
        """Publish units. Raises CacheError if a pack cannot be built or published; earlier packs stay."""
        done = Published()
        left = snapshot.in_order(units)
        snapshot.log_times(left)
        budget = Budget(self._repository.limits)
        while left:
            with spool(self._work_dir) as out:
                index = self._build(left, out, done.left_out)
                if index is None:
                    break
                try:
                    # A load takes so many packs together: what no load would take is not published.
                    budget.take("", index.memory, index.room_bytes)
                except PackTooLargeError as error:
                    count = len(index.units) + len(left)
                    done.left_out.too_large.append(_over_budget(count, error))
                    break
                with self._transferring():
                    pack_id = self._repository.publish(out)
                self._on_published(pack_id)
                done.count(pack_id, index, out.tell())
        if done.left_out.unreadable and not done.packs:
            raise done.left_out.unreadable[0]
        return done

    def _build(self, left: deque[LocalUnit], out: BinaryIO, left_out: Packed) -> Index | None:
        """Build a pack of the first units; None if none of them could be packed."""
        repository = self._repository
        with building_errors(self._work_dir), PackWriter(out, repository.limits, self._deadline) as writer:
            snapshot.pack(left, writer, left_out)
            if writer.is_empty:
                return None
            known = repository.environment
            # Not of merged packs, which hold what several servers compiled.
            environment = replace(known, recorded={**known.recorded, **self._facts})
            return writer.finish(repository.namespace, environment)


def _over_budget(units: int, error: PackTooLargeError) -> SaveTooLargeError:
    what = "more than one load takes beside the packs that were just published"
    return SaveTooLargeError(f"a pack of the last {count(units, 'unit')}", what, error.limit, error.variable)
