"""Pods whose surroundings lack what programs take for granted: a status in time, and a message that says what to do.

Each operation runs in a process of its own, which first gets into its surroundings: another user, a mount, a limit.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

# Everything is imported first, with a save and a load elsewhere: another user may not be able to read the interpreter.
_PROGRAM = """
import json, logging, os, resource, sys, tempfile
import b10_transfer
report_to, scratch, surroundings, operation = int(sys.argv[1]), *sys.argv[2:]
logging.disable()
source, target = os.environ["SOURCE"], os.environ["TARGET"]
os.environ["TORCHINDUCTOR_CACHE_DIR"] = source
b10_transfer.save(store=scratch)
os.environ["TORCHINDUCTOR_CACHE_DIR"] = scratch + "-root"
b10_transfer.load(store=scratch)
os.environ["TORCHINDUCTOR_CACHE_DIR"] = source if operation == "save" else target
logging.disable(logging.NOTSET)
exec(surroundings)
tempfile.tempdir = None  # as in a program that begins here
report = getattr(b10_transfer, operation)(deadline_s=30)
os.write(report_to, json.dumps([report.status.name, report.reason, report.seconds]).encode())
"""
ARTIFACT = "fxgraph/ab/fabkey/graph"
CONTENT = b"a graph" * 1000
UID = 54321
"""Nobody's."""
needs_root = pytest.mark.skipif(
    os.geteuid() != 0 and not os.environ.get("B10_TEST_EVERYTHING"), reason="needs root, to become somebody else"
)


def become(uid: int) -> str:
    """Become a user of root's group, as OpenShift's are."""
    return f"os.setgroups([]); os.setgid(0); os.setuid({uid})"


@dataclass(frozen=True)
class Done:
    """What an operation came to."""

    status: str
    reason: str
    seconds: float
    errors: str


@dataclass
class Pod:
    """A pod whose store and caches lie in ``folder``. ``environ`` is what its processes find in their environment."""

    folder: Path
    environ: dict[str, str]

    @property
    def restored(self) -> Path:
        return self.folder / "target" / "inductor" / ARTIFACT

    def run(self, operation: str, surroundings: str = "", shell: str = "", **options: Any) -> Done:
        """An operation in its surroundings: Python code, and shell commands in a mount namespace of its own."""
        reading, writing = os.pipe()
        scratch = tempfile.mkdtemp(dir=self.folder)
        command = [sys.executable, "-c", _PROGRAM, str(writing), scratch, surroundings, operation]
        if shell:
            command = ["unshare", "-m", "sh", "-ec", f'mount --make-rprivate /; {shell}; exec "$@"', "sh", *command]
        with open(reading, "rb") as pipe:
            done = subprocess.run(
                command, env=self.environ, pass_fds=[writing], capture_output=True, text=True, timeout=120, **options
            )
            os.close(writing)
            data = pipe.read()
        assert data, done.stderr
        status, reason, seconds = json.loads(data)
        return Done(status, reason, seconds, done.stderr)


@pytest.fixture
def pod() -> Iterator[Pod]:
    """A pod with an artifact in its cache, in a place that every user can get to."""
    folder = Path(tempfile.mkdtemp(dir="/tmp", prefix="b10-surroundings-")).resolve()
    for name in ("", "home", "tmp", "work", "store", "source", "target"):
        (folder / name).mkdir(exist_ok=True)
        (folder / name).chmod(0o755)
    (folder / "source/inductor" / ARTIFACT).parent.mkdir(parents=True)
    (folder / "source/inductor" / ARTIFACT).write_bytes(CONTENT)
    environ = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        "HOME": str(folder / "home"),
        "TMPDIR": str(folder / "tmp"),
        "B10_STORE": str(folder / "store"),
        "SOURCE": str(folder / "source/inductor"),
        "TARGET": str(folder / "target/inductor"),
    }
    yield Pod(folder, environ)
    shutil.rmtree(folder)


def give_to(uid: int, pod: Pod, *names: str) -> None:
    for name in names:
        for path in [pod.folder / name, *(pod.folder / name).rglob("*")]:
            os.chown(path, uid, 0)


def assert_works(pod: Pod, surroundings: str = "", shell: str = "", **options: Any) -> None:
    """A save and a load both succeed, in silence."""
    for operation in ("save", "load"):
        done = pod.run(operation, surroundings, shell, **options)
        assert (done.status, done.errors) == ("SUCCESS", ""), done
    assert pod.restored.read_bytes() == CONTENT


def assert_refused(done: Done, *advice: str) -> None:
    """It says what is wrong and what to do, in time, and no traceback does."""
    assert done.status == "ERROR", done
    assert done.seconds < 30
    assert "Traceback" not in done.errors
    for words in advice:
        assert words in done.reason


# Users


@needs_root
@pytest.mark.parametrize("home", [None, "/", "/nonexistent"], ids=["no HOME", "HOME=/", "HOME is missing"])
def test_user_without_a_passwd_entry_saves_and_loads(pod: Pod, home: str | None) -> None:
    give_to(UID, pod, "tmp", "store", "source", "target")
    del pod.environ["HOME"]
    change = f"os.environ['HOME'] = {home!r}; " if home else "os.environ.pop('HOME', None); "
    assert_works(pod, change + become(UID))


@needs_root
def test_user_without_a_passwd_entry_has_a_default_cache_directory(pod: Pod) -> None:
    give_to(UID, pod, "tmp", "store", "source", "target")
    done = pod.run("save", become(UID))
    assert done.status == "SUCCESS", done
    forget = "os.environ.pop('HOME', None); del os.environ['TORCHINDUCTOR_CACHE_DIR']; "
    done = pod.run("load", forget + become(UID))
    assert (done.status, done.errors) == ("SUCCESS", ""), done
    assert (pod.folder / f"tmp/torchinductor_uid_{UID}" / ARTIFACT).read_bytes() == CONTENT


@pytest.mark.parametrize("operation", ["save", "load"])
def test_user_without_a_home_needs_none(pod: Pod, operation: str) -> None:
    assert_works(pod, "del os.environ['HOME']")


@needs_root
def test_store_that_a_user_may_not_write_to_is_read_only_for_him(pod: Pod) -> None:
    """The message says what to do if this user must save."""
    assert pod.run("save").status == "SUCCESS"
    give_to(UID, pod, "tmp", "source", "target")
    other = pod.folder / "source/inductor/fxgraph/ot/fother/graph"
    other.parent.mkdir(parents=True)
    other.write_bytes(b"another")
    done = pod.run("save", become(UID))
    assert (done.status, done.errors) == ("SKIPPED", "")
    store = pod.folder / "store"
    assert f"this pod cannot write to {store}" in done.reason
    assert f"Permission denied; {store} belongs to uid 0, gid 0, mode 0755; this process is uid {UID}" in done.reason
    assert f"chmod -R g+rwX {store}" in done.reason
    assert pod.run("load", become(UID)).status == "SUCCESS"


@needs_root
def test_part_of_a_store_that_a_user_may_not_write_to_is_an_error_that_says_so(pod: Pod) -> None:
    """A folder that was closed by hand is a fault. A store as a whole may be read-only on purpose."""
    (pod.folder / "store").chmod(0o777)
    assert pod.run("save").status == "SUCCESS"
    give_to(UID, pod, "tmp", "source", "target")
    other = pod.folder / "source/inductor/fxgraph/ot/fother/graph"
    other.parent.mkdir(parents=True)
    other.write_bytes(b"another")
    for folder in (pod.folder / "store").rglob("packs"):
        folder.chmod(0o755)
    assert_refused(pod.run("save", become(UID)), f"could not write {pod.folder / 'store'}", "Permission denied")


@needs_root
def test_cache_that_a_user_may_not_write_to_is_an_error_that_says_so(pod: Pod) -> None:
    assert pod.run("save").status == "SUCCESS"
    assert_refused(pod.run("load", become(UID)), str(pod.folder / "target"), "Permission denied")


def test_umask_decides_who_may_read_a_store_that_the_pod_makes(pod: Pod) -> None:
    """Its folders and files are as readable as any that the pod makes."""
    for umask, file_mode, folder_mode in ((0o077, 0o600, 0o700), (0o027, 0o640, 0o750), (0o002, 0o664, 0o775)):
        shutil.rmtree(pod.folder / "store")
        assert pod.run("save", f"os.umask({umask})").status == "SUCCESS"
        paths = list((pod.folder / "store").rglob("*"))
        assert {stat.S_IMODE(path.stat().st_mode) for path in paths if path.is_file()} == {file_mode}
        assert {stat.S_IMODE(path.stat().st_mode) for path in paths if path.is_dir()} == {folder_mode}


@pytest.mark.parametrize(
    "user", ["", pytest.param(become(UID), marks=needs_root)], ids=["this user", "a user who is not root"]
)
@pytest.mark.parametrize("missing", [(), ("store",), ("store", "work")], ids=["", "no store", "no work directory"])
@pytest.mark.parametrize("node_cache", [False, True], ids=["", "node cache"])
def test_umask_that_takes_rights_from_their_owner_takes_none_from_a_store(
    pod: Pod, user: str, missing: tuple[str, ...], node_cache: bool
) -> None:
    """Such a umask would make folders that the pod itself cannot use."""
    if user:
        give_to(UID, pod, "tmp", "store", "source", "target")
        os.chown(pod.folder, UID, 0)
    if "store" in missing:
        (pod.folder / "store").rmdir()
    if "work" in missing:
        pod.environ["LOCAL_WORK_DIR"] = str(pod.folder / "tmp" / "new" / "work")
    if node_cache:
        pod.environ["B10_NODE_CACHE"] = str(pod.folder / "tmp" / "node")
    assert_works(pod, f"{user}; os.umask(0o777)".lstrip("; "))


@needs_root
@pytest.mark.parametrize("umask", [0o002, 0o022, 0o077])
def test_pod_of_the_same_group_adds_to_what_another_user_has_saved(pod: Pod, umask: int) -> None:
    """The mode of the store's top folder says that the group may."""
    give_to(UID, pod, "tmp", "store", "source", "target")
    (pod.folder / "store").chmod(0o775)
    assert pod.run("save", f"os.umask({umask}); {become(UID)}").status == "SUCCESS"
    other = pod.folder / "source/inductor/fxgraph/ot/fother/graph"
    other.parent.mkdir(parents=True)
    other.write_bytes(b"another")
    give_to(UID + 1, pod, "tmp", "source", "target")
    for operation in ("save", "load"):
        done = pod.run(operation, f"os.umask({umask}); {become(UID + 1)}")
        assert (done.status, done.errors) == ("SUCCESS", ""), done
    assert pod.restored.read_bytes() == CONTENT


@pytest.mark.parametrize("umask", [0o077, 0o777])
def test_umask_changes_no_restored_mode(pod: Pod, umask: int) -> None:
    (pod.folder / "source/inductor" / ARTIFACT).chmod(0o644)
    assert pod.run("save").status == "SUCCESS"
    assert pod.run("load", f"os.umask({umask})").status == "SUCCESS"
    assert stat.S_IMODE(pod.restored.stat().st_mode) == 0o644


# File systems


@needs_root
def test_load_needs_no_file_system_that_can_be_written_but_the_caches(pod: Pod) -> None:
    """``readOnlyRootFilesystem: true``, with a volume for the caches and none for /tmp."""
    assert pod.run("save").status == "SUCCESS"
    done = pod.run("load", read_only(pod.folder / "target"))
    assert (done.status, done.errors) == ("SUCCESS", ""), done


@needs_root
def test_save_without_a_place_to_build_a_pack_in_says_which_variable_to_set(pod: Pod) -> None:
    done = pod.run("save", read_only(pod.folder / "store"))
    assert_refused(done, "LOCAL_WORK_DIR", "Read-only file system")


@needs_root
def test_read_only_root_is_no_trouble_with_a_place_to_build_a_pack_in(pod: Pod) -> None:
    pod.environ["LOCAL_WORK_DIR"] = str(pod.folder / "work")
    done = pod.run("save", read_only(pod.folder / "store", pod.folder / "work"))
    assert (done.status, done.errors) == ("SUCCESS", ""), done


def read_only(*but: Path) -> str:
    """Makes everything read-only but some folders, in a mount namespace of the process's own."""
    run = "subprocess.run(['mount', *{}.split()], check=True)"
    commands = ["--make-rprivate /", *(f"--bind {path} {path}" for path in but), "-o remount,ro,bind /"]
    steps = "; ".join(run.format(repr(command)) for command in commands)
    return f"import ctypes, subprocess; assert ctypes.CDLL(None).unshare(0x20000) == 0; {steps}"


def full(path: Path) -> str:
    """Mounts a file system without room at a folder, likewise."""
    return (
        "import ctypes, subprocess; assert ctypes.CDLL(None).unshare(0x20000) == 0; "
        "subprocess.run(['mount', '--make-rprivate', '/'], check=True); "
        f"subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=16k', 'none', {str(path)!r}], check=True)\n"
        f"try: open({str(path / 'filling')!r}, 'wb', 0).write(bytes(1 << 20))\n"
        "except OSError: pass\n"
    )


@needs_root
def test_load_needs_no_room_in_the_temporary_directory(pod: Pod) -> None:
    assert pod.run("save").status == "SUCCESS"
    done = pod.run("load", full(pod.folder / "tmp"))
    assert (done.status, done.errors) == ("SUCCESS", ""), done


@needs_root
def test_save_with_a_full_temporary_directory_says_which_variable_to_set(pod: Pod) -> None:
    pod.environ["LOCAL_WORK_DIR"] = str(pod.folder / "tmp")
    (pod.folder / "source/inductor" / ARTIFACT).write_bytes(os.urandom(1 << 20))
    assert_refused(pod.run("save", full(pod.folder / "tmp")), "LOCAL_WORK_DIR", "No space left on device")


@needs_root
@pytest.mark.parametrize("gone", ["/dev/shm", "/proc"])
def test_pod_without_a_system_directory_saves_and_loads(pod: Pod, gone: str) -> None:
    assert_works(pod, shell=f"mount -t tmpfs -o size=4k,ro none {gone}")


# The process


def test_closed_standard_streams_are_no_trouble(pod: Pod) -> None:
    assert_works(pod, "[os.close(number) for number in (0, 1, 2)]")


def test_working_directory_that_is_gone_is_no_trouble(pod: Pod) -> None:
    assert_works(pod, "os.mkdir('gone'); os.chdir('gone'); os.rmdir('../gone')", cwd=pod.folder)


@pytest.mark.parametrize("variable", ["B10_STORE", "TORCHINDUCTOR_CACHE_DIR"])
def test_relative_path_without_a_working_directory_says_which_variable_to_set(pod: Pod, variable: str) -> None:
    gone = f"os.environ[{variable!r}] = 'relative'; os.mkdir('gone'); os.chdir('gone'); os.rmdir('../gone')"
    assert_refused(pod.run("save", gone, cwd=pod.folder), variable, "absolute path")


FAR = {
    "direct": "",
    "worker": "from b10_transfer.stores.worker import client; vars(client)['is_local'] = lambda _path: False; ",
}
LIMITED = "resource.setrlimit(resource.RLIMIT_{}, ({}, {}))"


@pytest.mark.parametrize("distance", ["direct", "worker"])
def test_few_open_files_are_enough(pod: Pod, distance: str) -> None:
    """Whatever the number of folders in a cache."""
    for number in range(100):
        path = pod.folder / f"source/inductor/fxgraph/{number:02}/fkey{number}/graph"
        path.parent.mkdir(parents=True)
        path.write_bytes(b"graph")
    assert_works(pod, FAR[distance] + LIMITED.format("NOFILE", 40, 40))


def test_too_few_open_files_are_an_error_that_says_so(pod: Pod) -> None:
    assert pod.run("save").status == "SUCCESS"
    assert_refused(pod.run("load", LIMITED.format("NOFILE", 7, 7)), "Too many open files", "ulimit -n")


@needs_root
@pytest.mark.parametrize("operation", ["save", "load"])
def test_no_more_threads_are_an_error_that_says_so(pod: Pod, operation: str) -> None:
    """However far it gets: each further thread that it is given takes it to the next that it cannot have."""
    assert pod.run("save").status == "SUCCESS"
    late = pod.folder / "source/inductor/fxgraph/la/flate"
    late.parent.mkdir()
    (pod.folder / "source/inductor" / ARTIFACT).parent.rename(late)
    give_to(UID, pod, "tmp", "store", "source", "target")
    outcomes = []
    for threads in range(1, 10):
        done = pod.run(operation, f"{become(UID)}; {LIMITED.format('NPROC', threads, threads)}")
        outcomes.append(done.status)
        if done.status == "SUCCESS":
            break
        assert_refused(done, "could be started", "ulimit -u")
    assert outcomes[0] == "ERROR"  # how many more it needs depends on which of them have ended
    assert outcomes[-1] == "SUCCESS"
