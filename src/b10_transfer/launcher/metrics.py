"""Metrics for Prometheus: served at a port, or written to a file for node_exporter's textfile collector.

Imported only if metrics are requested. A failure is logged, and never affects the server.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence

from prometheus_client import CollectorRegistry, generate_latest, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ..status import LoadReport, OperationStatus
from ..stores import traffic
from .monitor import Monitor, replace_file

logger = logging.getLogger(__name__)

_FLUSH_S = 2.0
_STATES = (
    "usable",
    "recalled",
    "pruned",
    "set aside",
    "damaged",
    "untrusted",
    "newer",
    "not named",
    "too large",
    "not read",
    "unreadable",
)


class _Metrics(Collector):
    """The state of a monitor, as metrics."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor

    def collect(self) -> Iterator[Metric]:
        load, use = self._monitor.load, self._monitor.use
        loads = [] if load is None else [load]
        yield from _operations(self._monitor, loads)
        yield _gauge("load_seconds", "Duration of the load.", [((), load.seconds) for load in loads])
        yield _gauge("load_bytes", "Bytes that the load restored.", [((), load.bytes) for load in loads])
        yield _gauge("load_partial", "1 if the load gave only a part.", [((), bool(load.partial)) for load in loads])
        packs = [((state,), load.pack_states.get(state, 0)) for load in loads for state in _STATES]
        yield _gauge("packs", "Packs of this environment in the store at the load.", packs, ["state"])
        yield _gauge("packs_used", "Packs that the load restored from.", [((), len(load.packs)) for load in loads])
        yield _requests()
        caches = () if use is None else use.caches
        units = [((cache.cache, "restored"), cache.restored) for cache in caches]
        units += [((cache.cache, "used"), cache.used) for cache in caches if cache.used is not None]
        units += [((cache.cache, "compiled"), cache.compiled) for cache in caches]
        yield _gauge("units", "Units of a cache when its use was reported.", units, ["cache", "state"])
        verdicts = [((name,), name == use.verdict) for name in ("HIT", "PARTIAL", "MISS")] if use is not None else []
        yield _gauge("verdict", "1 for the verdict of the usage report.", verdicts, ["verdict"])
        if (last := self._monitor.last_save_s) is not None:
            yield _gauge("last_save_timestamp_seconds", "End of the last save that left nothing to save.", [((), last)])


def _operations(monitor: Monitor, loads: list[LoadReport]) -> Iterator[Metric]:
    help_text = "Loads and saves that have ended."
    ended = CounterMetricFamily("b10_compile_cache_operations", help_text, labels=["operation", "status"])
    for status in OperationStatus:
        ended.add_metric(["load", status.name.lower()], sum(load.status is status for load in loads))
        if status is not OperationStatus.DOES_NOT_EXIST:
            ended.add_metric(["save", status.name.lower()], monitor.saves[status.name])
    yield ended
    for name, value, text in (
        ("saved_units", monitor.saved_units, "Units that saves published."),
        ("saved_bytes", monitor.saved_bytes, "Bytes that saves published, uncompressed."),
        ("save_seconds", monitor.save_seconds, "Time that saves took."),
    ):
        yield CounterMetricFamily(f"b10_compile_cache_{name}", text, value=value)


def _requests() -> Metric:
    counts = traffic.total
    help_text = "Requests of loads and saves to a bucket, each attempt counted."
    found = CounterMetricFamily("b10_compile_cache_store_requests", help_text, labels=["result"])
    answered = counts.requests - counts.throttled - counts.failed
    for result, number in (("answered", answered), ("throttled", counts.throttled), ("failed", counts.failed)):
        found.add_metric([result], max(number, 0))
    return found


def _gauge(
    name: str, text: str, samples: Sequence[tuple[tuple[str, ...], float]], labels: list[str] | None = None
) -> GaugeMetricFamily:
    found = GaugeMetricFamily(f"b10_compile_cache_{name}", text, labels=labels or [])
    for values, value in samples:
        found.add_metric(values, float(value))
    return found


class Exposition:
    """Serves the metrics of a monitor, or keeps a file of them."""

    def __init__(self, monitor: Monitor, port: int | None, path: str | None) -> None:
        """
        Args:
            monitor: What is shown.
            port: The TCP port to serve at; None for none.
            path: The file to keep; None for none.
        """
        self._registry = CollectorRegistry()
        self._registry.register(_Metrics(monitor))
        self._path = path
        self._changed, self._written = threading.Event(), threading.Event()
        if port is not None:
            try:
                start_http_server(port, registry=self._registry)
            except OSError as error:
                logger.error("metrics are not served at port %d: %s", port, error.strerror)
        if path is not None:
            monitor.on_change = self._changed.set
            self._changed.set()
            # A file system that hangs must not delay the supervisor.
            threading.Thread(target=self._keep_file, name="b10-transfer-metrics", daemon=True).start()

    def flush(self) -> None:
        """Wait until the file is current, for 2 s at most."""
        if self._path is not None:
            self._written.clear()
            self._changed.set()
            self._written.wait(_FLUSH_S)

    def _keep_file(self) -> None:
        assert self._path is not None
        while self._changed.wait():
            self._changed.clear()
            try:
                replace_file(self._path, generate_latest(self._registry))
            except OSError as error:
                logger.error("the metrics file %s cannot be written: %s", self._path, error.strerror)
            self._written.set()
