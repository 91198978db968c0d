"""Replicas whose clocks are hours apart, and a store whose own clock was set: later saves win, nobody waits for ever.

The clocks are shifted in real processes, before they import anything. Files get their times from the kernel, which is
the store's clock here; a store whose clock was wrong is one whose files have times that are hours apart.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from b10_transfer import OperationStatus, load

from .pods import Pod, kernel, packs, release

if TYPE_CHECKING:
    from ..conftest import IsolatedEnv, ReadTree

HOUR_S = 3600
SKEWS = [-11 * HOUR_S, 0, 11 * HOUR_S]
DEAD, GROWING = f"{0:032x}.tmp", f"{1:032x}.tmp"
"""Names in the store's ``.staging``."""
_SHIFT = """
import os, time
_ns = int(os.environ["TEST_SKEW_S"]) * 10**9
_real = time.time_ns
time.time_ns = lambda: _real() + _ns
time.time = lambda: (_real() + _ns) / 1e9
"""


@pytest.fixture
def clocks(isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes that are started from now on have the clock that TEST_SKEW_S says."""
    folder = isolated_env.home / "shift"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(_SHIFT)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("TEST_SKEW_S", "0")


def pod(env: IsolatedEnv, name: str, files: dict[str, bytes], skew_s: int, **variables: str) -> Pod:
    """A replica that has compiled some files and will save them."""
    root = env.home / ".cache" / name
    env.fill(root, files)
    return Pod("save", {"TORCHINDUCTOR_CACHE_DIR": str(root), "TEST_SKEW_S": str(skew_s)} | variables)


def lease(env: IsolatedEnv, name: str, age_s: float) -> Path:
    """What a saver holds, or has held; of an age on the store's clock."""
    path = env.store / "v1" / ".leases" / name
    env.fill(path.parent, {path.name: b"{}"})
    set_age(path, age_s)
    return path


def set_age(path: Path, age_s: float) -> None:
    os.utime(path, (time.time() - age_s,) * 2)


@pytest.mark.usefixtures("clocks")
@pytest.mark.parametrize(
    "skews", [SKEWS, SKEWS[::-1]], ids=["clocks that are ahead last", "clocks that are behind last"]
)
def test_later_save_wins_whatever_the_clocks_say(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, read_tree: ReadTree, skews: list[int]
) -> None:
    """Each replica has more of one unit than the one before, and so replaces it."""
    for number, skew_s in enumerate(skews):
        files = kernel("SHARED", content=f"by {number}", files=4 + number)
        [outcome] = release([pod(isolated_env, f"replica{number}", files, skew_s)])
        assert outcome["status"] == "SUCCESS", outcome
    assert len(packs(isolated_env.store)) == len(skews)
    root = isolated_env.home / ".cache" / "late"
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(root))
    assert load().status is OperationStatus.SUCCESS
    assert read_tree(root) == kernel("SHARED", content="by 2", files=6)


@pytest.mark.usefixtures("clocks")
@pytest.mark.parametrize("locks", ["1", "0"])
def test_replicas_that_save_at_once_lose_nothing_though_their_clocks_differ(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, read_tree: ReadTree, locks: str
) -> None:
    own = [kernel(f"OWN{number}") for number in range(6)]
    outcomes = release(
        pod(isolated_env, f"replica{number}", files | kernel("SHARED"), SKEWS[number % 3], B10_LOCKS=locks)
        for number, files in enumerate(own)
    )
    assert {outcome["status"] for outcome in outcomes} == {"SUCCESS"}, outcomes
    root = isolated_env.home / ".cache" / "late"
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(root))
    assert load().status is OperationStatus.SUCCESS
    expected = kernel("SHARED")
    for files in own:
        expected |= files
    assert read_tree(root) == expected


@pytest.mark.usefixtures("clocks")
def test_replicas_that_compiled_the_same_publish_one_pack_though_their_clocks_differ(
    isolated_env: IsolatedEnv,
) -> None:
    pods = [pod(isolated_env, f"replica{number}", kernel("SAME"), SKEWS[number % 3]) for number in range(6)]
    assert sorted(outcome["status"] for outcome in release(pods)) == ["SKIPPED"] * 5 + ["SUCCESS"]
    assert len(packs(isolated_env.store)) == 1


@pytest.mark.usefixtures("clocks")
@pytest.mark.parametrize("skew_s", [SKEWS[0], SKEWS[-1]])
@pytest.mark.parametrize(
    "age_s", [2, 5 * HOUR_S, -5 * HOUR_S], ids=["just died", "died long ago", "dies in the future"]
)
def test_dead_replicas_lease_is_taken_over_whatever_the_clocks_say(
    isolated_env: IsolatedEnv, skew_s: int, age_s: int
) -> None:
    """Its time may lie ahead: the store's clock was wrong when it was made."""
    dead = lease(isolated_env, "slot-00.00000007", age_s)
    limits = {"MAX_CONCURRENT_SAVES": "1", "CLEANUP_LOCK_TIMEOUT_SECONDS": "3"}
    [outcome] = release([pod(isolated_env, "replica", kernel("ONE"), skew_s, **limits)])
    assert outcome["status"] == "SUCCESS", outcome
    assert not dead.exists()
    assert list(dead.parent.iterdir()) == []


@pytest.mark.usefixtures("clocks")
@pytest.mark.parametrize("skew_s", [SKEWS[0], SKEWS[-1]])
def test_living_replicas_lease_is_not_taken_over_whatever_the_clocks_say(
    isolated_env: IsolatedEnv, skew_s: int
) -> None:
    """A save waits for it for a part of its deadline, and then publishes without one."""
    limits = {"MAX_CONCURRENT_SAVES": "1", "CLEANUP_LOCK_TIMEOUT_SECONDS": "30", "B10_DEADLINE_SECONDS": "4"}
    held = lease(isolated_env, "slot-00.00000007", 0)
    with kept_young(held):
        [outcome] = release([pod(isolated_env, "replica", kernel("ONE"), skew_s, **limits)])
    assert outcome["status"] == "SUCCESS", outcome
    assert list(held.parent.iterdir()) == [held]


@contextmanager
def kept_young(path: Path) -> Iterator[None]:
    """As its holder keeps it who renews it."""
    over = threading.Event()

    def renew() -> None:
        while not over.wait(0.2):
            set_age(path, 0)

    thread = threading.Thread(target=renew)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.mark.usefixtures("clocks")
@pytest.mark.parametrize("skew_s", [SKEWS[0], SKEWS[-1]])
def test_staging_is_cleared_by_the_stores_clock_alone(isolated_env: IsolatedEnv, skew_s: int) -> None:
    """What a living saver is writing stays though a replica's clock is ahead; what is old goes though it is behind."""
    staging = isolated_env.store / ".staging"
    isolated_env.fill(staging, {GROWING: b"half", DEAD: b"half"})
    set_age(staging / DEAD, 2 * HOUR_S)
    [outcome] = release([pod(isolated_env, "replica", kernel("ONE"), skew_s)])
    assert outcome["status"] == "SUCCESS", outcome
    assert [path.name for path in staging.iterdir()] == [GROWING]
