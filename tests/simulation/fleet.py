"""Replicas that run the project's own load, wait and save in simulated processes.

The simulation replaces only these parts: clocks and threads (:mod:`.scheduler`), the store, the store's worker process,
the detection of the environment (it runs once), and writes to the local disk. It computes each digest and unpacks each
frame once for all replicas.
"""

from __future__ import annotations

import hashlib
import io
import os
import random
import statistics
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

from b10_transfer.adapters import CacheRoot
from b10_transfer.concurrency import deadline
from b10_transfer.concurrency import pipeline as workers
from b10_transfer.concurrency.deadline import Deadline
from b10_transfer.config import Config
from b10_transfer.environment import detect
from b10_transfer.local import restore
from b10_transfer.local.placing import Restored
from b10_transfer.operations import compile_once, waiting
from b10_transfer.operations import load as loading
from b10_transfer.operations import save as saving
from b10_transfer.operations.edge import attempt
from b10_transfer.operations.rest import Rest
from b10_transfer.pack import Limits, reader, zstd
from b10_transfer.repository import order, starts, union, use
from b10_transfer.repository.merging import merge
from b10_transfer.repository.repository import ReadRepository, Repository
from b10_transfer.repository.union import Union
from b10_transfer.status import LoadReport, OperationStatus, SaveReport
from b10_transfer.stores import leases
from b10_transfer.stores.base import Store
from b10_transfer.stores.bucket import retry as patience
from tests.simulation.scheduler import EPOCH_S, Scheduler
from tests.simulation.service import Service, Terms, Usage
from tests.simulation.stores import Bucket, Contents, Mount

DEADLINE_S = 600.0
KERNELS = 48
COMPILE_S = 60.0
WAIT_S = 1800.0


@dataclass(frozen=True)
class Scenario:
    """Parameters of one simulation."""

    replicas: int
    kind: str
    """``mount`` or ``bucket``."""
    terms: Terms
    waits: bool
    """The store is empty and all replicas wait while one compiles. Otherwise the store holds a pack."""
    pack_bytes: int
    is_used_today: bool = False
    """Whether the store has a record of use of today."""
    used: int = 0
    """Of the kernels, the number that starts use. They lie in frames of their own, and a replica is warm when it has
    restored them. 0: there is no record of it."""
    start_within_s: float = 1.0
    seed: int = 1


@dataclass
class Outcome:
    """Results of one simulation."""

    pack_bytes: int
    bound_s: float
    """Lower bound from bandwidth alone: replicas × bytes of the pack / bytes per second."""
    usage: Usage
    compiled: int = 0
    failed: int = 0
    available_s: float = 0.0
    """When a pack was available: at the start, or when the save of the compiling replica ended."""
    warm_s: list[float] = field(default_factory=list)
    """When each replica was warm."""

    @property
    def last_warm_s(self) -> float:
        """Seconds from :attr:`available_s` until the last replica is warm."""
        return max(self.warm_s) - self.available_s

    @property
    def median_warm_s(self) -> float:
        return statistics.median(self.warm_s) - self.available_s


class Replica:
    """A simulated process."""

    def __init__(self, fleet: Fleet, number: int) -> None:
        self._waiter = compile_once.Waiter()
        self._left: list[Rest] = []
        self._fleet = fleet
        self._cache = fleet.folder / f"replica{number}" / "triton"
        environment = {"TRITON_CACHE_DIR": str(self._cache), "B10_CACHES": "triton", "HOME": str(fleet.folder)}
        environment["B10_RESTORE_REST"] = "after"
        self._config = Config.from_environment(environment, store=fleet.folder / "store")

    def start(self) -> None:
        """Load. If there is no pack, wait for one or compile."""
        report = self._attempt()
        if report.status is OperationStatus.DOES_NOT_EXIST and self._fleet.scenario.waits:
            report = waiting.wait_for_compile(report, WAIT_S, lambda: self._config, self._attempt, self._waiter)
        if report.status is OperationStatus.ERROR:
            self._fleet.outcome.failed += 1
        elif report.status is OperationStatus.DOES_NOT_EXIST:
            self._fleet.scheduler.sleep(COMPILE_S)
            self.compile()
            self.save()
            self._fleet.outcome.compiled += 1
            self._fleet.outcome.available_s = self._fleet.scheduler.now_s
        self._fleet.outcome.warm_s.append(self._fleet.scheduler.now_s)

    def compile(self) -> None:
        """Fill the cache as a compiler does, with the same content in every replica."""
        chosen = random.Random(0)
        for number in range(KERNELS):
            folder = self._cache / f"KERNEL{number:03d}"
            folder.mkdir(parents=True)
            (folder / "kernel.so").write_bytes(chosen.randbytes(self._fleet.scenario.pack_bytes // KERNELS))
            os.utime(folder / "kernel.so", (EPOCH_S, EPOCH_S))

    def save(self) -> None:
        def operate(deadline: Deadline, _deliver: object) -> SaveReport:
            try:
                return saving.save(self._config, deadline)
            finally:
                compile_once.release(self._config, deadline, self._waiter.session)

        report = attempt("save", DEADLINE_S, operate, SaveReport, None)
        if report.status not in (OperationStatus.SUCCESS, OperationStatus.SKIPPED):
            raise RuntimeError(f"a save failed: {report.reason}")

    def _attempt(self) -> LoadReport:
        def operate(deadline: Deadline, _deliver: object) -> LoadReport:
            return loading.load(self._config, deadline, self._waiter.known, leave=self._left.append)

        return attempt("load", DEADLINE_S, operate, LoadReport, None)


class Fleet:
    """Replicas and the service that they share."""

    def __init__(self, scenario: Scenario, folder: Path) -> None:
        self.scenario = scenario
        self.folder = folder
        self.scheduler = Scheduler()
        self._service = Service(self.scheduler, scenario.terms, scenario.seed)
        self.contents = Contents(self.scheduler)
        self.outcome = Outcome(0, 0.0, self._service.usage)

    def run(self) -> Outcome:
        """Run all replicas until each is warm or has failed."""
        scenario = self.scenario
        random.seed(scenario.seed)
        with _simulated(self.scheduler, self._opened):
            if not scenario.waits:
                first = Replica(self, scenario.replicas)
                first.compile()
                self.scheduler.start(first.save)
                self.scheduler.run()
        if scenario.used:
            self._record(scenario.used)
        with _simulated(self.scheduler, self._opened):
            self._begin()
            began_s = self.scheduler.now_s
            for number in range(scenario.replicas):
                replica = Replica(self, number)
                moment_s = began_s + random.uniform(0, scenario.start_within_s)
                self.scheduler.at(moment_s, partial(self.scheduler.start, replica.start))
            self.scheduler.run()
        return self._finished()

    def _begin(self) -> None:
        if not self.scenario.is_used_today:
            for folder in self.contents.objects.folders("v1/default"):
                for record in self.contents.objects.list(f"{folder}/used"):
                    if "starts" in record.name:
                        continue
                    self.contents.objects.delete(record.name)
        self._service.usage = Usage()
        self.outcome = Outcome(0, 0.0, self._service.usage, available_s=self.scheduler.now_s)

    def _finished(self) -> Outcome:
        outcome, terms = self.outcome, self.scenario.terms
        [folder] = self.contents.objects.folders("v1/default")
        outcome.pack_bytes = sum(info.size_bytes for info in self.contents.objects.list(f"{folder}/packs"))
        outcome.bound_s = outcome.pack_bytes * self.scenario.replicas / terms.bytes_per_s
        return outcome

    def _record(self, used: int) -> None:
        """Record a start, and put what it used into frames of its own."""
        store = self.contents.objects
        config = Config.from_environment({}, store=self.folder / "store")
        deadline = Deadline("recording", DEADLINE_S)
        repository = Repository(store, config.namespace, detect(), Limits.of(config), deadline)
        names = {f"triton/KERNEL{number:03d}" for number in random.Random(1).sample(range(KERNELS), used)}
        clock = self.scheduler.modules()["time"]
        with mock.patch.object(starts, "time", clock), mock.patch.object(use, "time", clock):
            repository.record_start(names)
        [pack] = repository.union().packs
        out = io.BytesIO()
        merge(repository, [pack], out, deadline, names)
        repository.publish(out, behind=pack.id)
        store.delete(pack.name)

    @contextmanager
    def _opened(self, _config: Config, deadline: Deadline) -> Iterator[Store]:
        if self.scenario.kind == "mount":
            yield Mount(self._service, self.contents)
        else:
            yield Bucket(self._service, self.contents, deadline.remaining_s)


@contextmanager
def _simulated(scheduler: Scheduler, opened: Callable[[Config, Deadline], Any]) -> Iterator[None]:
    """Replace clocks, threads and the store in the project's modules."""
    modules = scheduler.modules()
    environment = detect()
    replaced: list[tuple[ModuleType, str, Any]] = [
        *(
            (module, "time", modules["time"])
            for module in (deadline, order, starts, union, use, compile_once, leases, waiting, patience)
        ),
        (patience, "chance", random.random),
        (patience, "allocate_lock", modules["threading"].Lock),
        *((module, "threading", modules["threading"]) for module in (deadline, workers, leases)),
        (workers, "queue", modules["queue"]),
        *((module, "opened", opened) for module in (loading, saving, compile_once)),
        *((module, "identify", lambda **_: environment) for module in (loading, saving)),
        (compile_once, "detect", lambda: environment),
        (
            order,
            "secrets",
            SimpleNamespace(
                token_hex=lambda size: f"{random.getrandbits(8 * size):0{2 * size}x}", randbelow=random.randrange
            ),
        ),
        (loading, "restore", _read),
        (reader, "hashlib", SimpleNamespace(sha256=_remembered(hashlib.sha256))),
        (reader, "unpack_into", _once(zstd.unpack_into)),
    ]
    with ExitStack() as stack:
        for module, name, replacement in replaced:
            stack.enter_context(mock.patch.object(module, name, replacement))
        yield


def _remembered(function: Callable[..., Any]) -> Callable[..., Any]:
    """Call a pure function once for each object. Keeps the objects, so that no identity is reused."""
    known: dict[int, tuple[object, Any]] = {}

    def remembered(data: object, *arguments: object) -> Any:
        if id(data) not in known:
            known[id(data)] = data, function(data, *arguments)
        return known[id(data)][1]

    return remembered


def _once(unpack: Callable[[memoryview, Any], None]) -> Callable[[memoryview, Any], None]:
    """Unpack each frame once. The content is not used."""
    checked = _remembered(lambda data, memory: unpack(memory, data))
    return lambda memory, data: checked(data, memory)


def _read(
    repository: ReadRepository,
    union: Union,
    names: Iterable[str],
    _roots: Iterable[CacheRoot],
    deadline: Deadline,
    before_placing: Callable[[Restored], None] | None = None,
) -> Restored:
    """Read, verify and unpack as the real restore does, but write nothing."""
    result = Restored(union)
    for pack, units in restore._by_pack({name: union.units[name] for name in names}):
        with repository.opened(pack) as opened:
            for _piece in opened.read_members(pack.index, [member for unit in units for member in unit.members]):
                deadline.check()
        for unit in units:
            result.count(pack, unit)
    if before_placing is not None:
        before_placing(result)
    return result
