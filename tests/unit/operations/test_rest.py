"""A load returns before it restores the units that earlier warm starts did not use."""

from __future__ import annotations

import json
import logging
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from b10_transfer import LoadReport, OperationStatus, cache_report, load, save
from b10_transfer.config import Config
from b10_transfer.environment import detect
from b10_transfer.local.staging import StagedTree
from b10_transfer.operations import starts
from b10_transfer.operations.rest import wait_for_rest
from b10_transfer.operations.session import session
from b10_transfer.repository.use import today
from b10_transfer.stores.directory import DirectoryStore
from tests.command import Publisher, command
from tests.conftest import IsolatedEnv

pytestmark = pytest.mark.timeout(600)

PATIENCE_S = 240
"""The rest has a low priority: on a busy machine it may take a minute to begin. No test that passes waits so long."""
UNITS = 12
USED = ("K0", "K1")


def kernels(root: Path, content: bytes = b"code") -> dict[str, bytes]:
    """The files of twelve kernels in a cache at ``root``."""
    files = {}
    for number in range(UNITS):
        folder = f"K{number}"
        files[f"{folder}/k.cubin"] = content + b" %d" % number * 100
        files[f"{folder}/__grp__k.json"] = json.dumps({"child_paths": {"k.cubin": f"{root}/{folder}/k.cubin"}}).encode()
    return files


class Pod:
    """A pod of a fleet, with empty caches at first."""

    def __init__(self, env: IsolatedEnv) -> None:
        self.env = env
        self.triton = env.triton
        self.kernels = kernels(env.triton)

    def empty(self) -> None:
        wait_for_rest()
        shutil.rmtree(self.triton)
        session.last_load = None

    def start(self, used: tuple[str, ...] = USED) -> LoadReport:
        """Load, and use some units if they are there, else compile them."""
        report = load(merge=True)
        for key in used:
            if (self.triton / key).exists():
                (self.triton / key / "k.cubin").read_bytes()
            else:
                self.compile(key)
        return report

    def compile(self, key: str) -> None:
        mine = kernels(self.triton, b"mine")
        self.env.fill(self.triton, {name: mine[name] for name in mine if name.startswith(f"{key}/")})

    def units(self) -> set[str]:
        return {path.name for path in self.triton.iterdir() if not path.name.startswith(".")}

    def content(self) -> dict[str, bytes]:
        return {name: (self.triton / name).read_bytes() for name in self.kernels if (self.triton / name).exists()}

    def records(self) -> list[str]:
        folder = Publisher(self.env.store, detect()).folder
        return sorted(path.name for path in folder.glob("used/*.starts.*"))

    def packs(self) -> list[str]:
        return sorted(path.name for path in Publisher(self.env.store, detect()).folder.glob("packs/*"))


@pytest.fixture
def pod(isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pod]:
    """A pod whose store has twelve kernels, and a record of a start that used two of them."""
    monkeypatch.setenv("B10_RESTORE_REST", "after")
    starts._recorded.clear()
    isolated_env.fill(isolated_env.triton, kernels(isolated_env.triton))
    assert save().status is OperationStatus.SUCCESS
    pod = Pod(isolated_env)
    pod.empty()
    report = pod.start()
    assert (report.units, report.rest) == (UNITS, ())
    assert save().status is OperationStatus.SKIPPED
    finish_operations()
    assert pod.records() == [f"{today()}.starts.0"]
    pod.empty()
    yield pod
    wait_for_rest()
    session.last_load = None


def finish_operations() -> None:
    for thread in threading.enumerate():
        if thread.name.startswith("b10-transfer-") and thread is not threading.current_thread():
            thread.join(60)


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Holds the rest back until this is set."""
    go_on = threading.Event()
    write = StagedTree.write

    def write_later(tree: StagedTree, parts: list[tuple[object, ...]]) -> None:
        if threading.current_thread().name == "b10-transfer-rest" or not any("K0/" in str(part[0]) for part in parts):
            assert go_on.wait(PATIENCE_S)
        write(tree, parts)  # type: ignore[arg-type]

    monkeypatch.setattr(StagedTree, "write", write_later)
    yield go_on
    go_on.set()
    wait_for_rest()


@pytest.mark.parametrize("locks", ["0", "1"])
def test_load_returns_before_it_restores_what_no_start_used(
    pod: Pod, held: threading.Event, monkeypatch: pytest.MonkeyPatch, locks: str
) -> None:
    monkeypatch.setenv("B10_LOCKS", locks)
    report = load()
    assert (report.status, report.units, len(report.rest)) == (OperationStatus.SUCCESS, 2, UNITS - 2)
    assert report.reason.endswith("; restored first: the 2 of 12 units that earlier starts used; the other 10 follow")
    assert (report.files, report.rest_files) == (4, 2 * (UNITS - 2))
    assert report.partial == ""
    assert pod.units() == set(USED)
    held.set()
    wait_for_rest()
    assert pod.content() == pod.kernels
    assert load(merge=True).status is OperationStatus.SKIPPED


def test_rest_is_never_restored_on_request(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("B10_RESTORE_REST", "never")
    report = pod.start()
    assert report.reason.endswith(
        "; restored first: the 2 of 12 units that earlier starts used; the other 10 stay in the store"
    )
    wait_for_rest()
    assert pod.units() == set(USED)


def test_rest_is_restored_before_by_default_and_in_a_group(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("B10_RESTORE_REST")
    assert pod.start().units == UNITS
    pod.empty()
    monkeypatch.setenv("B10_RESTORE_REST", "after")
    assert load(group="job 1").units == UNITS


def test_wrong_setting_is_an_error(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("B10_RESTORE_REST", "later")
    assert "B10_RESTORE_REST" in load().reason


def test_units_compiled_before_they_were_restored_stay_and_come_first_next_time(
    pod: Pod, held: threading.Event
) -> None:
    report = pod.start((*USED, "K5"))
    assert "triton/K5" in report.rest
    held.set()
    wait_for_rest()
    assert (pod.triton / "K5" / "k.cubin").read_bytes().startswith(b"mine")
    packs = pod.packs()
    assert save().status is OperationStatus.SKIPPED
    finish_operations()
    assert pod.packs() == packs
    assert pod.records()[-1] == f"{today()}.starts.1"
    pod.empty()
    assert set(pod.start().restored) == {f"triton/{key}" for key in (*USED, "K5")}


def test_save_while_the_rest_is_missing_publishes_only_what_is_new(pod: Pod, held: threading.Event) -> None:
    load()
    pod.compile("K3")
    group = json.dumps({"child_paths": {"k.cubin": f"{pod.triton}/NEW/k.cubin"}}).encode()
    pod.env.fill(pod.triton, {"NEW/k.cubin": b"new", "NEW/__grp__k.json": group})
    report = save()
    assert (report.status, report.units) == (OperationStatus.SUCCESS, 1)
    held.set()
    wait_for_rest()
    finish_operations()
    assert save().status is OperationStatus.SKIPPED


def test_report_of_use_counts_late_units_as_restored(pod: Pod) -> None:
    pod.start()
    wait_for_rest()
    [use] = cache_report().caches
    assert (use.restored, use.used, use.compiled) == (UNITS, 2, 0)


def test_ranks_do_not_restore_the_rest_twice(pod: Pod, held: threading.Event, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    load(merge=True)
    program = "from b10_transfer import load; r = load(merge=True); print(r.status.name, r.reason)"
    other = subprocess.run(
        [sys.executable, "-c", program], check=True, timeout=PATIENCE_S, capture_output=True, text=True
    )
    first = "restored first: the 2 of 12 units that earlier starts used; the other 10 follow"
    assert f"SKIPPED all that starts use is in place; {first}" in other.stdout
    held.set()
    wait_for_rest()
    assert pod.content() == pod.kernels
    assert "restored what starts did not use: 10 units" in caplog.text


def test_damaged_pack_is_reported_by_the_rest(
    pod: Pod, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    opened, is_damaged = DirectoryStore.open, threading.Event()

    def open_later(store: DirectoryStore, name: str) -> object:
        if threading.current_thread().name == "b10-transfer-rest":
            assert is_damaged.wait(PATIENCE_S)
        return opened(store, name)

    monkeypatch.setattr(DirectoryStore, "open", open_later)
    load()
    [pack] = pod.packs()
    path = Publisher(pod.env.store, detect()).folder / "packs" / pack
    path.write_bytes(b"\0" * 64 + path.read_bytes()[64:])
    is_damaged.set()
    wait_for_rest()
    assert pod.units() == set(USED)
    assert pack.partition(".")[0] in caplog.text
    assert list(path.parent.parent.glob("quarantine/*.suspect"))


def test_store_that_fails_during_the_rest_is_a_warning(
    pod: Pod, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    opened = DirectoryStore.open

    def fail(store: DirectoryStore, name: str) -> object:
        if threading.current_thread().name == "b10-transfer-rest" and name.endswith(".zst"):
            raise OSError(5, "Input/output error")
        return opened(store, name)

    monkeypatch.setattr(DirectoryStore, "open", fail)
    report = load()
    assert report.status is OperationStatus.SUCCESS
    wait_for_rest()
    assert pod.units() == set(USED)
    assert "units that starts did not use are not restored" in caplog.text


PROGRAM = """
import os, sys, threading, time
from b10_transfer.local.staging import StagedTree
from b10_transfer import load

write, seen = StagedTree.write, threading.Event()

def slowly(tree, parts):
    write(tree, parts)
    if threading.current_thread().name == "b10-transfer-rest":
        seen.set()
        time.sleep({pause})

StagedTree.write = slowly
report = load()
assert len(report.rest) == {rest}, report
assert seen.wait({patience})
{end}
"""


def program(end: str, pause: float = 0.3) -> subprocess.Popen[str]:
    text = PROGRAM.format(end=end, pause=pause, rest=UNITS - 2, patience=PATIENCE_S)
    return subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, text=True)


def leftovers(pod: Pod) -> list[str]:
    return [path.name for path in pod.triton.parent.rglob("*staging*")]


def whole_units(pod: Pod) -> bool:
    return all(
        pod.content()[name] == pod.kernels[name]
        for key in pod.units()
        for name in pod.kernels
        if name.startswith(key + "/")
    )


def test_exit_during_the_rest_is_prompt_and_leaves_nothing_half(pod: Pod) -> None:
    with program("pass") as process:
        assert process.wait(PATIENCE_S) == 0
    assert set(USED) <= pod.units()
    assert whole_units(pod)
    assert leftovers(pod) == []


def test_exit_does_not_wait_for_a_rest_that_hangs(pod: Pod) -> None:
    with program("pass", pause=2 * PATIENCE_S) as process:
        assert process.wait(PATIENCE_S) == 0


def test_killed_process_leaves_whole_units_and_the_next_load_restores_the_rest(pod: Pod) -> None:
    with program("print(flush=True); time.sleep(3000)", pause=3000) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.kill()
        assert process.wait(PATIENCE_S) == -signal.SIGKILL
    assert whole_units(pod)
    report = load(merge=True)
    assert report.status is OperationStatus.SKIPPED
    wait_for_rest()
    assert pod.content() == pod.kernels
    assert leftovers(pod) == []


def test_forked_child_loads_and_exits_while_the_parent_restores_the_rest(pod: Pod) -> None:
    end = """
child = os.fork()
if child == 0:
    assert load(merge=True).status.name == "SKIPPED"
    sys.exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
from b10_transfer.operations.rest import wait_for_rest
wait_for_rest()
"""
    with program(end) as process:
        assert process.wait(PATIENCE_S) == 0
    assert pod.content() == pod.kernels


def test_command_restores_everything_before_it_ends(pod: Pod) -> None:
    answer = command("load", "--json")
    assert answer.exit_code == 0
    assert pod.content() == pod.kernels


def test_command_ends_at_its_deadline(pod: Pod, held: threading.Event) -> None:
    started = time.monotonic()
    assert command("load", "--deadline", "2").exit_code == 0
    assert time.monotonic() - started < 30
    assert pod.units() == set(USED)


def test_record_at_the_end_of_a_program_leaves_packs_as_they_are(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its last save is still to come, and a pod that ends may have little time."""
    monkeypatch.setattr(starts, "_compact", lambda config: pytest.fail("packs are compacted"))
    pod.start((*USED, "K4"))
    assert session.last_load is not None
    assert starts.record_start(session.last_load(), Config.from_environment(), compacts=False)
    assert len(pod.records()) == 2


def test_read_only_pod_records_nothing(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("B10_READ_ONLY", "1")
    pod.start((*USED, "K7"))
    wait_for_rest()
    save()
    finish_operations()
    assert pod.records() == [f"{today()}.starts.0"]


@pytest.mark.parametrize(
    "content", [b"", b"\xff", b"[" * 100_000, b'{"units": {"triton/../../x": 1}}', b"0" * 2_000_000]
)
def test_hostile_record_changes_no_load(pod: Pod, content: bytes) -> None:
    folder = Publisher(pod.env.store, detect()).folder / "used"
    (folder / f"{today()}.starts.3").write_bytes(content)
    report = load()
    assert (report.status, report.units, report.rest) == (OperationStatus.SUCCESS, UNITS, ())
    assert pod.content() == pod.kernels


def test_record_that_is_no_file_changes_no_load(pod: Pod) -> None:
    folder = Publisher(pod.env.store, detect()).folder / "used"
    (folder / f"{today()}.starts.2").mkdir()
    (folder / f"{today()}.starts.3").symlink_to("/etc/passwd")
    assert load().status is OperationStatus.SUCCESS
    wait_for_rest()
    assert pod.content() == pod.kernels


def test_clear_deletes_the_records(pod: Pod) -> None:
    assert command("clear", "--store", "--yes").exit_code == 0
    assert pod.records() == []


def test_recalled_units_are_not_restored_with_the_rest(pod: Pod) -> None:
    [pack] = pod.packs()
    assert command("recall", pack.partition(".")[0], "--yes").exit_code == 0
    assert load().status is OperationStatus.DOES_NOT_EXIST
    wait_for_rest()
    assert not pod.triton.exists() or pod.units() == set()


def test_explain_tells_the_two_groups_apart(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    found = command("explain", "--json").json
    assert (
        found["verdict"]
        == "a load finds 12 units for this pod: first the 2 that earlier starts used; the other 10 follow"
    )
    assert found["rest"] == UNITS - 2
    monkeypatch.setenv("B10_RESTORE_REST", "never")
    assert command("explain").stdout.startswith(
        "HIT: a load finds 12 units for this pod: first the 2 that earlier starts used; the other 10 stay in the store"
    )
    monkeypatch.setenv("B10_RESTORE_REST", "before")
    assert command("explain", "--json").json["verdict"] == "a load finds 12 units for this pod"


def test_explain_answers_for_a_member_of_a_group(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("B10_GROUP", "job 1")
    assert "group: it has no record" in command("explain").stdout
    assert load().units == UNITS
    pod.env.fill(pod.triton, {"Z/k.cubin": b"z"})
    Publisher(pod.env.store, detect()).publish({"triton/Z/": {"launcher.so": b"z"}})
    answer = command("explain")
    assert answer.stdout.startswith("HIT: a load finds 12 units for this pod\n")
    assert "group: it loads the 1 pack that it recorded" in answer.stdout
    [record] = Publisher(pod.env.store, detect()).folder.glob("groups/*")
    record.with_name(f"{record.name}.cold").write_bytes(b"{}")
    answer = command("explain")
    assert answer.exit_code == 3
    assert answer.stdout.startswith("MISS: the group job 1 starts cold: one of its processes could not load its packs")


def test_explain_survives_a_false_record_of_a_group(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("B10_GROUP", "job 1")
    load()
    [record] = Publisher(pod.env.store, detect()).folder.glob("groups/*")
    record.write_bytes(b'{"packs": [1], "units": "x"}')
    answer = command("explain")
    assert answer.exit_code == 3
    assert "the group job 1 has recorded that there is nothing to load" in answer.stdout
