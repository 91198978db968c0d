"""A cache that cannot be used, whatever the reason, does not affect the others.

Each fault meets each compiler's cache. The store holds one unit for that cache and one for a second cache. A load
restores the second, a save finds the units of the second, and neither follows or replaces what is in the way.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from b10_transfer.adapters import ADAPTERS, Adapter, CacheRoot
from b10_transfer.adapters.inductor import InductorAdapter
from b10_transfer.adapters.triton import TritonAdapter
from b10_transfer.concurrency.deadline import Deadline
from b10_transfer.errors import NoSpaceError
from b10_transfer.local import staging
from b10_transfer.local.bulk import write_files
from b10_transfer.local.placing import Restored
from b10_transfer.local.restore import restore
from b10_transfer.local.snapshot import take
from tests.conftest import Packs, ReadTree

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount, and make files of another user")
needs_user = pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everything")
STRANGER = 12345
CONTENT = os.urandom(200_000)
Break = Callable[[Path, ExitStack], object]


def unreadable(root: Path, stack: ExitStack) -> None:
    root.mkdir()
    root.chmod(0)
    stack.callback(root.chmod, 0o700)


def of_another_user(root: Path, _stack: ExitStack) -> None:
    root.mkdir()
    os.chown(root, STRANGER, STRANGER)
    root.parent.chmod(0o1777)  # where that user could have made it himself


def below_a_folder_of_another_user(root: Path, _stack: ExitStack) -> None:
    root.parent.parent.chmod(0o1777)
    os.chown(root.parent, STRANGER, STRANGER)


def link(root: Path, _stack: ExitStack) -> None:
    (root.parent.parent / "elsewhere").mkdir()
    root.symlink_to(root.parent.parent / "elsewhere")


def file(root: Path, _stack: ExitStack) -> None:
    root.write_bytes(b"not a folder")


def pipe(root: Path, _stack: ExitStack) -> None:
    os.mkfifo(root)


def full(root: Path, stack: ExitStack) -> None:
    stack.enter_context(mounted(root, "size=16k,mode=700"))


def without_inodes(root: Path, stack: ExitStack) -> None:
    stack.enter_context(mounted(root, "nr_inodes=2,mode=700"))


def read_only(root: Path, stack: ExitStack) -> None:
    stack.enter_context(mounted(root, "ro,mode=700"))


@contextmanager
def mounted(path: Path, options: str) -> Iterator[None]:
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "none", str(path)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", str(path)], check=True)


FAULTS = [
    pytest.param(unreadable, marks=needs_user, id="unreadable"),
    pytest.param(of_another_user, marks=needs_root, id="another user's"),
    pytest.param(below_a_folder_of_another_user, marks=needs_root, id="below another user's"),
    pytest.param(link, id="a link"),
    pytest.param(file, id="a file"),
    pytest.param(pipe, id="a pipe"),
    pytest.param(full, marks=needs_root, id="full"),
    pytest.param(without_inodes, marks=needs_root, id="without inodes"),
    pytest.param(read_only, marks=needs_root, id="read-only"),
]
KEY = "A" * 52
CHECKED = ("vllm_modelinfos", "vllm_startup_plan", "flashinfer_knobs")
EACH_ADAPTER = pytest.mark.parametrize("adapter", ADAPTERS, ids=lambda adapter: adapter.name)


@pytest.fixture(autouse=True)
def any_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the repository admit the same made-up unit for each cache: its shape does not matter here."""
    monkeypatch.setattr("b10_transfer.repository.admission._is_unit", lambda *_: True)


class Pod:
    """Two caches, and a store with a unit for each."""

    def __init__(self, adapter: Adapter, folder: Path, packs: Packs) -> None:
        other = InductorAdapter() if adapter.name == "triton" else TritonAdapter()
        self.good_unit = f"aotautograd/a{'0f' * 25}" if adapter.name == "triton" else KEY
        self.good_file = f"{self.good_unit}/{'entry' if adapter.name == 'triton' else 'a.so'}"
        (folder / "own").mkdir()
        self.bad = CacheRoot(adapter, folder / "own" / "bad")
        self.good = CacheRoot(other, folder / "good")
        self.repository = packs.repository()
        good_unit, _, name = f"{other.name}/{self.good_file}".rpartition("/")
        units = {f"{adapter.name}/KEY/": {"a.so": CONTENT}, f"{good_unit}/": {name: CONTENT}}
        self.repository.publish(io.BytesIO(packs.write(units)))

    def restore(self) -> Restored:
        union = self.repository.union()
        return restore(self.repository, union, union.units, [self.bad, self.good], Deadline("load", 60))


@EACH_ADAPTER
@pytest.mark.parametrize("fault", FAULTS)
def test_fault_of_one_cache_does_not_affect_another(
    tmp_path: Path, packs: Packs, read_tree: ReadTree, adapter: Adapter, fault: Break
) -> None:
    with ExitStack() as stack:
        pod = Pod(adapter, tmp_path, packs)
        fault(pod.bad.path, stack)
        restored = pod.restore()
        assert restored.names == [f"{pod.good.name}/{pod.good_unit}"]
        assert read_tree(pod.good.path) == {pod.good_file: CONTENT}
        [failure] = restored.failures
        assert str(pod.bad.path) in str(failure)
        if isinstance(failure, NoSpaceError):
            assert failure.variable == (adapter.variables[-1].name if adapter.variables else "TMPDIR")
            assert failure.variable in str(failure)
        found = take([pod.bad, pod.good], Deadline("save", 60))
        assert [unit.name for unit in found.units] == restored.names
    elsewhere = tmp_path / "elsewhere"
    assert not elsewhere.exists() or not list(elsewhere.iterdir())


@EACH_ADAPTER
def test_cache_that_is_removed_while_a_load_writes_does_not_affect_another(
    tmp_path: Path, packs: Packs, read_tree: ReadTree, monkeypatch: pytest.MonkeyPatch, adapter: Adapter
) -> None:
    pod = Pod(adapter, tmp_path, packs)
    pod.bad.path.mkdir()
    monkeypatch.setattr(type(adapter), "is_rewritten", lambda *_: False)  # the content is made up

    def remove_first(*arguments: object) -> None:
        shutil.rmtree(pod.bad.path, ignore_errors=True)
        write_files(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(staging, "write_files", remove_first)
    restored = pod.restore()
    assert restored.names == [f"{pod.good.name}/{pod.good_unit}"]
    assert read_tree(pod.good.path) == {pod.good_file: CONTENT}
    assert str(pod.bad.path) in str(restored.failures[0])


@needs_user
@pytest.mark.parametrize(
    "adapter",
    # Those that are left out have files whose content a restore checks.
    [adapter for adapter in ADAPTERS if adapter.name not in CHECKED],
    ids=lambda adapter: adapter.name,
)
def test_unit_that_cannot_be_read_does_not_affect_the_rest(tmp_path: Path, packs: Packs, adapter: Adapter) -> None:
    pod = Pod(adapter, tmp_path, packs)
    unit = pod.bad.path / "KEY"
    unit.mkdir(parents=True)
    unit.chmod(0)
    try:
        good = f"{pod.good.name}/{pod.good_unit}"
        assert good in pod.restore().names
        assert good in {found.name for found in take([pod.bad, pod.good], Deadline("save", 60)).units}
    finally:
        for folder in pod.bad.path.parent.rglob("KEY*"):
            folder.chmod(0o700)
