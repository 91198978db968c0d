"""Sums up the loads and saves of this pod."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from ..errors import LocalCacheError
from ..local.statistics import forget, noted
from ..status import OperationStatus

_HIT, _MISS, _ERROR = OperationStatus.SUCCESS.name, OperationStatus.DOES_NOT_EXIST.name, OperationStatus.ERROR.name


@dataclass(frozen=True)
class Sums:
    """The loads, or the saves, of a pod."""

    count: int
    by_status: dict[str, int]
    seconds: float
    """Sum of their durations."""
    longest_s: float
    units: int
    bytes: int
    """Size of the files, unpacked."""
    packed_bytes: int
    """Bytes that were read from the store, or written to it."""

    def of(self, status: str) -> int:
        """How many ended with a status."""
        return self.by_status.get(status, 0)


@dataclass(frozen=True)
class Statistics:
    """The loads and saves of this pod since its start, or since the last ``stats --zero``."""

    since_s: float | None
    """When the first of them ended, in seconds since 1970; None if there was none."""
    hits: int
    """Loads that restored something."""
    partial_hits: int
    """Those that restored only a part of what was saved."""
    misses: int
    """Loads for which the store had nothing."""
    hit_ratio: float | None
    """Hits by hits, misses and failed loads; None if there were none. Skipped loads do not count."""
    loads: Sums
    saves: Sums


def statistics() -> Statistics:
    """Sum up what this pod has loaded and saved.

    Raises:
        LocalCacheError: The notes cannot be read.
    """
    try:
        lines = [line for line in noted() if _is_note(line)]
    except OSError as error:
        raise LocalCacheError("read", str(error.filename), error.strerror or str(error)) from error
    loads = [line for line in lines if line["operation"] == "load"]
    sums = _sums(loads)
    decided = sums.of(_HIT) + sums.of(_MISS) + sums.of(_ERROR)
    return Statistics(
        since_s=min((_number(line["time"]) for line in lines), default=None),
        hits=sums.of(_HIT),
        partial_hits=sum(line["status"] == _HIT and line.get("partial") is True for line in loads),
        misses=sums.of(_MISS),
        hit_ratio=sums.of(_HIT) / decided if decided else None,
        loads=sums,
        saves=_sums([line for line in lines if line["operation"] == "save"]),
    )


def reset() -> None:
    """Begin to count anew.

    Raises:
        LocalCacheError: The notes cannot be deleted.
    """
    try:
        forget()
    except OSError as error:
        raise LocalCacheError("delete", str(error.filename), error.strerror or str(error)) from error


def _sums(lines: Iterable[dict[str, object]]) -> Sums:
    lines = list(lines)
    totals: Counter[str] = Counter()
    for line in lines:
        for name in ("units", "bytes", "packed_bytes"):
            totals[name] += int(_number(line[name]))
    seconds = [_number(line["seconds"]) for line in lines]
    by_status = dict(sorted(Counter(str(line["status"]) for line in lines).items()))
    return Sums(
        count=len(lines),
        by_status=by_status,
        seconds=round(sum(seconds), 3),
        longest_s=max(seconds, default=0.0),
        units=totals["units"],
        bytes=totals["bytes"],
        packed_bytes=totals["packed_bytes"],
    )


def _is_note(line: dict[str, object]) -> bool:
    """Whether this version can count a line. Another version may write others."""
    numbers = ("time", "seconds", "units", "bytes", "packed_bytes")
    return (
        line.get("operation") in ("load", "save")
        and line.get("status") in OperationStatus.__members__
        and all(isinstance(line.get(name), int | float) for name in numbers)
    )


def _number(value: object) -> float:
    assert isinstance(value, int | float)
    return value
