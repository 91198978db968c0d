"""What lies in the directory of a directory store: looked at behind the store's back, and tampered with there."""

from __future__ import annotations

import errno
import io
import os
import stat
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from b10_transfer.errors import StoreError
from b10_transfer.stores.directory import DirectoryStore
from tests.users import another_user

DEAD, GROWING, YOUNG = (f"{number:032x}.tmp" for number in range(3))
"""Names in ``.staging`` as a store chooses them."""
REFUSED = OSError(errno.EPERM, os.strerror(errno.EPERM))


def refuse_links(*_: object, **__: object) -> None:
    raise REFUSED


@pytest.fixture
def path(store_place: Path) -> Path:
    return store_place / "store"


@pytest.mark.parametrize(
    "code", [errno.EXDEV, errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK], ids=errno.errorcode.get
)
def test_file_system_that_refuses_links_between_folders_is_as_good(
    path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", refuse)
    store = DirectoryStore(path)
    assert store.create("a/object", io.BytesIO(b"first"))
    assert not store.create("a/object", io.BytesIO(b"second"))
    assert (path / "a" / "object").read_bytes() == b"first"
    assert os.listdir(path / ".staging") == []


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.EPERM, errno.EXDEV, errno.EOPNOTSUPP], ids=errno.errorcode.get)
def test_file_system_without_links_and_rename_says_to_use_the_bucket_itself(
    path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(
        StoreError, match=r"neither hard links nor rename .* set B10_STORE to the bucket itself \(s3://"
    ):
        DirectoryStore(path).create("a/object", io.BytesIO(b"first"))
    assert os.listdir(path / ".staging") == []
    assert os.listdir(path / "a") == []


@pytest.fixture(params=["hard links", "no hard links"])
def links(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the file system has hard links; the tests that ask for this run both ways."""
    has_links: bool = request.param == "hard links"
    if not has_links:
        monkeypatch.setattr(os, "link", refuse_links)
    return has_links


@pytest.fixture
def store(path: Path, links: bool) -> DirectoryStore:
    return DirectoryStore(path)


@pytest.fixture
def planted(store: DirectoryStore, path: Path) -> Path:
    """A folder of the store with one sound object, into which others plant things."""
    store.create("a/sound", io.BytesIO(b"sound"))
    return path / "a"


def age(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_object_is_a_plain_file_under_its_own_name(store: DirectoryStore, path: Path) -> None:
    store.create("a/b/object", io.BytesIO(b"content"))
    assert (path / "a" / "b" / "object").read_bytes() == b"content"
    assert not (path / "a" / "b" / "object").is_symlink()


def test_object_has_no_second_name(store: DirectoryStore, path: Path) -> None:
    store.create("a/object", io.BytesIO(b"content"))
    assert (path / "a" / "object").stat().st_nlink == 1


def test_staging_is_empty_after_creations(store: DirectoryStore, path: Path) -> None:
    store.create("a/object", io.BytesIO(b"content"))
    store.create("a/object", io.BytesIO(b"too late"))
    store.now()
    assert os.listdir(path / ".staging") == []


def test_staging_is_empty_after_a_source_that_failed(store: DirectoryStore, path: Path) -> None:
    class Failing(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise ValueError("changed")

    with pytest.raises(ValueError, match="changed"):
        store.create("a/object", Failing())
    assert os.listdir(path / ".staging") == []
    assert os.listdir(path / "a") == []


def test_data_are_synced_before_they_get_their_name_and_the_name_after(
    store: DirectoryStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[str, bool]] = []

    def record(descriptor: int) -> None:
        kind = "folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"
        synced.append((kind, (path / "a" / "object").exists()))

    monkeypatch.setattr(os, "fsync", record)
    store.create("a/object", io.BytesIO(b"content"))
    assert synced == [("file", False), ("folder", True)]


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP, errno.EBADF], ids=errno.errorcode.get)
def test_folder_that_cannot_be_synced_is_no_obstacle(
    store: DirectoryStore, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    sync = os.fsync

    def refuse(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(code, os.strerror(code))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", refuse)
    assert store.create("a/object", io.BytesIO(b"content"))


def test_data_that_cannot_be_synced_are_not_published(store: DirectoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StoreError, match="No space left on device") as raised:
        store.create("a/object", io.BytesIO(b"content"))
    assert isinstance(raised.value.__cause__, OSError)
    assert store.list("a") == []


def test_link_whose_answer_was_lost_counts_as_made(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NFS repeats a request whose answer was lost, and then finds what it made itself."""
    link = os.link

    def made_twice(*arguments: Any, **options: Any) -> None:
        link(*arguments, **options)
        link(*arguments, **options)

    monkeypatch.setattr(os, "link", made_twice)
    store = DirectoryStore(path)
    assert store.create("a/object", io.BytesIO(b"content"))
    assert (path / "a" / "object").read_bytes() == b"content"


@pytest.mark.parametrize("code", [errno.EIO, errno.EACCES, errno.ENOSPC, errno.ESTALE], ids=errno.errorcode.get)
def test_link_that_fails_otherwise_is_an_error(path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", fail)
    with pytest.raises(StoreError, match=r"could not write .*/store/a/object"):
        DirectoryStore(path).create("a/object", io.BytesIO(b"content"))
    assert os.listdir(path / ".staging") == []
    assert os.listdir(path / "a") == []


def test_without_hard_links_claims_on_equal_names_in_different_folders_are_different(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = DirectoryStore(path)
    monkeypatch.setattr(os, "link", refuse_links)
    rename = os.rename
    others: list[bool] = []

    def rename_later(*names: Any, **folders: Any) -> None:
        if not others:  # the first creator holds its claim while the second comes and goes
            others.append(False)
            others[0] = store.create("v1/other/environment/packs/object", io.BytesIO(b"other"))
        rename(*names, **folders)

    monkeypatch.setattr(os, "rename", rename_later)
    assert store.create("v1/one/environment/packs/object", io.BytesIO(b"one"))
    assert others == [True]


CREATE = """
import io, os, sys
os.umask(int(sys.argv[2], 8))
from pathlib import Path
from b10_transfer.stores.directory import DirectoryStore
store = DirectoryStore(Path(sys.argv[1]))
if sys.argv[3] == "no hard links":
    def refuse(*_, **__):
        raise PermissionError(1, "Operation not permitted")
    os.link = refuse
store.create("a/object", io.BytesIO(b"content"))
"""


@pytest.mark.parametrize("umask", ["000", "022", "077"])
@pytest.mark.parametrize(
    ("top_mode", "file_mode"), [(0o2775, 0o664), (0o777, 0o666), (0o1777, 0o644), (0o750, 0o640), (0o700, 0o600)]
)
def test_modes_in_a_store_are_those_of_its_top_folder_whatever_the_first_savers_umask(
    path: Path, top_mode: int, file_mode: int, umask: str
) -> None:
    path.mkdir()
    path.chmod(top_mode)
    subprocess.run([sys.executable, "-c", CREATE, path, umask, "hard links"], check=True)
    modes = [stat.S_IMODE(os.stat(path / name).st_mode) for name in ("a/object", "a", ".staging", ".")]
    assert modes == [file_mode, top_mode, top_mode, top_mode]


def test_group_in_a_store_is_that_of_its_top_folder(path: Path) -> None:
    groups = [group for group in os.getgroups() if group != os.getegid()] or ([4242] if os.geteuid() == 0 else [])
    if not groups:
        pytest.skip("this user has one group only")
    path.mkdir()
    os.chown(path, -1, groups[0])
    DirectoryStore(path).create("a/object", io.BytesIO(b"content"))
    assert {os.stat(path / name).st_gid for name in ("a/object", "a", ".staging")} == {groups[0]}


def test_mode_that_a_file_system_does_not_let_be_set_is_no_obstacle(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    path.mkdir(mode=0o700)
    path.chmod(0o777)
    monkeypatch.setattr(os, "fchmod", refuse)
    monkeypatch.setattr(os, "fchown", refuse)
    assert DirectoryStore(path).create("a/object", io.BytesIO(b"content"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("closed", ["a", ".staging"])
def test_refusal_names_the_object_its_owner_its_mode_and_the_command_that_helps(path: Path, closed: str) -> None:
    DirectoryStore(path).create("a/object", io.BytesIO(b"content"))
    for folder in [path, *(folder for folder in path.parents if folder.stat().st_uid == 0 and folder != folder.parent)]:
        folder.chmod(folder.stat().st_mode | 0o055)
    for folder in (path / "a", path / ".staging"):
        folder.chmod(0o777)
    (path / closed).chmod(0o750)
    with another_user(4242), pytest.raises(StoreError) as raised:
        DirectoryStore(path).create("a/other", io.BytesIO(b"content"))
    said = str(raised.value)
    assert f"Permission denied; {path}/{closed} belongs to uid 0, gid 0, mode 0750; this process is uid 4242" in said
    assert f"chgrp -R 4242 {path} && chmod -R g+rwX {path}" in said


@pytest.mark.parametrize("links_or_not", ["hard links", "no hard links"])
@pytest.mark.parametrize(("umask", "file_mode", "folder_mode"), [("027", 0o640, 0o750), ("077", 0o600, 0o700)])
def test_modes_are_the_umasks_to_say(
    path: Path, umask: str, file_mode: int, folder_mode: int, links_or_not: str
) -> None:
    subprocess.run([sys.executable, "-c", CREATE, path, umask, links_or_not], check=True)
    modes = [stat.S_IMODE(os.stat(path / name).st_mode) for name in ("a/object", "a", ".staging", ".")]
    assert modes == [file_mode, folder_mode, folder_mode, folder_mode]


RACE = """
import io, os, sys
from pathlib import Path
from b10_transfer.stores.directory import DirectoryStore
store = DirectoryStore(Path(sys.argv[1]))
if sys.argv[2] == "no hard links":
    def refuse(*_, **__):
        raise PermissionError(1, "Operation not permitted")
    os.link = refuse
print("ready", flush=True)
sys.stdin.readline()
mine = sys.argv[3].encode() * 10_000
print(*(int(store.create(f"races/{number:03d}", io.BytesIO(mine))) for number in range(30)))
"""


@pytest.mark.parametrize("links_or_not", ["hard links", "no hard links"])
def test_one_of_several_racing_processes_wins_each_name(path: Path, links_or_not: str) -> None:
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACE, path, links_or_not, letter],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for letter in "abcd"
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    wins = []
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("\n")
        racer.stdin.flush()
    for racer in racers:
        output, _ = racer.communicate()
        assert racer.returncode == 0
        wins.append([word == "1" for word in output.split()])
    for number, won in enumerate(zip(*wins, strict=True)):
        assert sum(won) == 1
        assert (path / "races" / f"{number:03d}").read_bytes() == "abcd"[won.index(True)].encode() * 10_000
    assert os.listdir(path / ".staging") == []


def plant_symlink(path: Path) -> None:
    path.symlink_to("/etc/hostname")


def plant_dangling_symlink(path: Path) -> None:
    path.symlink_to("nowhere")


def plant_pipe(path: Path) -> None:
    os.mkfifo(path)


def plant_folder(path: Path) -> None:
    path.mkdir()


PLANTS = [plant_symlink, plant_dangling_symlink, plant_pipe, plant_folder]


@pytest.mark.parametrize("plant", PLANTS)
def test_what_is_planted_is_not_listed(store: DirectoryStore, planted: Path, plant: Any) -> None:
    plant(planted / "object")
    assert [info.name for info in store.list("a")] == ["a/sound"]


@pytest.mark.parametrize("plant", PLANTS)
def test_what_is_planted_is_not_opened(store: DirectoryStore, planted: Path, plant: Any) -> None:
    plant(planted / "object")
    with pytest.raises(StoreError, match="could not open"):
        store.open("a/object")


@pytest.mark.parametrize("plant", PLANTS)
def test_what_is_planted_is_not_replaced(store: DirectoryStore, planted: Path, plant: Any) -> None:
    plant(planted / "object")
    before = os.lstat(planted / "object")
    assert not store.create("a/object", io.BytesIO(b"content"))
    assert os.path.samestat(os.lstat(planted / "object"), before)
    assert not (planted / "nowhere").exists()


@pytest.mark.parametrize("name", ["name with blanks", "-dash", "ümlaut", "new\nline"])
def test_files_of_other_people_are_not_listed(store: DirectoryStore, planted: Path, name: str) -> None:
    (planted / name).write_bytes(b"not ours")
    assert [info.name for info in store.list("a")] == ["a/sound"]


def test_file_that_a_client_of_nfs_keeps_for_its_last_reader_is_no_object(store: DirectoryStore, planted: Path) -> None:
    (planted / ".nfs000000000000001200000001").write_bytes(b"deleted while open")
    assert [info.name for info in store.list("a")] == ["a/sound"]


def test_folder_that_was_missing_at_first_sight_is_looked_for_again(
    store: DirectoryStore, planted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client of NFS remembers for up to a minute that a folder was missing, unless the one above is opened."""
    opened = os.open
    was_read: list[Any] = []

    def remember(name: Any, flags: int, *arguments: Any, **options: Any) -> int:
        if name == "a" and not was_read:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        if name == "." and not flags & os.O_PATH:
            was_read.append(name)
        return opened(name, flags, *arguments, **options)

    monkeypatch.setattr(os, "open", remember)
    assert [info.name for info in store.list("a")] == ["a/sound"]


def test_object_that_is_cut_short_while_open_is_an_error_and_not_short(store: DirectoryStore, planted: Path) -> None:
    reader = store.open("a/sound")
    assert reader is not None
    os.truncate(planted / "sound", 2)
    with reader, pytest.raises(StoreError, match="ends at byte 2, before 5"):
        reader.read_at(0, 5)


def test_short_reads_of_the_file_system_are_made_whole(
    store: DirectoryStore, planted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda descriptor, length, offset: pread(descriptor, min(length, 2), offset))
    reader = store.open("a/sound")
    assert reader is not None
    with reader:
        assert reader.read_at(0, 5) == b"sound"


def test_short_writes_of_the_file_system_are_made_whole(
    store: DirectoryStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, memoryview(data)[:3]))
    store.create("a/object", io.BytesIO(b"0123456789"))
    assert (path / "a" / "object").read_bytes() == b"0123456789"


def test_remove_abandoned_removes_what_died_and_keeps_what_grows(store: DirectoryStore, path: Path) -> None:
    store.now()
    for name in (DEAD, GROWING):
        (path / ".staging" / name).write_bytes(b"half")
    age(path / ".staging" / DEAD, 100)
    assert store.remove_abandoned(60) == 1
    assert os.listdir(path / ".staging") == [GROWING]


def test_remove_abandoned_removes_the_claim_of_a_dead_creator_and_keeps_a_fresh_one(
    store: DirectoryStore, path: Path
) -> None:
    store.now()
    for name in ("dead.claim", "fresh.claim"):
        (path / ".staging" / name).mkdir()
    age(path / ".staging" / "dead.claim", 100)
    assert store.remove_abandoned(60) == 1
    assert os.listdir(path / ".staging") == ["fresh.claim"]


def test_remove_abandoned_goes_by_the_stores_clock(
    store: DirectoryStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.now()
    (path / ".staging" / YOUNG).write_bytes(b"half")
    monkeypatch.setattr(time, "time", lambda: 4e9)
    assert store.remove_abandoned(60) == 0
    assert os.listdir(path / ".staging") == [YOUNG]


@pytest.mark.parametrize("plant", PLANTS)
@pytest.mark.parametrize("name", [DEAD, "a,object.claim"])
def test_remove_abandoned_leaves_alone_what_a_store_does_not_make(
    store: DirectoryStore, path: Path, plant: Any, name: str
) -> None:
    if plant is plant_folder and name != DEAD:
        pytest.skip("a store makes that")
    store.now()
    plant(path / ".staging" / name)
    os.utime(path / ".staging" / name, (0, 0), follow_symlinks=False)
    assert store.remove_abandoned(60) == 0
    assert os.listdir(path / ".staging") == [name]


@pytest.mark.parametrize(
    "name", ["id_rsa", "model.safetensors", "a.tmp", f"{0:032x}.txt", "AB" * 16 + ".tmp", "a b.claim"]
)
def test_remove_abandoned_leaves_alone_names_that_a_store_does_not_choose(
    store: DirectoryStore, path: Path, name: str
) -> None:
    store.now()
    (path / ".staging" / name).write_bytes(b"precious")
    age(path / ".staging" / name, 10_000)
    assert store.remove_abandoned(60) == 0
    assert os.listdir(path / ".staging") == [name]


def test_one_entry_that_cannot_be_removed_keeps_no_other_from_being_removed(store: DirectoryStore, path: Path) -> None:
    store.now()
    staging = path / ".staging"
    (staging / "full.claim" / "of things").mkdir(parents=True)
    dead = [staging / f"{number:032x}.tmp" for number in range(4)]
    for file in dead:
        file.write_bytes(b"half")
    for entry in (staging / "full.claim", *dead):
        age(entry, 100)
    with suppress(StoreError):  # it may complain
        store.remove_abandoned(60)
    assert os.listdir(staging) == ["full.claim"]


def test_remove_abandoned_has_nothing_to_do_where_there_is_no_store(store: DirectoryStore, path: Path) -> None:
    assert store.remove_abandoned(0) == 0
    assert not path.exists()


def test_missing_store_is_an_empty_one_and_reading_does_not_make_it(store: DirectoryStore, path: Path) -> None:
    assert store.list("a") == []
    assert store.open("a/object") is None
    assert not store.delete("a/object")
    assert not path.exists()


def test_missing_parent_of_a_store_is_an_error_that_names_it(store_place: Path) -> None:
    store = DirectoryStore(store_place / "mount" / "store")
    for attempt in (
        lambda: store.list("a"),
        lambda: store.open("a/object"),
        lambda: store.create("a/object", io.BytesIO(b"content")),
        lambda: store.now(),
    ):
        with pytest.raises(StoreError, match=f"{store_place}/mount does not exist; is the volume mounted"):
            attempt()
    assert not (store_place / "mount").exists()


def test_missing_parents_are_made_where_that_is_allowed(store_place: Path) -> None:
    store = DirectoryStore(store_place / "mount" / "deep" / "store", make_parents=True)
    assert store.list("a") == []
    assert store.create("a/object", io.BytesIO(b"content"))
    assert (store_place / "mount" / "deep" / "store" / "a" / "object").read_bytes() == b"content"


@pytest.mark.parametrize("make_parents", [False, True])
def test_store_that_is_a_file_is_an_error(path: Path, make_parents: bool) -> None:
    path.write_bytes(b"not a directory")
    store = DirectoryStore(path, make_parents=make_parents)
    for attempt in (
        lambda: store.list("a"),
        lambda: store.open("a/object"),
        lambda: store.create("a/object", io.BytesIO(b"content")),
        lambda: store.now(),
    ):
        with pytest.raises(StoreError, match=f"could not reach the store {path}: it is not a directory"):
            attempt()
    assert path.read_bytes() == b"not a directory"


def test_store_that_vanishes_while_one_writes_is_an_error_and_not_a_store_of_its_own(
    store_place: Path, links: bool
) -> None:
    """A volume that is unmounted leaves its empty mount point: writing there would fill the node's own disk."""
    store = DirectoryStore(store_place / "mount" / "store")
    (store_place / "mount").mkdir()
    store.create("a/object", io.BytesIO(b"content"))
    os.rename(store_place / "mount", store_place / "unmounted")
    with pytest.raises(StoreError, match="is the volume mounted"):
        store.create("a/other", io.BytesIO(b"content"))
    assert not (store_place / "mount").exists()


@pytest.mark.usefixtures("links")
def test_creators_that_make_the_same_store_at_once_all_succeed(store_place: Path) -> None:
    outcomes: list[object] = []

    def work(store: DirectoryStore, ready: threading.Barrier, name: str) -> None:
        ready.wait()
        try:
            outcomes.append(store.create(name, io.BytesIO(b"content")))
        except StoreError as error:
            outcomes.append(error)

    for round_ in range(20):
        store, ready = DirectoryStore(store_place / f"store {round_}"), threading.Barrier(8)
        threads = [
            threading.Thread(target=work, args=(store, ready, f"deep/er/folder/{number}")) for number in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert outcomes == [True] * 160


def test_facts_say_whether_the_directory_is_there_and_how_objects_get_their_names(
    store: DirectoryStore, path: Path, links: bool
) -> None:
    before = store.facts()
    assert (before.exists, before.hard_links) == (False, None)
    assert before.free_bytes is not None
    assert not path.exists()
    store.create("a/object", io.BytesIO(b"content"))
    after = store.facts()
    assert (after.exists, after.hard_links) == (True, links)


def test_facts_of_a_store_whose_parent_is_missing_are_an_error(store_place: Path) -> None:
    with pytest.raises(StoreError, match="is the volume mounted"):
        DirectoryStore(store_place / "missing" / "store").facts()


def test_links_and_files_are_no_folders(store: DirectoryStore, planted: Path, store_place: Path) -> None:
    (planted / "folder").mkdir()
    (planted / "link").symlink_to(store_place)
    (planted / "a name with blanks").mkdir()
    assert store.folders("a") == ["a/folder"]
