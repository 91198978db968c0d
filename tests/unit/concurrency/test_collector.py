"""Holding back the garbage collector."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from b10_transfer.concurrency.collector import held_back

PROGRAM = """
import contextlib, gc, importlib, threading
gc.collect()
gc.set_threshold(500, 5, 5)
collections = []
gc.callbacks.append(lambda phase, facts: phase == "start" and collections.append(facts["generation"]))
from b10_transfer import load, save
assert load().status.name == "DOES_NOT_EXIST"
assert gc.get_threshold() == (500, 5, 5) and gc.isenabled()
print(*collections)
"""


@pytest.fixture(autouse=True)
def thresholds() -> Iterator[None]:
    before = gc.get_threshold()
    gc.set_threshold(700, 10, 10)
    yield
    gc.set_threshold(*before)


class Other:
    """Another thread, which holds the collector back for a while."""

    def __init__(self) -> None:
        self._inside, self._leave = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._hold_back)

    def _hold_back(self) -> None:
        with held_back():
            self._inside.set()
            self._leave.wait(10)

    def enter(self) -> None:
        self._thread.start()
        assert self._inside.wait(10)

    def leave(self) -> None:
        self._leave.set()
        self._thread.join()


def make_garbage() -> int:
    """Allocate as much as triggers several collections, and return how many there were."""
    collections: list[str] = []

    def note(phase: str, _facts: object) -> None:
        collections.append(phase)

    gc.callbacks.append(note)
    try:
        kept: list[list[int]] = [[] for _ in range(20_000)]
    finally:
        gc.callbacks.remove(note)
    assert kept
    return len(collections)


def test_nothing_is_collected_in_the_context_and_afterwards_everything_is_as_before() -> None:
    assert make_garbage()
    with held_back():
        assert not make_garbage()
        assert gc.isenabled()
    assert gc.get_threshold() == (700, 10, 10)
    assert make_garbage()


def test_an_exception_ends_it() -> None:
    with pytest.raises(ZeroDivisionError), held_back():
        raise ZeroDivisionError
    assert gc.get_threshold() == (700, 10, 10)


def test_the_last_of_several_threads_ends_it() -> None:
    other = Other()
    with held_back():
        with held_back():
            other.enter()
        assert not make_garbage()
    assert not make_garbage()
    other.leave()
    assert gc.get_threshold() == (700, 10, 10)


def test_settings_of_the_program_are_kept() -> None:
    with held_back():
        gc.disable()
    try:
        assert not gc.isenabled()
    finally:
        gc.enable()
    with held_back():
        gc.set_threshold(300, 5, 5)
    assert gc.get_threshold() == (300, 5, 5)
    gc.set_threshold(0, 10, 10)  # off
    with held_back():
        assert gc.get_threshold() == (0, 10, 10)
    assert gc.get_threshold() == (0, 10, 10)


def test_a_forked_child_collects() -> None:
    """Its parent's other threads, which would end the context, do not exist in it."""
    other = Other()
    other.enter()
    if (pid := os.fork()) == 0:
        with held_back():
            held = gc.get_threshold() != (700, 10, 10)
        os._exit(0 if held and gc.get_threshold() == (700, 10, 10) else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert gc.get_threshold() != (700, 10, 10)
    other.leave()
    assert gc.get_threshold() == (700, 10, 10)


def test_a_child_that_is_forked_in_the_context_leaves_it() -> None:
    with held_back():
        pid = os.fork()
        inside = gc.get_threshold()
    if pid == 0:
        os._exit(0 if inside == gc.get_threshold() == (700, 10, 10) else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert gc.get_threshold() == (700, 10, 10)


def test_the_first_import_and_a_load_cause_no_full_collection(tmp_path: os.PathLike[str]) -> None:
    environ = os.environ | {"B10_STORE": str(tmp_path), "HOME": str(tmp_path)}
    command = [sys.executable, "-c", PROGRAM]
    answer = subprocess.run(command, env=environ, check=True, capture_output=True, text=True).stdout
    # At the end of a context a collection of new objects is due. Without contexts there are 40, some of them full.
    assert set(answer.split()) <= {"0"}
    assert len(answer.split()) < 10
