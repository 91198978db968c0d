"""What ``run`` remembers of loads and saves, for reports and metrics."""

from __future__ import annotations

import pytest

from b10_transfer.launcher.monitor import Monitor
from b10_transfer.status import OperationStatus, SaveReport


@pytest.mark.parametrize(
    ("report", "leaves_nothing"),
    [
        (SaveReport(OperationStatus.SUCCESS, ""), True),
        (SaveReport(OperationStatus.SKIPPED, ""), True),
        (SaveReport(OperationStatus.SUCCESS, "", left_for_next_save=1), False),
        (SaveReport(OperationStatus.SKIPPED, "", left_for_next_save=1), False),
        (SaveReport(OperationStatus.SKIPPED, "", read_only=True), False),
        (SaveReport(OperationStatus.ERROR, ""), False),
    ],
)
def test_last_save_that_left_nothing_to_save_is_remembered(report: SaveReport, leaves_nothing: bool) -> None:
    monitor = Monitor()
    monitor.saved(report)
    assert (monitor.last_save_s is not None) is leaves_nothing
