"""A program may fork at any moment, whatever its other threads do: its children can load and save, too."""

from __future__ import annotations

import subprocess
import sys

import pytest

from ...conftest import IsolatedEnv

_COMMON = """
import os, re, sys, threading, time, types
from pathlib import Path
slow, forked = threading.Event(), threading.Event()

def wait_for_the_fork():
    if not slow.is_set():
        slow.set()
        forked.wait(0.5)  # a fork that waits for this thread gets its turn

def compile(name):
    folder = Path(os.environ["TRITON_CACHE_DIR"], name)
    folder.mkdir(parents=True)
    (folder / "a.so").write_text(name)

def fork_meanwhile(work):
    thread = threading.Thread(target=work)
    thread.start()
    slow.wait()
    child = os.fork()
    forked.set()
    if not child:
        # These take the identities of the parent's threads: a lock counts as held by a thread of the same identity.
        for _ in range(4):
            threading.Thread(target=time.sleep, args=(100,), daemon=True).start()
        compile("CHILD")
        work()
        os._exit(0)
    thread.join()
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""

_SLOW_IMPORT = """
class Finder:
    def find_spec(self, name, path, target=None):
        if name == "{module}":
            wait_for_the_fork()

sys.meta_path.insert(0, Finder())
"""

_SAVE = """
def save():
    from b10_transfer import save
    report = save(deadline_s=20)
    assert report.status.name in ("SUCCESS", "SKIPPED"), report.reason

compile("PARENT")
fork_meanwhile(save)
"""

_SLOW_PATTERNS = """
from b10_transfer.adapters import layout
import b10_transfer.operations.save

def compile_pattern(*arguments):
    wait_for_the_fork()
    return re.compile(*arguments)

layout.re = types.SimpleNamespace(compile=compile_pattern, ASCII=re.ASCII, Pattern=re.Pattern)
"""


@pytest.mark.parametrize(
    "module",
    ["b10_transfer.operations.public", "b10_transfer.operations.publishing", "b10_transfer.pack.spool"],
)
def test_child_forked_while_another_thread_imports_can_save(isolated_env: IsolatedEnv, module: str) -> None:
    run(_SLOW_IMPORT.format(module=module) + _SAVE)


def test_child_forked_while_another_thread_looks_at_a_cache_can_save(isolated_env: IsolatedEnv) -> None:
    run(_SLOW_PATTERNS + _SAVE)


def run(program: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _COMMON + program], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
