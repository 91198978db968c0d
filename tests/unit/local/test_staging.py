"""Local staging: where it lies, what is left behind, and the lock of a cache root."""

from __future__ import annotations

import fcntl
import os
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from b10_transfer.concurrency.deadline import Deadline
from b10_transfer.errors import LocalCacheError
from b10_transfer.local import bulk, staging
from b10_transfer.local.staging import locked, staged_tree, wait_for_restore
from tests.descriptors import opened_below


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "root"


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold a lock on a file or folder, as another process does."""
    descriptor = os.open(path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    yield
    os.close(descriptor)


def write(tree: staging.StagedTree, path: str, data: bytes, mode: int = 0o644) -> None:
    tree.write([(path, mode, 1, data, 0, len(data), 0)])


def test_tree_is_filled_beside_its_root(root: Path) -> None:
    with staged_tree(root) as tree:
        assert tree.path.parent == root.parent
        write(tree, "aa/deeper/key.py", b"source")
        write(tree, "top", b"top")
        assert (tree.path / "aa" / "deeper" / "key.py").read_bytes() == b"source"
        assert not root.exists()


def test_tree_is_removed_at_the_end_whatever_happens(root: Path) -> None:
    with pytest.raises(ValueError, match="no luck"), staged_tree(root) as tree:
        write(tree, "ey/key.py", b"source")
        raise ValueError("no luck")
    assert os.listdir(root.parent) == []


def test_tree_is_private(root: Path) -> None:
    with staged_tree(root) as tree:
        assert stat.S_IMODE(tree.path.stat().st_mode) == 0o700
        assert os.listdir(tree.path) == []


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o000])
@pytest.mark.parametrize("mode", [0o644, 0o755, 0o400, 0o777])
def test_file_has_the_mode_it_is_given_whatever_the_umask_says(root: Path, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        with staged_tree(root) as tree:
            write(tree, "ey/key.py", b"source", mode)
            assert stat.S_IMODE((tree.path / "ey" / "key.py").stat().st_mode) == mode
    finally:
        os.umask(before)


def test_file_is_created_only_once(root: Path) -> None:
    with staged_tree(root) as tree:
        write(tree, "ey/key.py", b"first")
        with pytest.raises(FileExistsError):
            write(tree, "ey/key.py", b"second")
        assert (tree.path / "ey" / "key.py").read_bytes() == b"first"


def test_link_that_is_planted_in_the_tree_is_not_followed(root: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    with staged_tree(root) as tree:
        write(tree, "ey/key.py", b"source")
        (tree.path / "bb").symlink_to(tmp_path / "elsewhere")
        (tree.path / "in").mkdir()
        (tree.path / "in" / "link.py").symlink_to(tmp_path / "elsewhere" / "file")
        for path in ("bb/bbbkey.py", "in/link.py"):
            with pytest.raises(OSError):
                write(tree, path, b"planted")
    assert os.listdir(tmp_path / "elsewhere") == []


def test_tree_keeps_none_of_its_folders_open(root: Path) -> None:
    paths = [f"{number:03d}/{level}/file" for level in "ab" for number in range(200)]
    with staged_tree(root) as tree:
        before = opened_below(root.parent)
        for path in paths:
            write(tree, path, path.encode())
        assert opened_below(root.parent) == before
        assert all((tree.path / path).read_text() == path for path in paths)


def test_descriptors_are_released(root: Path) -> None:
    with staged_tree(root) as tree:
        write(tree, "aa/bb/bbbkey.py", b"")
        assert opened_below(root.parent)
        tree.close()
        tree.close()
        assert not opened_below(root.parent)
    assert not opened_below(root.parent)


def test_removing_what_is_not_there_is_no_error(root: Path) -> None:
    with staged_tree(root) as tree:
        write(tree, "ey/key.py", b"source")
        for path in ("ey/key.py", "ey/key.py", "bb/bbbkey.py", "other"):
            tree.remove(path)
        assert os.listdir(tree.path / "ey") == []


def test_leftovers_of_dead_processes_are_removed(root: Path) -> None:
    leftover = root.parent / ".root.b10-staging-0123"
    (leftover / "ey").mkdir(parents=True)
    (leftover / "ey" / "key.py").write_bytes(b"half")
    with staged_tree(root):
        assert not leftover.exists()


def test_trees_of_live_processes_are_kept(root: Path) -> None:
    live = root.parent / ".root.b10-staging-0123"
    live.mkdir(parents=True)
    with held(live), staged_tree(root):
        assert live.exists()
    assert live.exists()


def test_tree_in_use_is_no_leftover_to_others(root: Path) -> None:
    with staged_tree(root) as tree, staged_tree(root) as other:
        write(tree, "ey/key.py", b"source")
        assert tree.path != other.path
        assert (tree.path / "ey" / "key.py").exists()


@pytest.mark.parametrize(
    "name", [".other.b10-staging-0123", ".root", "root.b10-staging-0", "precious", ".root.b10-lock"]
)
def test_other_things_beside_the_root_are_kept(root: Path, name: str) -> None:
    (root.parent / name).mkdir(parents=True)
    with staged_tree(root):
        assert (root.parent / name).is_dir()


def test_link_that_looks_like_a_leftover_is_not_followed(root: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    root.parent.mkdir()
    (root.parent / ".root.b10-staging-0123").symlink_to(tmp_path / "precious")
    with staged_tree(root):
        pass
    assert (tmp_path / "precious").is_dir()


def test_new_tree_is_not_taken_for_a_leftover_before_it_is_locked(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without locks (B10_LOCKS=0), another rank may begin at the same moment and look for leftovers."""
    mkdir = os.mkdir
    others: list[str] = []

    def mkdir_and_be_overtaken(path: Any, *arguments: Any, **options: Any) -> None:
        mkdir(path, *arguments, **options)
        if "b10-staging" in str(path) and not others:
            others.append(str(path))
            with staged_tree(root):
                pass

    monkeypatch.setattr(os, "mkdir", mkdir_and_be_overtaken)
    with staged_tree(root) as tree:
        write(tree, "ey/key.py", b"source")
        assert (tree.path / "ey" / "key.py").read_bytes() == b"source"
    assert others


def test_staging_that_cannot_be_made_is_an_error_that_names_the_root(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with (
        pytest.raises(LocalCacheError, match=r"could not stage files for .*/file/root"),
        staged_tree(tmp_path / "file/root"),
    ):
        pytest.fail("it was made")


# Inside the root


def test_staging_lies_beside_a_root_that_is_missing_and_inside_one_that_exists(root: Path) -> None:
    with staged_tree(root) as tree, locked(root, Deadline("load", 60)):
        assert tree.path.parent == root.parent
        assert tree.path.name.startswith(".root.b10-staging-")
    root.mkdir()
    with staged_tree(root) as tree, locked(root, Deadline("load", 60)):
        assert tree.path.parent == root
        assert tree.path.name.startswith(".b10-staging-")
    assert os.listdir(root) == []
    assert set(os.listdir(root.parent)) == {".root.b10-lock", "root"}


@pytest.mark.parametrize("reason", ["mount point", "no permission"])
def test_lock_lies_inside_a_root_if_it_cannot_lie_beside(
    root: Path, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    root.mkdir(parents=True)
    if reason == "mount point":
        monkeypatch.setattr(os.path, "ismount", lambda path: path == root)
    else:
        monkeypatch.setattr(os, "access", lambda path, _mode: path != root.parent)
    with locked(root, Deadline("load", 60)):
        assert os.listdir(root) == [".b10-lock"]
    assert os.listdir(root.parent) == ["root"]


# The lock


def test_lock_that_stays_held_is_waited_for_a_while_only(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    with locked(root, Deadline("load", 60)), locked(root, Deadline("load", 0.05)):
        assert "held by another process" in caplog.text
    caplog.clear()
    with locked(root, Deadline("load", 0.05)):
        assert not caplog.text


def test_waiter_goes_on_once_the_holder_is_done(root: Path) -> None:
    order: list[str] = []
    waiting = threading.Event()

    def wait() -> None:
        waiting.set()
        with locked(root, Deadline("load", 60)):
            order.append("waiter")

    thread = threading.Thread(target=wait)
    with locked(root, Deadline("load", 60)):
        thread.start()
        waiting.wait()
        order.append("holder")
    thread.join()
    assert order == ["holder", "waiter"]


def test_lock_is_released_after_an_error(root: Path) -> None:
    with pytest.raises(ValueError, match="no luck"), locked(root, Deadline("load", 60)):
        raise ValueError("no luck")
    with locked(root, Deadline("load", 0.05)):
        pass


def test_locks_of_different_roots_do_not_hinder_each_other(tmp_path: Path) -> None:
    with locked(tmp_path / "one", Deadline("load", 60)), locked(tmp_path / "two", Deadline("load", 0.05)):
        pass


def test_lock_that_cannot_be_had_is_done_without(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    done = False
    with locked(tmp_path / "file" / "root", Deadline("load", 60)):
        done = True
    assert done


def test_link_in_place_of_the_lock_is_not_followed(root: Path, tmp_path: Path) -> None:
    root.parent.mkdir()
    (root.parent / ".root.b10-lock").symlink_to(tmp_path / "elsewhere")
    with locked(root, Deadline("load", 60)):
        pass
    assert not (tmp_path / "elsewhere").exists()


def test_waiting_for_a_restore_that_nobody_does_leaves_no_trace(root: Path, tmp_path: Path) -> None:
    wait_for_restore(root, Deadline("load", 60))
    assert os.listdir(tmp_path) == []


class Late(Deadline):
    """Sleeps longer than asked, as on a busy machine."""

    def sleep(self, seconds: float) -> None:
        super().sleep(self.seconds)


@contextmanager
def waited_for(root: Path, patience: Deadline) -> Iterator[None]:
    wait_for_restore(root, patience)
    yield


@pytest.mark.parametrize("wait", [locked, waited_for])
def test_sleep_that_ends_late_fails_no_load(
    root: Path, caplog: pytest.LogCaptureFixture, wait: Callable[[Path, Deadline], AbstractContextManager[None]]
) -> None:
    with locked(root, Deadline("load", 60)), wait(root, Late("load", 0.2)):
        assert "held by another process" in caplog.text


def test_restore_in_progress_is_waited_for_a_while_only(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    with locked(root, Deadline("load", 60)):
        wait_for_restore(root, Deadline("load", 0.05))
    assert "held by another process" in caplog.text


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of another user")
@pytest.mark.parametrize("kind", ["file", "pipe"])
def test_lock_of_another_user_is_ignored(root: Path, caplog: pytest.LogCaptureFixture, kind: str) -> None:
    root.parent.mkdir()
    lock = root.parent / ".root.b10-lock"
    lock.touch() if kind == "file" else os.mkfifo(lock)
    os.chown(lock, 12345, 12345)
    with open(os.open(lock, os.O_RDWR), "rb", buffering=0) as theirs:
        fcntl.flock(theirs, fcntl.LOCK_EX)
        wait_for_restore(root, Deadline("load", 60))
        with locked(root, Deadline("load", 60)):
            pass
    assert not caplog.text


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of another user")
def test_leftovers_of_another_user_are_left_alone(root: Path) -> None:
    theirs = root.parent / ".root.b10-staging-00"
    theirs.mkdir(parents=True)
    os.chown(theirs, 12345, 12345)
    with staged_tree(root):
        pass
    assert os.listdir(root.parent) == [theirs.name]


def test_two_threads_write_at_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both_have_begun = threading.Barrier(2)

    def meet(*arguments: Any) -> None:
        both_have_begun.wait(60)
        bulk.write_files(*arguments)

    monkeypatch.setattr(staging, "write_files", meet)
    with staged_tree(root) as tree:
        other = threading.Thread(target=write, args=(tree, "same/folder/a", b"a"))
        other.start()
        write(tree, "same/folder/b", b"b")
        other.join()
        assert sorted(os.listdir(tree.path / "same" / "folder")) == ["a", "b"]


def test_last_of_two_writers_that_outlive_the_tree_clears_up(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until then the descriptor stays open: its number must not come to mean another folder."""
    goes_on, begun = [threading.Event(), threading.Event()], threading.Barrier(3)

    def hang(_tree: int, parts: Any, *_: int) -> None:
        begun.wait(60)
        goes_on[int(parts[0][0])].wait(60)

    monkeypatch.setattr(staging, "write_files", hang)
    with staged_tree(root) as tree:
        descriptor, path = tree._descriptor, tree.path
        writers = [threading.Thread(target=write, args=(tree, str(number), b"")) for number in range(2)]
        for writer in writers:
            writer.start()
        begun.wait(60)
    for number, writer in enumerate(writers):
        os.fstat(descriptor)
        path.mkdir(exist_ok=True)  # as one that writes would have it
        goes_on[number].set()
        writer.join()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
    assert os.listdir(root.parent) == []
