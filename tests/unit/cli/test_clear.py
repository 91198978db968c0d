"""``b10-compile-cache clear`` removes artifacts, and nothing else."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from b10_transfer import OperationStatus, load
from b10_transfer.environment import detect
from tests.command import Publisher, command, pod_like_this
from tests.conftest import IsolatedEnv, ReadTree

ARTIFACTS = {"fxgraph/ke/fkey/graph": b"a graph", "ke/ckey.main.so": b"code", "triton/0/KERNEL/launcher.so": b"x"}
OTHERS = {"locks/key.lock": b"", "cd/.1.2.tmp": b"half", "triton/0/KERNEL2/tmp.pid_1/k": b"half"}


@pytest.fixture
def this_pod(isolated_env: IsolatedEnv) -> Publisher:
    return Publisher(isolated_env.store, detect())


def test_pod_without_artifacts_has_nothing_to_remove(isolated_env: IsolatedEnv) -> None:
    answer = command("clear")
    assert answer.exit_code == 0
    assert answer.stdout.startswith("nothing to remove in ")


def test_artifacts_are_removed_and_nothing_else(isolated_env: IsolatedEnv, read_tree: ReadTree) -> None:
    isolated_env.fill(isolated_env.inductor, ARTIFACTS | OTHERS)
    isolated_env.fill(isolated_env.triton, {"KERNEL/launcher.so": b"1234"})
    (isolated_env.inductor / "empty").mkdir()
    answer = command("clear")
    assert answer.exit_code == 0
    assert f"inductor: removed 3 files, 12 B ({isolated_env.inductor})\n" in answer.stdout
    assert f"triton: removed 1 file, 4 B ({isolated_env.triton})\n" in answer.stdout
    assert read_tree(isolated_env.inductor) == OTHERS
    assert not (isolated_env.inductor / "fxgraph").exists()
    assert (isolated_env.inductor / "empty").is_dir()
    assert isolated_env.triton.is_dir()
    assert not list(isolated_env.triton.iterdir())


def test_cache_that_is_named_is_the_only_one_that_is_cleared(isolated_env: IsolatedEnv, read_tree: ReadTree) -> None:
    isolated_env.fill(isolated_env.inductor, ARTIFACTS)
    isolated_env.fill(isolated_env.triton, {"KERNEL/launcher.so": b"x"})
    found = command("clear", "--cache", "triton", "--json").json
    assert found == {
        "caches": [{"name": "triton", "path": str(isolated_env.triton), "files": 1, "bytes": 1, "errors": []}]
    }
    assert read_tree(isolated_env.inductor) == ARTIFACTS


def test_cache_that_does_not_exist_is_an_error_that_names_those_that_do(isolated_env: IsolatedEnv) -> None:
    isolated_env.fill(isolated_env.triton, {"KERNEL/launcher.so": b"x"})
    answer = command("clear", "--cache", "tritno")
    assert answer.exit_code == 2
    assert "tritno" in answer.stderr
    assert "inductor" in answer.stderr
    assert (isolated_env.triton / "KERNEL/launcher.so").exists()


def test_no_link_is_followed_and_none_is_removed(isolated_env: IsolatedEnv, read_tree: ReadTree) -> None:
    precious = isolated_env.home / "precious"
    isolated_env.fill(precious, {"fxgraph/ey/key/graph": b"mine", "ke/ckey.py": b"mine"})
    isolated_env.fill(isolated_env.inductor, {"aotautograd/akey/entry": b"x"})
    (isolated_env.inductor / "fxgraph").symlink_to(precious / "fxgraph")
    (isolated_env.inductor / "aotautograd/akey/link").symlink_to(precious / "ke/ckey.py")
    assert command("clear").exit_code == 0
    assert len(read_tree(precious)) == 2
    assert (isolated_env.inductor / "fxgraph").is_symlink()
    assert (isolated_env.inductor / "aotautograd/akey/link").is_symlink()
    assert not (isolated_env.inductor / "aotautograd/akey/entry").exists()


def test_store_that_lies_in_a_cache_is_left_alone(isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("B10_STORE", str(isolated_env.inductor / "store"))
    isolated_env.fill(isolated_env.inductor, ARTIFACTS)
    pack = Publisher(isolated_env.inductor / "store", detect()).publish()
    command("clear")
    assert pack.exists()
    assert not (isolated_env.inductor / "fxgraph").exists()


def test_artifacts_that_cannot_be_removed_are_reported_and_the_others_removed(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    isolated_env.fill(isolated_env.inductor, ARTIFACTS)
    unlink = os.unlink

    def refuse(path: str, *, dir_fd: int | None = None) -> None:
        if path == "graph":
            raise PermissionError(13, "Permission denied")
        unlink(path, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", refuse)
    answer = command("clear")
    assert answer.exit_code == 1
    path = f"{isolated_env.inductor}/fxgraph/ke/fkey/graph"
    assert answer.stderr == (
        f"error: could not remove {path}: Permission denied; clear the cache as the owner of its folder, or as root\n"
    )
    assert "inductor: removed 2 files" in answer.stdout


def test_file_at_the_top_of_a_cache_that_cannot_be_removed_has_a_plain_path(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = isolated_env.home / ".cache" / "vllm" / "modelinfos"
    monkeypatch.setenv("VLLM_CACHE_ROOT", str(root.parent))
    isolated_env.fill(root, {"vllm-model-Class.json": b"{}"})
    unlink = os.unlink

    def refuse(path: str, *, dir_fd: int | None = None) -> None:
        if path == "vllm-model-Class.json":
            raise OSError(30, "Read-only file system")
        unlink(path, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", refuse)
    assert f"error: could not remove {root}/vllm-model-Class.json: Read-only file system\n" in command("clear").stderr


@pytest.mark.parametrize("fault", ["relative", "open to all", "a hub"])
def test_cache_that_is_refused_is_one_message_that_says_so(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    isolated_env.fill(isolated_env.inductor, ARTIFACTS)
    isolated_env.triton.mkdir(parents=True)
    if fault == "open to all":
        isolated_env.triton.chmod(0o777)
        said = f"could not use {isolated_env.triton}: every user can write to {isolated_env.triton} (mode 0777), and "
    else:
        place = {"relative": "./kernels", "a hub": str(isolated_env.home)}[fault]
        monkeypatch.setenv("TRITON_CACHE_DIR", place)
        said = f"TRITON_CACHE_DIR='{place}' is not usable: "
    answer = command("clear")
    assert answer.exit_code == 1
    assert "inductor: removed 3 files" in answer.stdout
    [line] = answer.stderr.splitlines()
    assert line.startswith(f"error: the cache triton was not cleared: {said}")


def test_cleared_pod_loads_again(this_pod: Publisher, isolated_env: IsolatedEnv) -> None:
    this_pod.publish()
    assert load().status is OperationStatus.SUCCESS
    assert load().status is OperationStatus.SKIPPED
    command("clear")
    assert load().status is OperationStatus.SUCCESS


@pytest.mark.parametrize(
    "arguments",
    [
        ["--namespace", "x"],
        ["--all-environments"],
        ["--yes"],
        ["--store", "--cache", "triton"],
        ["--store", "/somewhere", "else"],
    ],
    ids=" ".join,
)
def test_options_that_do_not_go_together_are_wrong_usage(
    this_pod: Publisher, isolated_env: IsolatedEnv, arguments: list[str]
) -> None:
    pack = this_pod.publish()
    isolated_env.fill(isolated_env.triton, {"KERNEL/launcher.so": b"x"})
    assert command("clear", *arguments).exit_code == 2
    assert pack.exists()
    assert (isolated_env.triton / "KERNEL/launcher.so").exists()


def test_without_a_terminal_clearing_a_store_needs_yes(this_pod: Publisher) -> None:
    pack = this_pod.publish()
    answer = command("clear", "--store")
    assert answer.exit_code == 2
    assert "needs --yes" in answer.stderr
    assert "to be removed: 1 pack, " in answer.stderr
    assert f"of environment {this_pod.environment.id}, this pod's" in answer.stderr
    assert pack.exists()


def test_store_is_cleared_of_this_pods_environment_alone(this_pod: Publisher, isolated_env: IsolatedEnv) -> None:
    isolated_env.fill(isolated_env.triton, {"KERNEL/launcher.so": b"x"})
    kept = [
        Publisher(this_pod.store, pod_like_this(torch="2.12.0")).publish(),
        Publisher(this_pod.store, this_pod.environment, "other-team").publish(),
    ]
    removed = [this_pod.publish(), this_pod.publish()]
    size = sum(pack.stat().st_size for pack in removed)
    found = command("clear", "--store", "--yes", "--json").json
    assert found == {
        "environments": [
            {
                "namespace": "default",
                "id": this_pod.environment.id,
                "this_pod": True,
                "packs": 2,
                "pack_ids": sorted(pack.name.removesuffix(".tar.zst") for pack in removed),
                "packed_bytes": size,
            }
        ]
    }
    assert [pack.exists() for pack in kept + removed] == [True, True, False, False]
    assert not (this_pod.folder / "environment.json").exists()
    assert (isolated_env.triton / "KERNEL/launcher.so").exists()


def test_records_of_use_go_with_the_packs(this_pod: Publisher) -> None:
    this_pod.publish()
    record = this_pod.folder / "used" / "20261130"
    record.parent.mkdir()
    record.touch()
    assert command("clear", "--store", "--yes").exit_code == 0
    assert not record.exists()


def test_all_environments_are_those_of_one_namespace(this_pod: Publisher) -> None:
    other = Publisher(this_pod.store, pod_like_this(torch="2.12.0"))
    kept = Publisher(this_pod.store, this_pod.environment, "other-team").publish()
    removed = [this_pod.publish(), other.publish()]
    answer = command("clear", "--store", "--all-environments", "--yes")
    assert answer.stdout.count("removed ") == 2
    assert [pack.exists() for pack in [kept, *removed]] == [True, False, False]


def test_another_store_and_namespace_can_be_named(this_pod: Publisher, isolated_env: IsolatedEnv) -> None:
    elsewhere = Publisher(isolated_env.home / "elsewhere", this_pod.environment, "other-team")
    removed, kept = elsewhere.publish(), this_pod.publish()
    answer = command("clear", "--store", str(elsewhere.store), "--namespace", "other-team", "--yes")
    assert answer.exit_code == 0
    assert (removed.exists(), kept.exists()) == (False, True)


def test_only_the_layout_of_a_store_is_cleared(this_pod: Publisher) -> None:
    this_pod.publish()
    mine = [this_pod.folder / "notes.txt", this_pod.store / "notes.txt", this_pod.folder / "leases" / "save-x.00000001"]
    for path in mine:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    command("clear", "--store", "--all-environments", "--yes")
    assert all(path.exists() for path in mine)


def test_clearing_a_store_that_holds_nothing_is_no_error(isolated_env: IsolatedEnv) -> None:
    answer = command("clear", "--store")
    assert (answer.exit_code, "nothing to remove" in answer.stdout) == (0, True)
    assert not isolated_env.store.exists()


def test_store_that_cannot_be_reached_is_an_error(isolated_env: IsolatedEnv) -> None:
    answer = command("clear", "--store", str(isolated_env.home / "missing" / "store"), "--yes")
    assert answer.exit_code == 1
    assert "is the volume mounted?" in answer.stderr


def test_pod_that_only_reads_removes_nothing_from_a_store(this_pod: Publisher, monkeypatch: pytest.MonkeyPatch) -> None:
    pack = this_pod.publish()
    monkeypatch.setenv("B10_READ_ONLY", "1")
    answer = command("clear", "--store", "--yes")
    assert answer.exit_code == 1
    assert "B10_READ_ONLY=1: this pod may not change the store" in answer.stderr
    assert pack.exists()


@pytest.mark.parametrize(("said", "exit_code", "is_left"), [("y\n", 0, False), ("n\n", 1, True), ("\n", 1, True)])
def test_on_a_terminal_it_asks_first(this_pod: Publisher, said: str, exit_code: int, is_left: bool) -> None:
    pack = this_pod.publish()
    ours, theirs = pty.openpty()
    try:
        os.write(ours, said.encode())
        done = subprocess.run(
            [Path(sys.executable).parent / "b10-compile-cache", "clear", "--store"],
            stdin=theirs,
            capture_output=True,
            text=True,
            timeout=60,
        )
    finally:
        os.close(ours)
        os.close(theirs)
    assert "Remove them, for every pod that shares the store?" in done.stderr
    assert (done.returncode, pack.exists()) == (exit_code, is_left)
