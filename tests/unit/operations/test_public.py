"""The public calls, as a program makes them: what they return, what they log, what they leave behind."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from b10_transfer import OperationStatus, load, load_compile_cache, save, save_compile_cache
from b10_transfer.errors import StoreError
from b10_transfer.repository.use import today
from b10_transfer.stores.directory import DirectoryStore
from tests.conftest import IsolatedEnv, ReadTree

DEAD, GROWING = f"{0:032x}.tmp", f"{1:032x}.tmp"
"""Names in the store's ``.staging``."""

ARTIFACTS = {
    "fxgraph/ab/fabkey/graph": b"a graph" * 100,
    "aotautograd/akey/entry": b"an entry" * 100,
    "cd/ccdkey.main.cpp": b"source",
    "cd/ccdkey.main.so": bytes(range(256)) * 40,
    "triton/0/HELPER/launcher.so": b"machine code",
}
Pod = Callable[[str], Path]


@pytest.fixture(autouse=True, params=["local", "at arm's length"])
def distance(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Everything holds whether this process does the store's I/O itself or has a worker do it."""
    monkeypatch.setattr("b10_transfer.stores.worker.client.is_local", lambda _path: request.param == "local")
    return str(request.param)


@pytest.fixture
def pod(isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch) -> Pod:
    """``pod(name)`` makes this process a new pod, with an empty cache directory, which is returned."""

    def start(name: str) -> Path:
        root = isolated_env.home / ".cache" / name
        monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(root))
        return root

    return start


@pytest.fixture
def saved(isolated_env: IsolatedEnv, pod: Pod) -> IsolatedEnv:
    """A store that holds the artifacts."""
    isolated_env.fill(pod("first"), ARTIFACTS)
    assert save_compile_cache() is OperationStatus.SUCCESS
    return isolated_env


def packs(env: IsolatedEnv) -> list[Path]:
    return sorted(env.store.glob("v1/*/*/packs/*"))


def test_saved_artifacts_are_in_place_after_a_load(saved: IsolatedEnv, pod: Pod, read_tree: ReadTree) -> None:
    root = pod("second")
    report = load()
    assert report.status is OperationStatus.SUCCESS
    assert read_tree(root) == ARTIFACTS
    assert (report.units, report.files, report.bytes) == (4, 5, sum(map(len, ARTIFACTS.values())))
    assert report.packs == (packs(saved)[0].name.removesuffix(".tar.zst"),)
    assert (report.namespace, report.store) == ("default", str(saved.store))
    assert report.environment_id == packs(saved)[0].parts[-3]


def test_modes_and_times_survive_to_the_nanosecond(isolated_env: IsolatedEnv, pod: Pod) -> None:
    first = pod("first")
    isolated_env.fill(first, ARTIFACTS)
    os.chmod(first / "cd/ccdkey.main.so", 0o751)
    os.utime(first / "cd/ccdkey.main.so", ns=(1, 1_600_000_000_987_654_321))
    save()
    second = pod("second")
    load()
    status = (second / "cd/ccdkey.main.so").stat()
    assert (status.st_mode & 0o7777, status.st_mtime_ns) == (0o751, 1_600_000_000_987_654_321)


def test_empty_store_has_nothing_to_load(isolated_env: IsolatedEnv) -> None:
    assert load_compile_cache() is OperationStatus.DOES_NOT_EXIST
    assert not isolated_env.inductor.exists()
    assert not isolated_env.store.exists()


@pytest.mark.parametrize("artifact", ["fxgraph/th/other/graph", "th/other.py"])
def test_pod_with_artifacts_skips_a_load(saved: IsolatedEnv, pod: Pod, read_tree: ReadTree, artifact: str) -> None:
    root = pod("second")
    saved.fill(root, {artifact: b"local"})
    assert load_compile_cache() is OperationStatus.SKIPPED
    assert read_tree(root) == {artifact: b"local"}


@pytest.mark.parametrize(
    "junk", ["locks/key.lock", "cd/.12.34.tmp", "triton/0/KEY/tmp.pid_1_x/k.ptx", "fxgraph/.b10-staging-x/file"]
)
def test_what_is_no_artifact_keeps_no_pod_from_loading(saved: IsolatedEnv, pod: Pod, junk: str) -> None:
    root = pod("second")
    saved.fill(root, {junk: b""})
    (root / "aotautograd" / "empty").mkdir(parents=True)
    assert load_compile_cache() is OperationStatus.SUCCESS
    assert (root / "cd/ccdkey.main.so").read_bytes() == ARTIFACTS["cd/ccdkey.main.so"]


def test_merge_adds_what_is_missing_and_replaces_nothing(saved: IsolatedEnv, pod: Pod, read_tree: ReadTree) -> None:
    root = pod("second")
    local = {"cd/ccdkey.py": b"local", "fxgraph/ab/fabkey/entry": b"local"}
    saved.fill(root, local)
    report = load(merge=True)
    assert (report.status, report.units, report.already_present) == (OperationStatus.SUCCESS, 2, 2)
    expected = {path: data for path, data in ARTIFACTS.items() if path.startswith(("aot", "triton"))}
    assert read_tree(root) == local | expected
    assert load(merge=True).status is OperationStatus.SKIPPED


def test_artifacts_in_one_root_keep_no_other_root_cold(saved: IsolatedEnv, pod: Pod) -> None:
    root = pod("second")
    saved.fill(saved.triton, {"OWN/helper.so": b"a kernel of the program's own"})
    assert load_compile_cache() is OperationStatus.SUCCESS
    assert (root / "cd/ccdkey.main.so").exists()


def test_second_save_publishes_only_what_is_new(saved: IsolatedEnv, pod: Pod, read_tree: ReadTree) -> None:
    assert save().status is OperationStatus.SKIPPED
    assert len(packs(saved)) == 1
    root = pod("first")
    saved.fill(root, {"fxgraph/at/late/graph": b"late"})
    report = save()
    assert (report.status, report.units, report.files, report.bytes) == (OperationStatus.SUCCESS, 1, 1, 4)
    second = pod("second")
    assert len(load().packs) == 2
    assert read_tree(second) == read_tree(root)


def test_nothing_compiled_is_nothing_to_save(isolated_env: IsolatedEnv) -> None:
    assert save_compile_cache() is OperationStatus.SKIPPED
    assert not isolated_env.store.exists()


def test_namespaces_do_not_see_each_other(saved: IsolatedEnv, pod: Pod) -> None:
    root = pod("second")
    assert load(namespace="another").status is OperationStatus.DOES_NOT_EXIST
    assert not root.exists()


def test_save_over_the_limit_says_its_size_and_the_variable_and_leaves_nothing(
    isolated_env: IsolatedEnv, pod: Pod, monkeypatch: pytest.MonkeyPatch
) -> None:
    isolated_env.fill(pod("first"), {"ar/large.so": os.urandom(3 << 20)})
    monkeypatch.setenv("MAX_CACHE_SIZE_MB", "1")
    report = save()
    assert report.status is OperationStatus.ERROR
    assert "MAX_CACHE_SIZE_MB" in report.reason
    assert "1.0 MiB" in report.reason
    assert [path for path in isolated_env.store.rglob("*") if path.is_file()] == []
    assert list(isolated_env.work.iterdir()) == []


@pytest.mark.parametrize(
    ("variable", "value"),
    [("MAX_CACHE_SIZE_MB", "-1"), ("TORCHINDUCTOR_CACHE_DIR", "/etc/cache"), ("B10_DEADLINE_SECONDS", "soon")],
)
def test_unusable_setting_is_an_error_that_names_it_and_touches_nothing(
    saved: IsolatedEnv, pod: Pod, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    root = pod("second")
    before = sorted(saved.store.rglob("*"))
    monkeypatch.setenv(variable, value)
    for report in (load(), save()):
        assert report.status is OperationStatus.ERROR
        assert variable in report.reason
        assert value in report.reason
    assert not root.exists()
    assert sorted(saved.store.rglob("*")) == before


def test_store_that_is_not_mounted_is_an_error(saved: IsolatedEnv, pod: Pod) -> None:
    pod("second")
    for report in (load(store="/nonexistent/volume/store"), load(store=Path(__file__))):
        assert report.status is OperationStatus.ERROR
    assert "is the volume mounted?" in load(store="/nonexistent/volume/store").reason


def test_full_file_system_is_an_error_before_anything_is_written(
    saved: IsolatedEnv, pod: Pod, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = pod("second")
    real = os.statvfs(saved.home)
    full = os.statvfs_result((*real[:4], 0, *real[5:]))
    monkeypatch.setattr(os, "statvfs", lambda _path: full)
    report = load()
    assert report.status is OperationStatus.ERROR
    assert "free" in report.reason
    assert not root.exists()
    assert "staging" not in str(list(root.parent.iterdir()))


# Damage

DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "flipped at the start": lambda data: bytes([data[0] ^ 1]) + data[1:],
    "flipped in the middle": lambda data: (
        data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :]
    ),
    "flipped at the end": lambda data: data[:-1] + bytes([data[-1] ^ 1]),
    "truncated": lambda data: data[: len(data) // 3],
    "emptied": lambda data: b"",
    "replaced": lambda data: b"something else entirely",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_pack_counts_as_absent_loudly_and_the_next_save_heals_the_store(
    saved: IsolatedEnv, pod: Pod, read_tree: ReadTree, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    (pack,) = packs(saved)
    pack.write_bytes(DAMAGES[damage](pack.read_bytes()))
    root = pod("second")
    report = load()
    assert report.status is OperationStatus.DOES_NOT_EXIST
    assert len(report.rejected_packs) == 1
    assert [record.levelname for record in caplog.records if pack.name.split(".")[0] in record.message] == ["ERROR"]
    assert read_tree(root) == {}

    saved.fill(root, ARTIFACTS)  # the model compiles
    assert save().quarantined_packs == (pack.name.removesuffix(".tar.zst"),)
    caplog.clear()
    third = pod("third")
    report = load()
    assert (report.status, report.rejected_packs) == (OperationStatus.SUCCESS, ())
    assert read_tree(third) == ARTIFACTS
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []


def test_damage_to_any_other_file_of_the_store_changes_no_load(
    saved: IsolatedEnv, pod: Pod, read_tree: ReadTree
) -> None:
    others = [path for path in saved.store.rglob("*") if path.is_file() and path not in packs(saved)]
    assert {path.name for path in others} == {"environment.json", today()}
    sound = others[0].read_bytes()
    for number, damage in enumerate(DAMAGES.values()):
        others[0].write_bytes(damage(sound))
        root = pod(f"pod {number}")
        assert load().status is OperationStatus.SUCCESS
        assert read_tree(root).items() >= ARTIFACTS.items()
        saved.fill(root, {f"fxgraph/at/late{number}/graph": b"late"})
        assert save().status is OperationStatus.SUCCESS
        assert others[0].read_bytes() == sound
        shutil.rmtree(root)


def test_pack_that_was_moved_to_another_namespace_is_refused(saved: IsolatedEnv, pod: Pod) -> None:
    (pack,) = packs(saved)
    elsewhere = Path(str(pack).replace("/default/", "/stolen/"))
    elsewhere.parent.mkdir(parents=True)
    shutil.copy(pack, elsewhere)
    pod("second")
    report = load(namespace="stolen")
    assert report.status is OperationStatus.DOES_NOT_EXIST
    assert "was published for" in report.rejected_packs[0]


# What a person sees


def test_one_line_says_what_happened_how_much_and_how_fast(
    saved: IsolatedEnv, pod: Pod, caplog: pytest.LogCaptureFixture
) -> None:
    pod("second")
    with caplog.at_level(logging.INFO, "b10_transfer"):
        load_compile_cache()
    (line,) = [record.message for record in caplog.records]
    assert line.startswith("load: SUCCESS in ")
    assert "4 units, 5 files" in line
    assert "MB/s" in line


def test_line_of_a_miss_names_the_command_that_explains_it(
    saved: IsolatedEnv, pod: Pod, caplog: pytest.LogCaptureFixture
) -> None:
    pod("second")
    with caplog.at_level(logging.INFO, "b10_transfer"):
        load_compile_cache(namespace="another")
    (line,) = [record.message for record in caplog.records]
    assert f"{saved.store}, environment " in line
    assert "namespace 'another'; `b10-compile-cache explain` says why" in line


def test_environment_is_explained_beside_its_packs(saved: IsolatedEnv) -> None:
    (path,) = saved.store.glob("v1/*/*/environment.json")
    explained = json.loads(path.read_text())
    assert explained["id"] == path.parent.name
    assert {"torch", "triton", "python", "machine", "cpu features", "accelerator", "device"} <= set(explained["parts"])


def test_abandoned_staging_files_go_when_they_are_old(saved: IsolatedEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    staging = saved.store / ".staging"
    old, young = staging / DEAD, staging / GROWING
    for path in (old, young):
        path.write_bytes(b"half a pack")
    os.utime(old, (time.time() - 1000,) * 2)
    save()
    assert [path.name for path in staging.iterdir()] == [GROWING]


# What reaps a worker then is Python's own Popen, which warns.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_threads_that_only_tidy_up_are_not_needed(
    saved: IsolatedEnv, pod: Pod, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At its limit of threads a process still saves: nobody renews its lease, or reaps its worker before it ends."""
    start = threading.Thread.start
    refused = []

    def refuse(thread: threading.Thread) -> None:
        if thread.name in ("b10-transfer-lease", "b10-transfer-reaper"):
            refused.append(thread.name)
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    saved.fill(pod("second"), {"at/late.py": b"late"})
    assert save().status is OperationStatus.SUCCESS
    assert "b10-transfer-lease" in refused


def test_load_with_nothing_to_do_removes_what_killed_loaders_left(saved: IsolatedEnv, pod: Pod) -> None:
    """One that is killed between placing its units and tidying up has left a copy of the cache beside it."""
    root = pod("second")
    saved.fill(root, {"th/other.py": b"local"})
    saved.fill(root.parent, {f".{root.name}.b10-staging-0123/triton/0/KERNEL/k.cubin": b"left"})
    assert load().status is OperationStatus.SKIPPED
    assert [path.name for path in root.parent.iterdir() if "staging" in path.name] == []


def test_save_that_failed_removes_what_dead_savers_left(
    saved: IsolatedEnv, pod: Pod, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their staging files may be what fills the store: it would stay full for ever."""
    monkeypatch.setattr("b10_transfer.stores.worker.client.is_local", lambda _path: True)
    abandoned = saved.store / ".staging" / DEAD
    abandoned.write_bytes(b"half a pack")
    os.utime(abandoned, (time.time() - 1000,) * 2)

    def refuse(*_: object) -> bool:
        raise StoreError("write", "the pack", "No space left on device")

    monkeypatch.setattr(DirectoryStore, "create", refuse)
    saved.fill(pod("second"), {"at/late.py": b"late"})
    report = save()
    assert (report.status, report.reason) == (
        OperationStatus.ERROR,
        "could not write the pack: No space left on device",
    )
    assert not abandoned.exists()


def test_hang_in_a_store_call_ends_at_the_deadline(
    saved: IsolatedEnv, pod: Pod, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is no worker process, a thread does the I/O, and the deadline holds all the same."""
    pod("second")
    monkeypatch.setattr("b10_transfer.stores.worker.client.is_local", lambda _path: True)
    monkeypatch.setattr(DirectoryStore, "list", lambda *_: time.sleep(5))
    report = load(deadline_s=0.2)
    assert report.status is OperationStatus.ERROR
    assert "deadline of 0.2 s" in report.reason
    assert report.seconds < 4


def test_neither_torch_nor_anything_large_is_imported(saved: IsolatedEnv, pod: Pod) -> None:
    root = pod("second")
    program = (
        "import sys, b10_transfer; print(b10_transfer.load().status.name, b10_transfer.save().status.name); "
        "print([name for name in ('torch', 'triton', 'numpy', 'rich', 'obstore') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == ["SUCCESS SKIPPED", "[]"]
    assert done.stderr == ""
    assert root.exists()


# What a review found; each failed once


@pytest.mark.parametrize("count", [1, 3])
def test_damage_within_a_large_pack_fails_no_operation(
    isolated_env: IsolatedEnv, pod: Pod, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The frame behind the damaged one may be asked for when nobody wants it any more."""
    root = pod("first")
    for number in range(count):
        isolated_env.fill(root, {f"ib/library{number}.so": os.urandom(20 << 20)})
        assert save().status is OperationStatus.SUCCESS
    pack = packs(isolated_env)[0]
    data = bytearray(pack.read_bytes())
    for round_ in range(6):
        damaged = data.copy()
        damaged[(round_ * 3 + 1) << 20] ^= 1
        pack.write_bytes(damaged)
        pod(f"pod {round_}")
        expected = OperationStatus.DOES_NOT_EXIST if count == 1 else OperationStatus.SUCCESS
        assert load().status is expected
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(root))
    report = save()
    assert (report.status, report.units) == (OperationStatus.SUCCESS, 1)
    pod("last")
    assert load().units == count


def test_one_root_that_cannot_be_read_costs_the_others_nothing(
    saved: IsolatedEnv, pod: Pod, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container that runs as another user than its image was made for has a HOME that it may not enter."""
    from b10_transfer.adapters import CacheRoot
    from b10_transfer.errors import LocalCacheError
    from b10_transfer.local import ownership, snapshot
    from b10_transfer.local.ownership import OpenRoot

    open_private = ownership.open_private

    def refuse(root: CacheRoot, *, to_restore: bool = False) -> OpenRoot | None:
        if root.name == "triton":
            raise LocalCacheError("list", str(root.path), "Permission denied")
        return open_private(root, to_restore=to_restore)

    monkeypatch.setattr(snapshot, "open_private", refuse)
    root = pod("second")
    assert load().status is OperationStatus.SUCCESS
    saved.fill(root, {"at/late.py": b"late"})
    assert save().status is OperationStatus.SUCCESS


@pytest.mark.parametrize("locks", ["0", "1"])
def test_file_system_without_locks_is_as_good(
    saved: IsolatedEnv, pod: Pod, monkeypatch: pytest.MonkeyPatch, locks: str
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", refuse)
    monkeypatch.setenv("B10_LOCKS", locks)
    root = pod("second")
    assert load().status is OperationStatus.SUCCESS
    saved.fill(root, {"at/late.py": b"late"})
    assert save().status is OperationStatus.SUCCESS


def test_what_was_published_is_a_success_although_cleaning_up_ran_out_of_time(
    isolated_env: IsolatedEnv, pod: Pod, monkeypatch: pytest.MonkeyPatch
) -> None:
    from b10_transfer.errors import DeadlineExceededError

    def run_out(*_: object) -> int:
        raise DeadlineExceededError("save", 1, "cleaning up")

    monkeypatch.setattr("b10_transfer.stores.worker.client.is_local", lambda _path: True)
    monkeypatch.setattr(DirectoryStore, "remove_abandoned", run_out)
    isolated_env.fill(pod("first"), ARTIFACTS)
    assert save_compile_cache() is OperationStatus.SUCCESS


def test_what_a_killed_compiler_left_half_written_keeps_no_unit_away(
    saved: IsolatedEnv, pod: Pod, read_tree: ReadTree
) -> None:
    root = pod("second")
    leftovers = ["cd/ccdkey.main.so.77.tmp", "fxgraph/ab/fabkey/.1.2.tmp", "triton/0/HELPER/tmp.pid_3_x/launcher.so"]
    saved.fill(root, dict.fromkeys(leftovers, b"half"))
    assert load().units == 4
    assert read_tree(root) == ARTIFACTS | dict.fromkeys(leftovers, b"half")


def test_file_whose_name_merely_begins_alike_is_another_unit(
    isolated_env: IsolatedEnv, pod: Pod, read_tree: ReadTree
) -> None:
    first = pod("first")
    isolated_env.fill(first, {"dynamo/code_state_a.pkl": b"one"})
    save()
    isolated_env.fill(first, {"dynamo/code_state_a.pkl.pkl": b"another"})
    save()
    second = pod("second")
    isolated_env.fill(second, {"locks/key.lock": b""})
    assert load().units == 2
    assert {path: data for path, data in read_tree(second).items() if "lock" not in path} == read_tree(first)


def test_exception_in_a_programs_logging_handler_stays_inside(saved: IsolatedEnv, pod: Pod) -> None:
    class Broken(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            raise ValueError("boom")

    pod("second")
    logger = logging.getLogger("b10_transfer.operations.edge")
    broken = Broken()
    logger.setLevel(logging.INFO)
    logger.addFilter(broken)
    try:
        assert load_compile_cache() is OperationStatus.SUCCESS
    finally:
        logger.removeFilter(broken)
        logger.setLevel(logging.NOTSET)


def test_folder_on_another_file_system_costs_only_its_own_units(
    saved: IsolatedEnv, pod: Pod, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = pod("second")
    saved.fill(root, {"locks/key.lock": b""})
    rename = os.rename

    def refuse(source: str | Path, target: str | Path) -> None:
        if "fxgraph" in str(target):
            raise OSError(18, "Invalid cross-device link")
        rename(source, target)

    monkeypatch.setattr(os, "rename", refuse)
    report = load()
    assert (report.status, report.units) == (OperationStatus.SUCCESS, 3)


def test_store_inside_a_cache_does_not_save_its_own_packs(isolated_env: IsolatedEnv, pod: Pod) -> None:
    root = pod("first")
    isolated_env.fill(root, ARTIFACTS)
    assert save(store=root / "store").status is OperationStatus.SUCCESS
    assert save(store=root / "store").status is OperationStatus.SKIPPED


def test_one_root_that_cannot_be_written_costs_the_others_nothing(
    isolated_env: IsolatedEnv, pod: Pod, monkeypatch: pytest.MonkeyPatch, read_tree: ReadTree
) -> None:
    isolated_env.fill(pod("first"), ARTIFACTS)
    isolated_env.fill(isolated_env.triton, {"OWN/helper.so": b"a helper"})
    assert save_compile_cache() is OperationStatus.SUCCESS
    root = pod("second")
    (isolated_env.home / "a file").write_bytes(b"")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(isolated_env.home / "a file" / "triton"))
    report = load()
    assert (report.status, report.units) == (OperationStatus.SUCCESS, 4), report.reason
    assert read_tree(root) == ARTIFACTS
