"""A compiler writes to the cache while a load or a save is going on: nobody ever sees half a unit."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from b10_transfer import OperationStatus, load, save

from .pods import kernel, packs

if TYPE_CHECKING:
    from ..conftest import IsolatedEnv, ReadTree

# Writes unit after unit as compilers do: Triton's folders file by file, each through a temporary folder, the group
# file last; C++ by compiling to the final name in small steps, in a build folder, while the stem's lock is held.
_COMPILER = """
import fcntl, json, os, sys
root, first, last = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])

def put(path, data):
    temporary = os.path.join(os.path.dirname(path), "tmp.pid_%d_x" % os.getpid())
    os.makedirs(temporary, exist_ok=True)
    staged = os.path.join(temporary, os.path.basename(path))
    with open(staged, "w") as file:
        file.write(data)
    os.replace(staged, path)
    os.rmdir(temporary)

print("ready", flush=True)
number = first
while number < last:
    folder = os.path.join(root, "triton", "0", "KERNEL%d" % number)
    paths = {name: os.path.join(folder, name) for name in ("k.ttir", "k.ptx", "k.cubin", "k.json")}
    for name, path in paths.items():
        if not os.path.exists(path):
            put(path, "compiler %d %s " % (number, name) * 40)
    group = os.path.join(folder, "__grp__k.json")
    if not os.path.exists(group):
        put(group, json.dumps({"child_paths": paths}))

    key = "c%dkey" % number
    os.makedirs(os.path.join(root, "locks"), exist_ok=True)
    os.makedirs(os.path.join(root, "ke"), exist_ok=True)
    with open(os.path.join(root, "locks", key + ".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        library = os.path.join(root, "ke", key + ".so")
        if not os.path.exists(library):
            with open(os.path.join(root, "ke", key + ".cpp"), "w") as file:
                file.write("source %d" % number)
            building = os.path.join(root, "ke", key + "_CxxBuild")
            os.makedirs(building, exist_ok=True)
            with open(library, "w") as file:
                for part in range(20):
                    file.write("part %d of %d " % (part, number))
                    file.flush()
            os.rmdir(building)
    number += 1
"""


@contextmanager
def compiler(root: Path, first: int, last: int) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", _COMPILER, str(root), str(first), str(last)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.readline()
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def library(number: int) -> bytes:
    return "".join(f"part {part} of {number} " for part in range(20)).encode()


def assert_units_are_whole(tree: dict[str, bytes]) -> int:
    """Check what the compiler writes, by what it means it to be; how many units there are."""
    kernels = {path.split("/")[2] for path in tree if path.startswith("triton/")}
    for name in kernels:
        number = name.removeprefix("KERNEL")
        for part in ("k.ttir", "k.ptx", "k.cubin", "k.json"):
            assert tree[f"triton/0/{name}/{part}"] == f"compiler {number} {part} ".encode() * 40
        assert f"triton/0/{name}/__grp__k.json" in tree
    keys = {path.split("/")[1].split(".")[0] for path in tree if path.startswith("ke/")}
    for key in keys:
        number = key.removeprefix("c").removesuffix("key")
        assert tree[f"ke/{key}.cpp"] == f"source {number}".encode()
        assert tree[f"ke/{key}.so"] == library(int(number))
    return len(kernels) + len(keys)


@pytest.mark.parametrize("locks", ["1", "0"])
def test_save_never_publishes_half_of_what_a_compiler_is_writing(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, read_tree: ReadTree, locks: str
) -> None:
    monkeypatch.setenv("B10_LOCKS", locks)
    with compiler(isolated_env.inductor, 0, 100_000) as process:
        published = 0
        while len(packs(isolated_env.store)) < 8 or published <= 20:
            saved = save()
            assert saved.status in (OperationStatus.SUCCESS, OperationStatus.SKIPPED)
            published += saved.units
            assert process.poll() is None
    # Killed at work, the compiler has left half a unit; the last save publishes the others.
    save()
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(isolated_env.home / ".cache" / "other"))
    assert load().status is OperationStatus.SUCCESS
    assert assert_units_are_whole(read_tree(isolated_env.home / ".cache" / "other")) > 20


@pytest.mark.parametrize("locks", ["1", "0"])
def test_load_into_a_cache_that_a_compiler_fills_mixes_no_unit(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, read_tree: ReadTree, locks: str
) -> None:
    monkeypatch.setenv("B10_LOCKS", locks)
    for number in range(200):
        isolated_env.fill(isolated_env.inductor, kernel(f"KERNEL{number}", content="restored"))
    assert save().status is OperationStatus.SUCCESS
    for round_ in range(4):
        root = isolated_env.home / ".cache" / f"busy{round_}"
        monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(root))
        with compiler(root, 0, 200) as process:
            loaded = load(merge=True)
            process.wait(timeout=60)
        assert loaded.status in (OperationStatus.SUCCESS, OperationStatus.SKIPPED)
        tree = read_tree(root)
        for number in range(200):
            restored = kernel(f"KERNEL{number}", content="restored")
            found = {path: data for path, data in tree.items() if path.startswith(f"triton/0/KERNEL{number}/")}
            # The restored unit whole (to which a compiler that did not look may add), or none of it.
            present = [path for path in restored if path in found]
            assert present in ([], list(restored)), f"half of KERNEL{number} was restored"
            assert all(found[path] == restored[path] for path in present)
