"""What a supervisor has seen of one server: for ``run --report`` and for metrics."""

from __future__ import annotations

import json
import logging
import os
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ..local.usage import CacheReport
from ..operations.edge import facts_of
from ..status import LoadReport, OperationStatus, SaveReport
from ..version import __version__

logger = logging.getLogger(__name__)


class Monitor:
    """Keeps the results of a server's load and saves, and its use of the caches."""

    def __init__(self) -> None:
        self.on_change: Callable[[], None] = lambda: None
        """Called after every change, in the thread that made it."""
        self.load: LoadReport | None = None
        self.use: CacheReport | None = None
        self.saves: Counter[str] = Counter()
        """Saves by status."""
        self.saved_units = 0
        self.saved_bytes = 0
        self.save_seconds = 0.0
        self.last_save_s: float | None = None
        """The time of the last save that left nothing to save, in seconds since the epoch."""

    def loaded(self, report: LoadReport) -> None:
        """Note the result of the load."""
        self.load = report
        self.on_change()

    def saved(self, report: SaveReport) -> None:
        """Note the result of a save."""
        self.saves[report.status.name] += 1
        self.saved_units += report.units
        self.saved_bytes += report.bytes
        self.save_seconds += report.seconds
        if report.status is not OperationStatus.ERROR and not report.read_only and not report.left_for_next_save:
            self.last_save_s = time.time()
        self.on_change()

    def used(self, report: CacheReport) -> None:
        """Log and note how the server used the caches."""
        logger.info("%s", report.summary, extra={"event": "usage", "fields": report.facts()})
        for cache in report.caches:
            logger.log(cache.log_level, "%s", cache)
        self.use = report
        self.on_change()

    def write_report(self, path: str, exit_code: int) -> None:
        """Write a summary as JSON, for ``run --report``. A failure is logged."""
        summary = {
            "version": __version__,
            "exit_code": exit_code,
            "load": None if self.load is None else facts_of(self.load),
            "usage": None if self.use is None else self.use.facts(),
            "saves": {
                "by_status": dict(self.saves),
                "units": self.saved_units,
                "bytes": self.saved_bytes,
                "seconds": round(self.save_seconds, 3),
            },
        }
        try:
            replace_file(path, (json.dumps(summary, indent=2) + "\n").encode())
        except OSError as error:
            logger.error("the report %s cannot be written: %s", path, error.strerror)


class Outputs:
    """What this command shows of a monitor to programs: a report at the end, and metrics."""

    def __init__(
        self, report: str | None = None, metrics_port: int | None = None, metrics_file: str | None = None
    ) -> None:
        """
        Args:
            report: A file for a JSON summary at the end. Default: none.
            metrics_port: The TCP port to serve metrics at. Default: none.
            metrics_file: A file to keep metrics in. Default: none.
        """
        self.monitor = Monitor()
        self._report = report
        self._port = metrics_port
        self._file = metrics_file
        self._flush: Callable[[], None] = lambda: None

    def begin(self) -> None:
        """Begin to show metrics, if they are requested. A failure is logged."""
        if self._port is None and self._file is None:
            return
        try:
            from .metrics import Exposition

            self._flush = Exposition(self.monitor, self._port, self._file).flush
        except ImportError as error:
            logger.error("metrics are off: %s; install b10-transfer[metrics]", error)
        except Exception:
            logger.exception("metrics are off, because of an unexpected error")

    def end(self, exit_code: int) -> int:
        """Write what is due at the end. Returns the exit code."""
        self._flush()
        if self._report is not None:
            self.monitor.write_report(self._report, exit_code)
        return exit_code


def replace_file(path: str, data: bytes) -> None:
    """Write a file so that readers see the old content or the new one. Raises OSError."""
    new = Path(f"{path}.{os.getpid()}.tmp")
    try:
        new.write_bytes(data)
        new.replace(path)
    except OSError:
        with suppress(OSError):
            new.unlink()
        raise
