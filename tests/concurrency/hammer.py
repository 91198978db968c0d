"""Processes that load, save (and so compact) and prune one store at once, many of them killed on the way.

What they find is checked as they go: a load holds everything that had been published when it began and that nobody has
pruned, byte for byte. ``python -m tests.concurrency.hammer SETTINGS`` prints how often what was done.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.concurrency.pods import kernel
from tests.concurrency.victims import serve
from tests.conftest import fill_tree, read_tree_of

MOST_PACKS = 4
_KILLED = 1 / 3
_KILLED_WITHIN_S = 0.2
_OF_MERGED = 1 / 4
"""So many prunes may take a pack that was merged, and with it most of what there is."""


def hammer(
    place: Path, seconds: float, processes: int, seed: int, deadline_s: int, environ: dict[str, str]
) -> Counter[str]:
    """Have so many processes at one store for so long; how often what was done. Raises if anything was lost."""
    variables = {
        "B10_MAX_PACKS": str(MOST_PACKS),
        "B10_DEADLINE_SECONDS": str(deadline_s),
        "B10_GRACE_SECONDS": str(deadline_s + 1),  # longer than any operation may take, as the setting demands
        "CLEANUP_LOCK_TIMEOUT_SECONDS": "1",  # the dead do not keep others from compacting for long
    }
    settings = json.dumps([str(place), seconds, processes, seed])
    command = [sys.executable, "-m", "tests.concurrency.hammer", settings]
    done = subprocess.run(
        command,
        env=os.environ | variables | environ,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=seconds + 120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    return Counter(json.loads(done.stdout))


class Journal:
    """Names that processes have noted, one a line."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.touch()

    def note(self, *names: str) -> None:
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND)
        os.write(descriptor, "".join(f"{name}\n" for name in names).encode())
        os.close(descriptor)

    def read(self) -> list[str]:
        return self._path.read_text().split()


class Hammerer:
    """One of the processes: it forks a victim for each operation."""

    def __init__(self, place: Path, number: int, seed: int) -> None:
        self._place = place
        self._number = number
        self._random = random.Random(seed * 1000 + number)
        self._done = Journal(place / "done")
        self._published = Journal(place / "published")
        self._pruned = Journal(place / "pruned")
        self._count = 0

    def work(self, ends: float) -> None:
        while time.monotonic() < ends:
            operate = self._random.choices([self._save, self._load, self._prune], [5, 4, 1])[0]
            self._count += 1
            operate(f"P{self._number}N{self._count}")

    def _save(self, name: str) -> None:
        fill_tree(self._root(name), kernel(name))
        report = self._victim("save", name)
        if report is not None and report["status"] == "SUCCESS":
            self._published.note(name)

    def _load(self, name: str) -> None:
        expected = set(self._published.read())
        report = self._victim("load", name)
        if report is None or report["status"] == "ERROR":  # it was killed, or late
            return
        expected -= set(self._pruned.read())
        found = read_tree_of(self._root(name))
        for known in expected:
            for path, data in kernel(known).items():
                assert found.get(path) == data, f"{path} was published, and {report} lacks it"
        self._done.note("checked")

    def _prune(self, name: str) -> None:
        of_merged = self._random.random() < _OF_MERGED
        self._victim("prune", name, journal=str(self._place / "pruned"), of_merged=of_merged)

    def _root(self, name: str) -> Path:
        return self._place / "caches" / name

    def _victim(self, operation: str, name: str, **arguments: object) -> dict[str, Any] | None:
        """What an operation reported; None if it was killed."""
        environ = {"TORCHINDUCTOR_CACHE_DIR": str(self._root(name))}
        after_s = self._random.uniform(0, _KILLED_WITHIN_S) if self._random.random() < _KILLED else None
        report: dict[str, Any] | None = serve(operation, environ, after_s, "victim", arguments)[0]
        self._done.note(operation if report is not None else "killed")
        return report


def prune(journal: str, of_merged: bool) -> SimpleNamespace:
    """A victim's prune of the oldest pack. What it is about to take is noted first."""
    from b10_transfer.concurrency.deadline import Deadline
    from b10_transfer.config import Config, read_deadline
    from b10_transfer.environment import detect
    from b10_transfer.maintenance import prune as pruning
    from b10_transfer.repository.catalogue import Catalogue
    from b10_transfer.status import OperationStatus
    from b10_transfer.stores.opening import opened

    config = Config.from_environment()
    deadline = Deadline("prune", read_deadline())
    with opened(config, deadline) as store:
        rules = pruning.Rules(keep=1)
        union = Catalogue(store, config, deadline).repository(config.namespace, detect().id).union()
        known = {pack.id: pack for pack in union.packs if of_merged or not pack.is_merged}
        planned = pruning.prune(store, config, deadline, rules, pretend=True).packs
        only = [one.pack for one in planned if one.pack in known][:1]
        taken = [unit.name.rpartition("/")[2] for pack_id in only for unit in known[pack_id].index.units]
        Journal(Path(journal)).note(*taken)
        pruning.prune(store, config, deadline, rules, only=only)
    return SimpleNamespace(status=OperationStatus.SUCCESS, reason="")


def _main() -> None:
    place, seconds, processes, seed = json.loads(sys.argv[1])
    from b10_transfer import load
    from b10_transfer.maintenance import prune as pruning  # noqa: F401 - so that everything is imported

    load(namespace="nobody")
    while threading.active_count() > 1:
        time.sleep(0.001)
    pids = []
    ends = time.monotonic() + seconds
    for number in range(processes):
        pid = os.fork()
        if pid == 0:
            Hammerer(Path(place), number, seed).work(ends)
            os._exit(0)
        pids.append(pid)
    statuses = [os.waitpid(pid, 0)[1] for pid in pids]
    print(json.dumps(Counter(Journal(Path(place) / "done").read())))
    sys.exit(1 if any(statuses) else 0)


if __name__ == "__main__":
    _main()
