"""A writer of the store puts links, FIFOs and other things into it: nothing outside the store is read or touched."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from b10_transfer import OperationStatus, load, save
from b10_transfer.stores.directory import DirectoryStore
from tests.command import command
from tests.conftest import IsolatedEnv
from tests.descriptors import opened_below
from tests.security.pods import COMMANDS, make_victim, photograph, run_all, set_old

FOLDERS = [
    "v1",
    "v1/.leases",
    "v1/default",
    "v1/default/ENVIRONMENT",
    "v1/default/ENVIRONMENT/packs",
    "v1/default/ENVIRONMENT/leases",
    "v1/default/ENVIRONMENT/quarantine",
    "v1/default/ENVIRONMENT/recalled",
    "v1/default/ENVIRONMENT/used",
    ".staging",
]


@pytest.fixture
def pod(isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch) -> IsolatedEnv:
    """A pod that has saved something and has something new to save."""
    monkeypatch.setenv("B10_CACHES", "inductor,triton")
    monkeypatch.setenv("B10_DEADLINE_SECONDS", "20")
    monkeypatch.setenv("B10_MAX_PACKS", "1")
    monkeypatch.setenv("B10_GRACE_SECONDS", "0")
    for key in ("ONE", "TWO"):
        isolated_env.fill(isolated_env.triton, {f"{key}/launcher.so": key.encode()})
        assert save().status is OperationStatus.SUCCESS
    isolated_env.fill(isolated_env.triton, {"NEW/launcher.so": b"new"})
    return isolated_env


def place(pod: IsolatedEnv, folder: str) -> Path:
    [environment] = (path for path in (pod.store / "v1" / "default").iterdir())
    return pod.store / folder.replace("ENVIRONMENT", environment.name)


@pytest.mark.parametrize("locks", ["0", "1"])
@pytest.mark.parametrize("folder", FOLDERS)
def test_folder_that_is_a_link_leads_no_operation_out_of_the_store(
    pod: IsolatedEnv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str, locks: str
) -> None:
    monkeypatch.setenv("B10_LOCKS", locks)
    victim = make_victim(tmp_path / "victim")
    before = photograph(victim)
    link = place(pod, folder)
    shutil.rmtree(link, ignore_errors=True)
    link.symlink_to(victim)
    run_all()
    assert photograph(victim) == before
    assert link.is_symlink()


def test_link_is_named_in_the_error(pod: IsolatedEnv, tmp_path: Path) -> None:
    packs = place(pod, "v1/default/ENVIRONMENT/packs")
    shutil.rmtree(packs)
    packs.symlink_to(tmp_path)
    report = load()
    assert report.status is OperationStatus.ERROR
    assert f"{packs} is a symbolic link" in report.reason
    assert "remove it" in report.reason


@pytest.mark.parametrize("folder", ["v1/default/ENVIRONMENT/leases", "v1/.leases"])
def test_lease_folder_that_is_a_link_keeps_nobody_from_saving(pod: IsolatedEnv, tmp_path: Path, folder: str) -> None:
    leases = place(pod, folder)
    shutil.rmtree(leases, ignore_errors=True)
    leases.symlink_to(tmp_path)
    assert save().status is OperationStatus.SUCCESS


def test_store_itself_may_be_a_link_of_the_operator(
    pod: IsolatedEnv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to(pod.store)
    monkeypatch.setenv("B10_STORE", str(tmp_path / "link"))
    assert save().status is OperationStatus.SUCCESS
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "triton"))
    assert load().status is OperationStatus.SUCCESS


SWAP = """
import ctypes, os, sys
renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
one, other = (os.fsencode(path) for path in sys.argv[1:3])
print("ready", flush=True)
while True:
    renameat2(-100, one, -100, other, 2)  # RENAME_EXCHANGE
"""


@pytest.mark.parametrize("folder", ["v1/default/ENVIRONMENT/packs", "v1/default/ENVIRONMENT/leases", ".staging"])
def test_folder_that_is_swapped_with_a_link_again_and_again_leads_no_operation_out_of_the_store(
    pod: IsolatedEnv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    monkeypatch.setenv("B10_DEADLINE_SECONDS", "5")
    victim = make_victim(tmp_path / "victim")
    before = photograph(victim)
    target = place(pod, folder)
    target.mkdir(exist_ok=True)
    link = tmp_path / "link"
    link.symlink_to(victim)
    with subprocess.Popen([sys.executable, "-c", SWAP, target, link], stdout=subprocess.PIPE, text=True) as attacker:
        try:
            assert attacker.stdout is not None
            assert attacker.stdout.readline() == "ready\n"
            for number in range(4):
                pod.fill(pod.triton, {f"N{number}/launcher.so": b"%d" % number})
                run_all((("save",), ("prune", "--yes"), ("load",), ("verify",)))
        finally:
            attacker.kill()
    assert photograph(victim) == before


def plant_fifo(path: Path) -> None:
    os.mkfifo(path)


def plant_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.open(".", os.O_RDONLY)
        try:
            os.chdir(path.parent)  # a path of a socket has at most 107 bytes
            listener.bind(path.name)
        finally:
            os.chdir(here)
            os.close(here)


def plant_device(path: Path) -> None:
    try:
        os.mknod(path, 0o666 | 0o020000, os.makedev(5, 0))  # /dev/tty
    except PermissionError:
        pytest.skip("only root makes devices")


def plant_link(path: Path) -> None:
    path.symlink_to("/dev/zero")


def plant_folder(path: Path) -> None:
    path.mkdir()
    (path / "id_rsa").write_text("precious")


OBJECTS = [
    "v1/default/ENVIRONMENT/packs/ffff00000000-0000000000000000.tar.zst",
    "v1/default/ENVIRONMENT/quarantine/01a228e00000-0000000000000001",
    "v1/default/ENVIRONMENT/recalled/01a228e00000-0000000000000001",
    "v1/default/ENVIRONMENT/environment.json",
    "v1/default/ENVIRONMENT/leases/compact.00000001",
    "v1/.leases/slot-00.00000001",
    f".staging/{0:032x}.tmp",
    ".staging/v1,default.claim",
]


@pytest.mark.parametrize("plant", [plant_fifo, plant_socket, plant_device, plant_link, plant_folder])
@pytest.mark.parametrize("name", OBJECTS)
def test_what_is_no_regular_file_is_neither_waited_for_nor_removed(
    pod: IsolatedEnv, name: str, plant: Callable[[Path], None]
) -> None:
    path = place(pod, name)
    path.unlink(missing_ok=True)
    path.parent.mkdir(exist_ok=True)
    plant(path)
    set_old(path.parent)
    started = time.monotonic()
    run_all()
    assert time.monotonic() - started < 60
    assert path.lstat()


@pytest.mark.parametrize(
    "folder", ["v1/default/ENVIRONMENT/packs", "v1/default/ENVIRONMENT/quarantine", "v1/default/ENVIRONMENT/recalled",
               "v1/default/ENVIRONMENT/leases", "v1/default/ENVIRONMENT", "v1/default", "v1", "v1/.leases", ".staging"]
)  # fmt: skip
def test_old_files_of_other_names_stay_where_they_are(pod: IsolatedEnv, folder: str) -> None:
    """Somebody keeps things in the store's folders, or moves a folder of his own to such a name."""
    names = ["id_rsa", "config.json", "model.safetensors", "notes.00000001.bak", "0.tmp"]
    files = [place(pod, folder) / name for name in names]
    files[0].parent.mkdir(exist_ok=True)
    for file in files:
        file.write_text("precious")
    set_old(pod.store)
    run_all()
    assert [file.read_text() for file in files] == ["precious"] * len(files)


@pytest.mark.parametrize("folder", ["v1", "v1/default", "v1/default/ENVIRONMENT/packs"])
def test_export_does_not_carry_what_a_link_leads_to(pod: IsolatedEnv, tmp_path: Path, folder: str) -> None:
    hidden = tmp_path / "elsewhere"
    path = place(pod, folder)
    path.rename(hidden)
    path.symlink_to(hidden)
    answer = command("export", str(tmp_path / "export.tar"))
    assert answer.exit_code in (1, 3)
    if (tmp_path / "export.tar").exists():
        with tarfile.open(tmp_path / "export.tar") as archive:
            assert archive.getnames() == []


def test_store_keeps_no_descriptor_open(tmp_path: Path) -> None:
    import io

    store = DirectoryStore(tmp_path / "store")
    for _ in range(3):
        store.create("a/b/object", io.BytesIO(b"x"))
        store.open("a/b/missing")
        store.list("a/b")
        store.list("missing/too")
        store.folders("a")
        store.delete("a/b/object")
        store.delete("c/d")
        store.now()
        store.remove_abandoned(0)
    assert opened_below(tmp_path) == []


def test_every_command_of_these_tests_works_on_a_sound_store(pod: IsolatedEnv) -> None:
    answers = run_all()
    assert {arguments: answer.exit_code for arguments, answer in answers.items() if answer.exit_code} == {}
    assert set(answers) == set(COMMANDS)
