"""kill -9 at any moment of a save or a load: nothing half is ever seen, nothing acknowledged is lost, nothing stays.

200 savers and 200 loaders die here, each process for itself, and worker processes besides.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .pods import kernel, packs
from .victims import Nursery, workers_of

if TYPE_CHECKING:
    from ..conftest import IsolatedEnv

KILLS = 50
"""Of victims that were still at work, in each of the four set-ups below."""
ROUNDS_PER_STORE = 15
MOST_EXTRA_SAVES = 5
"""In which leftovers go. One save would do if it were never itself slow enough to renew its lease as it ends."""
KERNELS = 12
LIBRARY_BYTES = 200_000
_MOST_ATTEMPTS = 20 * KILLS

Tree = dict[str, tuple[bytes, int, int]]
"""Content, mode and modification time of files, by their paths."""
SetUp = tuple[bool, str]
SET_UPS = [
    pytest.param((True, "1"), id="worker-locks"),
    pytest.param((True, "0"), id="worker-no locks"),
    pytest.param((False, "1"), id="direct-locks"),
    pytest.param((False, "0"), id="direct-no locks"),
]

STAGING = ".b10-staging-"


@pytest.fixture
def kills(isolated_env: IsolatedEnv, tmp_path: Path) -> int:
    """How many are to die in a test: fewer where the store is on a mount in a guest, since everything takes longer."""
    return KILLS if tmp_path.resolve() in isolated_env.store.parents else KILLS // 5


@pytest.fixture
def variables(isolated_env: IsolatedEnv) -> dict[str, str]:
    # Whatever a dead process leaves is old at once, so that nobody waits for its lease.
    return {
        "CLEANUP_LOCK_TIMEOUT_SECONDS": "0",
        "CLEANUP_INCOMPLETE_TIMEOUT_SECONDS": "0",
        "TRITON_CACHE_DIR": str(isolated_env.triton),
    }


Start = Callable[[bool, str, int], Nursery]


@pytest.fixture
def start(variables: dict[str, str]) -> Iterator[Start]:
    """``start(at_arms_length, locks, seed)`` gives a nursery."""
    started: list[Nursery] = []

    def start_one(at_arms_length: bool, locks: str, seed: int) -> Nursery:
        started.append(Nursery(variables | {"B10_LOCKS": locks}, seed, at_arms_length=at_arms_length))
        return started[-1]

    yield start_one
    for nursery in started:
        nursery.close()


def compile_kernel(env: IsolatedEnv, root: Path, number: int) -> None:
    """What a compiler adds to a cache: a folder and a stem, with modes and times of their own."""
    files = kernel(f"KERNEL{number}", files=4) | {
        f"ey/key{number}.py": b"source " * number,
        f"ey/key{number}.so": os.urandom(LIBRARY_BYTES),
    }
    env.fill(root, files)
    for position, path in enumerate(files):
        os.chmod(root / path, 0o755 if path.endswith(".so") else 0o640)
        os.utime(root / path, ns=(1, 1_600_000_000_000_000_000 + 1_000_000_007 * number + position))


def tree(root: Path) -> Tree:
    found = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        if stat.S_ISREG(status.st_mode):
            found[path.relative_to(root).as_posix()] = (path.read_bytes(), status.st_mode, status.st_mtime_ns)
    return found


def unit_of(path: str) -> str:
    return path.rpartition("/")[0] if path.startswith("triton/") else path.rpartition(".")[0]


def folders_of(found: Tree) -> set[str]:
    return {unit_of(path) for path in found if path.startswith("triton/")}


def assert_sound(found: Tree, compiled: Tree, *, stems_too: bool = True) -> None:
    """Every file is as it was compiled, and every unit is there with all its files."""
    units = {unit_of(path) for path in found if stems_too or path.startswith("triton/")}
    assert {path: compiled.get(path) for path in found} == found
    assert units == {unit_of(path) for path in compiled} & units
    missing = [path for path in compiled if unit_of(path) in units and path not in found]
    assert not missing, f"half a unit: {missing} is missing"


def restored(root: Path, junk: Tree) -> Tree:
    """What loads have put in place: neither what was there before nor what a killed one left staged in the root."""
    return {path: facts for path, facts in tree(root).items() if path not in junk and not path.startswith(STAGING)}


def staging_trees(root: Path) -> list[Path]:
    return [path for path in (*root.parent.iterdir(), *root.iterdir()) if STAGING in path.name]


def leftovers(store: Path) -> set[str]:
    """Every file of a store, and every claim, that a living saver would have removed."""
    found = {path for path in store.rglob("*") if path.is_file() or path.parent.name == ".staging"}
    stays = {path for path in found if path.name == "environment.json" or path.parent.name == "used"}
    return {path.relative_to(store).as_posix() for path in found - set(packs(store)) - stays}


def wait_until_gone(store: Path) -> None:
    """A worker whose process has died notices, and ends."""
    until = time.monotonic() + 30
    while workers_of(store):
        assert time.monotonic() < until, "a worker process has outlived the process it worked for"
        time.sleep(0.01)


@pytest.mark.parametrize("set_up", SET_UPS)
def test_killed_saver_leaves_a_store_that_is_whole_and_nothing_that_stays(
    isolated_env: IsolatedEnv, start: Start, set_up: SetUp, kills: int
) -> None:
    nursery = start(*set_up, 1)
    elsewhere = isolated_env.home / ".cache" / "elsewhere"
    first = isolated_env.home / ".cache" / "first"
    compile_kernel(isolated_env, first, 0)
    # So that it is known how long a save takes here, and kills are spread over all of it.
    undisturbed = {"B10_STORE": str(isolated_env.store), "TORCHINDUCTOR_CACHE_DIR": str(first)}
    assert nursery.run("save", undisturbed)["status"] == "SUCCESS"
    killed = attempts = 0
    while killed < kills:
        store, root = isolated_env.store.with_name(f"store{killed}"), isolated_env.home / ".cache" / f"saver{killed}"
        saver = {"B10_STORE": str(store), "TORCHINDUCTOR_CACHE_DIR": str(root)}
        acknowledged: Tree = {}
        for _round in range(ROUNDS_PER_STORE):
            attempts += 1
            assert attempts < _MOST_ATTEMPTS, "hardly any victim was at work when it was killed"
            compile_kernel(isolated_env, root, attempts)
            compiled = tree(root)
            outcome = nursery.kill("save", saver)
            killed += outcome.was_killed
            if outcome.report is not None:
                assert outcome.report["status"] == "SUCCESS", outcome.report
                acknowledged = compiled
            loader = saver | {"TORCHINDUCTOR_CACHE_DIR": str(elsewhere / str(attempts))}
            loaded = nursery.run("load", loader)
            found = tree(elsewhere / str(attempts))
            assert loaded["status"] == ("SUCCESS" if found else "DOES_NOT_EXIST"), loaded
            assert loaded["rejected"] == []
            assert_sound(found, compiled)
            assert found.items() >= acknowledged.items()
        assert nursery.run("save", saver)["status"] in ("SUCCESS", "SKIPPED")
        for extra in range(MOST_EXTRA_SAVES):
            compile_kernel(isolated_env, root, attempts * 1000 + extra)
            assert nursery.run("save", saver)["status"] == "SUCCESS"
            if leftovers(store) == set():
                break
        assert leftovers(store) == set()
        wait_until_gone(store)
        assert len(packs(store)) <= ROUNDS_PER_STORE + 1 + MOST_EXTRA_SAVES
        assert list(isolated_env.work.iterdir()) == []
    print(f"\nkilled {killed} of {attempts} savers: every load after them whole, 0 bytes lost")


@pytest.mark.parametrize("set_up", SET_UPS)
def test_killed_loader_leaves_whole_units_and_nothing_that_stays(
    isolated_env: IsolatedEnv, start: Start, set_up: SetUp, kills: int
) -> None:
    nursery = start(*set_up, 2)
    source = isolated_env.home / ".cache" / "source"
    store = {"B10_STORE": str(isolated_env.store)}
    for number in range(KERNELS):
        compile_kernel(isolated_env, source, number)
        if number % 4 == 3:
            saver = store | {"TORCHINDUCTOR_CACHE_DIR": str(source), "B10_LOCKS": "0"}
            assert nursery.run("save", saver)["status"] == "SUCCESS"
    compiled, saved = tree(source), tree(isolated_env.store)
    killed = attempts = 0
    while killed < kills:
        root = isolated_env.home / ".cache" / "loaders" / f"root{attempts}"
        if nursery.random.random() < 0.7:  # a compiler has been there: units are put in place one by one
            isolated_env.fill(root, {"locks/some.lock": b""})
        junk = tree(root)
        loader = store | {"TORCHINDUCTOR_CACHE_DIR": str(root)}
        for _round in range(nursery.random.randrange(1, 8)):
            attempts += 1
            assert attempts < _MOST_ATTEMPTS, "hardly any victim was at work when it was killed"
            outcome = nursery.kill("load", loader, merge=nursery.random.random() < 0.7)
            killed += outcome.was_killed
            found = restored(root, junk)
            # The files of a stem appear one by one.
            assert_sound(found, compiled, stems_too=False)
        merge = nursery.random.random() < 0.7
        assert nursery.run("load", loader, merge=merge)["status"] in ("SUCCESS", "SKIPPED")
        found = restored(root, junk)
        assert_sound(found, compiled, stems_too=False)
        assert not merge or folders_of(found) == folders_of(compiled)
        assert staging_trees(root) == []
    wait_until_gone(isolated_env.store)
    assert tree(isolated_env.store) == saved
    print(f"\nkilled {killed} of {attempts} loaders: every unit whole, the store as it was")


@pytest.mark.parametrize("operation", ["save", "load"])
def test_killed_worker_costs_a_status_and_the_next_attempt_works(
    isolated_env: IsolatedEnv, start: Start, operation: str, kills: int
) -> None:
    nursery = start(True, "1", 3)
    root = isolated_env.home / ".cache" / "saver"
    saver = {"B10_STORE": str(isolated_env.store), "TORCHINDUCTOR_CACHE_DIR": str(root)}
    compile_kernel(isolated_env, root, 0)
    assert nursery.run("save", saver)["status"] == "SUCCESS"
    failed = attempts = 0
    while failed < kills // 2:
        attempts += 1
        assert attempts < _MOST_ATTEMPTS, "hardly any worker was at work when it was killed"
        elsewhere = saver | {"TORCHINDUCTOR_CACHE_DIR": str(isolated_env.home / ".cache" / f"loader{attempts}")}
        if operation == "save":
            compile_kernel(isolated_env, root, attempts)
        report = nursery.kill(operation, saver if operation == "save" else elsewhere, whom="worker").report
        assert report is not None
        assert report["status"] in ("SUCCESS", "ERROR"), report
        if report["status"] == "ERROR":
            failed += 1
            assert "the worker process ended" in report["reason"], report
        if attempts % 10 == 0:
            assert nursery.run("save", saver)["status"] in ("SUCCESS", "SKIPPED")
            assert nursery.run("load", elsewhere, merge=True)["status"] in ("SUCCESS", "SKIPPED")
            assert tree(isolated_env.home / ".cache" / f"loader{attempts}") == tree(root)
    print(f"\nkilled {failed} workers on their way in {attempts} operations ({operation})")
