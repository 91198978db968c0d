"""Load, save, compact and prune from eight processes at once, a third of them killed: nothing is lost.

``B10_HAMMER_SECONDS=60`` (``make hammer``) does it for a minute instead of some seconds.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from b10_transfer import OperationStatus, load, save
from tests.concurrency.hammer import MOST_PACKS, Journal, hammer
from tests.concurrency.pods import kernel

if TYPE_CHECKING:
    from tests.conftest import IsolatedEnv, ReadTree

SECONDS = float(os.environ.get("B10_HAMMER_SECONDS", "5"))
PROCESSES = 8


@pytest.mark.parametrize("locks", ["1", "0"], ids=["with locks", "without locks"])
def test_nothing_is_lost_that_was_published_and_not_pruned(
    isolated_env: IsolatedEnv,
    monkeypatch: pytest.MonkeyPatch,
    read_tree: ReadTree,
    tmp_path: Path,
    locks: str,
) -> None:
    # On a mount in a guest everything takes longer.
    factor = 1 if tmp_path.resolve() in isolated_env.store.parents else 8
    done = hammer(
        tmp_path, SECONDS * factor, PROCESSES, int(locks), deadline_s=2 * factor, environ={"B10_LOCKS": locks}
    )
    assert min(done["checked"], done["save"], done["prune"], done["killed"]) > 0, f"little was done: {done}"
    published, pruned = (set(Journal(tmp_path / name).read()) for name in ("published", "pruned"))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "caches" / "last"))
    report = load()
    assert (report.status, report.rejected_packs) == (OperationStatus.SUCCESS, ())
    found = read_tree(tmp_path / "caches" / "last")
    for name in published - pruned:
        assert {path: found.get(path) for path in kernel(name)} == kernel(name)
    print(f"\n{SECONDS * factor:g} s, B10_LOCKS={locks}: {dict(done)}")
    print(f"published {len(published)}, pruned {len(pruned)}, lost 0")

    # What was merged, and what the dead have left, goes with the next saves, each an hour later.
    monkeypatch.setenv("B10_MAX_PACKS", str(MOST_PACKS))
    for number in range(3):
        for path in isolated_env.store.rglob("*"):
            if path.is_file():
                os.utime(path, (time.time() - 3600,) * 2)
        isolated_env.fill(tmp_path / "caches" / "last", kernel(f"AFTER{number}"))
        assert save().status is OperationStatus.SUCCESS
    assert len(list(isolated_env.store.glob("v1/default/*/packs/*"))) <= 2 * MOST_PACKS + 2
    assert list(isolated_env.store.glob(".staging/*")) == []
    assert list(isolated_env.store.glob("v1/default/*/quarantine/*")) == []
