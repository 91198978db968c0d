"""Units that a load restores after it has returned: the compiler waits for them, and nothing keeps it waiting."""

from __future__ import annotations

import fcntl
import os
import signal
from pathlib import Path

import pytest

from b10_transfer.adapters import CacheRoot
from b10_transfer.adapters.base import Unit, UnitKind
from b10_transfer.adapters.headers import HeadersAdapter
from b10_transfer.adapters.inductor import InductorAdapter
from b10_transfer.local.deferral import compilers_wait, split

HEADER = "inductor_headers/ckey"
GRAPH = "inductor/fxgraph/ab/fabkey"


@pytest.fixture
def roots(tmp_path: Path) -> list[CacheRoot]:
    return [CacheRoot(InductorAdapter(), tmp_path / "i"), CacheRoot(HeadersAdapter(), tmp_path / "i" / "h")]


def test_headers_follow_what_a_start_needs(roots: list[CacheRoot]) -> None:
    assert split([HEADER, GRAPH], roots) == ([GRAPH], [HEADER])


def test_headers_alone_are_restored_at_once(roots: list[CacheRoot]) -> None:
    assert split([HEADER], roots) == ([HEADER], [])


def test_nothing_follows_where_other_users_compile(tmp_path: Path) -> None:
    shared = [CacheRoot(HeadersAdapter(), tmp_path, may_be_shared=True)]
    assert split([HEADER, GRAPH], shared) == ([HEADER, GRAPH], [])


def can_lock(lock: Path) -> bool:
    """Whether a compiler could take a lock now."""
    with lock.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def test_compiler_waits_and_a_restore_does_not_take_the_lock_for_the_compilers(roots: list[CacheRoot]) -> None:
    root = roots[1]
    lock = root.path / "locks" / "ckey.lock"
    with compilers_wait([HEADER], roots):
        assert not can_lock(lock)
        assert not root.adapter.is_held(root.path, Unit("ckey", UnitKind.STEM))
    assert can_lock(lock)


def test_lock_that_a_compiler_holds_is_left_to_it(roots: list[CacheRoot]) -> None:
    lock = roots[1].path / "locks" / "ckey.lock"
    lock.parent.mkdir(parents=True)
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with compilers_wait([HEADER], roots):
            assert roots[1].adapter.is_held(roots[1].path, Unit("ckey", UnitKind.STEM))


def test_link_in_place_of_a_lock_is_not_followed(roots: list[CacheRoot], tmp_path: Path) -> None:
    lock = roots[1].path / "locks" / "ckey.lock"
    lock.parent.mkdir(parents=True)
    lock.symlink_to(tmp_path / "elsewhere")
    with compilers_wait([HEADER], roots):
        pass
    assert not (tmp_path / "elsewhere").exists()


def test_forked_process_does_not_keep_the_lock_of_one_that_was_killed(roots: list[CacheRoot]) -> None:
    """The child of a killed process outlives it. The compiler must not wait for the child."""
    lock = roots[1].path / "locks" / "ckey.lock"
    child_is_ready, tell = os.pipe()
    wait, child_may_end = os.pipe()
    if (killed := os.fork()) == 0:
        with compilers_wait([HEADER], roots):
            if os.fork() == 0:
                os.close(child_may_end)
                os.write(tell, b"x")
                os.read(wait, 1)
                os._exit(0)
            os.read(child_is_ready, 1)
            os.kill(os.getpid(), signal.SIGKILL)
    try:
        os.waitpid(killed, 0)
        assert can_lock(lock)
    finally:
        for descriptor in (child_is_ready, tell, wait, child_may_end):
            os.close(descriptor)
