"""Directories that an operator adds: the same rules as for other caches, and only where the pod's variable points."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from b10_transfer import OperationStatus, load, save
from b10_transfer.maintenance.clear import clear_caches
from tests.conftest import IsolatedEnv, ReadTree

FILES = {"kernel.bin": b"1", "module/a/b.so": b"2", "module/index": b"3"}
LEFT_OUT = {"module/.lock": b"", "x.tmp": b"", "sub/lock": b""}


@pytest.fixture
def saved(isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch) -> IsolatedEnv:
    isolated_env.fill(isolated_env.home / "first", {**FILES, **LEFT_OUT})
    monkeypatch.setenv("B10_EXTRA_CACHES", f"acme={isolated_env.home}/first")
    report = save()
    assert (report.status, report.units) == (OperationStatus.SUCCESS, 2)
    return isolated_env


def test_entries_are_restored_to_the_path_of_the_variable(
    saved: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, read_tree: ReadTree
) -> None:
    monkeypatch.setenv("B10_EXTRA_CACHES", f"other={saved.home}/other, acme={saved.home}/second/")
    assert sorted(load().restored) == ["extra_acme/kernel.bin", "extra_acme/module"]
    assert read_tree(saved.home / "second") == FILES
    assert not (saved.home / "other").exists()


def test_existing_entry_is_not_replaced(
    saved: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, read_tree: ReadTree
) -> None:
    saved.fill(saved.home / "second", {"kernel.bin": b"own"})
    monkeypatch.setenv("B10_EXTRA_CACHES", f"acme={saved.home}/second")
    assert load(merge=True).restored == ("extra_acme/module",)
    assert read_tree(saved.home / "second") == {**FILES, "kernel.bin": b"own"}


@pytest.mark.parametrize("value", ["", "other=/nowhere/at/all"])
def test_pod_without_the_name_restores_nothing(saved: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("B10_EXTRA_CACHES", value)
    assert load().status is OperationStatus.DOES_NOT_EXIST


@pytest.mark.parametrize("place", ["", ".cache", ".ssh"])
def test_directory_of_another_use_is_refused(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    isolated_env.fill(isolated_env.home / place, {"id_rsa": b"secret"})
    monkeypatch.setenv("B10_EXTRA_CACHES", f"acme={isolated_env.home / place}")
    report = save()
    assert report.status is OperationStatus.ERROR
    assert "B10_EXTRA_CACHES" in report.reason


@pytest.mark.parametrize("value", ["acme", "acme=relative", "=/x", "Acme=/x", "acme=/", "a=/x,a=/y", "a=/x,", "a=/x=y"])
def test_wrong_value_is_an_error(isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("B10_EXTRA_CACHES", value)
    for operation in (load, save):
        assert "name=/path" in operation().reason


# A folder is saved whole or not at all


def add_link(folder: Path) -> None:
    (folder / "a" / "lib.so").symlink_to("lib.so.1")


def add_pipe(folder: Path) -> None:
    os.mkfifo(folder / "a" / "pipe")


def add_file_with_a_line_break(folder: Path) -> None:
    (folder / "a" / "two\nlines").write_bytes(b"2")


def add_file_in_101_folders(folder: Path) -> None:
    deep = folder.joinpath(*["d"] * 101)
    deep.mkdir(parents=True)
    (deep / "file").write_bytes(b"2")


def add_file_that_every_user_can_write_to(folder: Path) -> None:
    (folder / "a" / "open").write_bytes(b"2")
    (folder / "a" / "open").chmod(0o666)


def add_folder_that_every_user_can_write_to(folder: Path) -> None:
    (folder / "a" / "open").mkdir()
    (folder / "a" / "open").chmod(0o777)


def add_file_of_another_user(folder: Path) -> None:
    (folder / "a" / "theirs").write_bytes(b"2")
    os.chown(folder / "a" / "theirs", 12345, 12345)


def add_store(folder: Path) -> None:
    os.environ["B10_STORE"] = str(folder / "a" / "store")
    (folder / "a" / "store").mkdir()


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of another user")


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A folder that every user may enter."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def fill_module(root: Path) -> Path:
    for name in ("module/a/lib.so.1", "module/data", "whole/a/b", "plain"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"1")
    return root / "module"


@pytest.mark.parametrize(
    ("add", "named"),
    [
        (add_link, "module/a/lib.so: it is a link (replace it with a copy of its target)"),
        (add_pipe, "module/a/pipe: it is neither a file nor a folder (remove it)"),
        (add_file_with_a_line_break, "module/a/lib.so.1 is not saved"),
        (add_file_in_101_folders, "it is more than 100 folders deep"),
        (add_file_that_every_user_can_write_to, "module/a/open: another user could have written it"),
        (add_folder_that_every_user_can_write_to, "module/a/open: another user could have written to it"),
        pytest.param(add_file_of_another_user, "module/a/theirs: another user could have", marks=needs_root),
        (add_store, "module/a/store: it is the store, or another cache"),
    ],
    ids=lambda value: value.__name__.removeprefix("add_") if callable(value) else "",
)
def test_folder_with_an_entry_that_cannot_be_saved_is_left_out_whole(
    isolated_env: IsolatedEnv,
    reachable: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    read_tree: ReadTree,
    add: Callable[[Path], None],
    named: str,
) -> None:
    monkeypatch.setenv("B10_STORE", str(isolated_env.store))  # undone after the test
    monkeypatch.setenv("B10_EXTRA_CACHES", f"acme={reachable}/first")
    add(fill_module(reachable / "first"))
    assert (save().units, save().status) == (2, OperationStatus.SKIPPED)
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert [f"{reachable}/first/module" in warning for warning in warnings] == [True]
    assert named in warnings[0]
    monkeypatch.setenv("B10_EXTRA_CACHES", f"acme={isolated_env.home}/second")
    assert sorted(load().restored) == ["extra_acme/plain", "extra_acme/whole"]
    assert read_tree(isolated_env.home / "second") == {"plain": b"1", "whole/a/b": b"1"}


def test_folder_that_gets_a_link_while_it_is_read_is_left_out(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    from b10_transfer.local import snapshot

    module = fill_module(isolated_env.home / "first")
    monkeypatch.setenv("B10_EXTRA_CACHES", f"acme={isolated_env.home}/first")
    pack = snapshot.pack

    def pack_late(*arguments: object) -> None:
        if not (module / "a" / "lib.so").is_symlink():
            add_link(module)
        pack(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(snapshot, "pack", pack_late)
    assert save().units == 2


def test_locks_and_temporary_files_are_no_part_of_a_folder(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = fill_module(isolated_env.home / "first")
    (module / "a" / "x.lock").symlink_to("nowhere")
    (module / "tmp.folder").mkdir()
    monkeypatch.setenv("B10_EXTRA_CACHES", f"acme={isolated_env.home}/first")
    assert save().units == 3


def test_many_partial_folders_make_few_warnings(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(30):
        add_link(fill_module(isolated_env.home / "first" / str(number)).parent / "module")
    monkeypatch.setenv("B10_EXTRA_CACHES", f"acme={isolated_env.home}/first")
    save()
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 11
    assert "20 more of the files and folders" in warnings[-1]


def test_partial_folder_is_neither_completed_by_a_load_nor_cleared(
    saved: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, read_tree: ReadTree
) -> None:
    root = saved.home / "second"
    saved.fill(root, {"module/a/own": b"own"})
    (root / "module" / "link").symlink_to("a/own")
    monkeypatch.setenv("B10_EXTRA_CACHES", f"acme={root}")
    assert load().restored == ("extra_acme/kernel.bin",)
    assert read_tree(root / "module" / "a") == {"own": b"own"}
    [cleared] = clear_caches(["extra_acme"])
    assert (cleared.files, len(cleared.errors)) == (1, 1)
    assert "module/link: it is a link" in cleared.errors[0]
    assert read_tree(root / "module" / "a") == {"own": b"own"}


@pytest.mark.parametrize(("entry", "restored"), [("kernel.bin", "module"), ("module", "kernel.bin")])
def test_entry_of_another_kind_is_left_alone(
    saved: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, entry: str, restored: str
) -> None:
    root = saved.home / "second"
    saved.fill(root, {"kernel.bin/own": b"1"} if entry == "kernel.bin" else {"module": b"1"})
    monkeypatch.setenv("B10_EXTRA_CACHES", f"acme={root}")
    assert load(merge=True).restored == (f"extra_acme/{restored}",)
    again = load(merge=True)
    assert (again.status, again.already_present) == (OperationStatus.SKIPPED, 2)


def test_folder_that_holds_another_cache_is_left_out_and_the_cache_itself_is_not_named(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    root = isolated_env.home / "first"
    isolated_env.fill(root, {"inner/kernel": b"1", "module/other/kernel": b"1", "module/own": b"1", "plain": b"1"})
    value = f"acme={root},inner={root}/inner,other={root}/module/other"
    monkeypatch.setenv("B10_EXTRA_CACHES", value)
    assert save().units == 3
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert [f"{root}/module/other: it is the store, or another cache" in warning for warning in warnings] == [True]


def test_folder_with_files_of_a_cache_in_the_same_directory_is_left_out(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    kernel = {"launcher.so": b"1", "kernel.json": b"{}"}
    files = {f"{name}/{file}": data for name in ("A" * 43, "B" * 43) for file, data in kernel.items()}
    isolated_env.fill(isolated_env.triton, {**files, f"{'A' * 43}/own/file": b"1", "other/file": b"1"})
    monkeypatch.setenv("B10_EXTRA_CACHES", f"acme={isolated_env.triton}")
    save()
    shutil.rmtree(isolated_env.triton)
    restored = [name for name in load().restored if name.startswith("extra_")]
    assert restored == ["extra_acme/other"]
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert [f"{isolated_env.triton}/{'A' * 43} is left out" in warning for warning in warnings] == [True]
