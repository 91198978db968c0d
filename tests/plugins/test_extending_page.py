"""The example package of docs/extending.md is installed, passes its own tests, and serves a save and a load."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from b10_transfer import OperationStatus, load
from tests.conftest import IsolatedEnv, read_tree_of

from .conftest import Installed

ROUND_TRIP = """
import json, logging, shutil, sys
from b10_transfer import load, save
logging.basicConfig(level=logging.WARNING)
saved = save()
for root in sys.argv[1:]:
    shutil.rmtree(root, ignore_errors=True)
loaded = load()
print(json.dumps([saved.status.name, saved.reason, loaded.status.name, loaded.reason, sorted(loaded.restored)]))
"""


def fill_triton(pod: IsolatedEnv) -> dict[str, bytes]:
    """Have Triton's cache hold a kernel of several MB."""
    group = json.dumps({"child_paths": {"add.cubin": str(pod.triton / "KERNEL" / "add.cubin")}})
    pod.fill(pod.triton, {"KERNEL/add.cubin": os.urandom(9_000_000), "KERNEL/__grp__add.json": group.encode()})
    return read_tree_of(pod.triton)


def test_store_of_the_example_passes_the_contract(example: Installed) -> None:
    done = example.run(
        "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(example.project), str(example.project)
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


def test_save_and_load_through_a_store_of_another_package(
    example: Installed, isolated_env: IsolatedEnv, tmp_path: Path
) -> None:
    before = fill_triton(isolated_env)
    store = f"sqlite://{tmp_path}/store.db"
    saved, why, loaded, reason, restored = example.program(
        ROUND_TRIP.replace("sys.argv[1:]", repr([str(isolated_env.triton)])), B10_STORE=store
    )
    assert (saved, loaded, restored) == ("SUCCESS", "SUCCESS", ["triton/KERNEL"]), why + reason
    assert read_tree_of(isolated_env.triton) == before
    assert (tmp_path / "store.db").exists()


def test_store_of_another_package_behind_a_cache_of_the_node(
    example: Installed, isolated_env: IsolatedEnv, tmp_path: Path
) -> None:
    fill_triton(isolated_env)
    found = example.program(
        ROUND_TRIP.replace("sys.argv[1:]", repr([str(isolated_env.triton)])),
        B10_STORE=f"sqlite://{tmp_path}/store.db",
        B10_NODE_CACHE=str(tmp_path / "node"),
    )
    assert found[::2] == ["SUCCESS", "SUCCESS", ["triton/KERNEL"]]


def test_store_without_the_package_is_refused_with_advice(isolated_env: IsolatedEnv, tmp_path: Path) -> None:
    report = load(store=f"sqlite://{tmp_path}/store.db")
    assert report.status is OperationStatus.ERROR
    assert "install the package that adds sqlite:// stores" in report.reason


ACME = {"0123456789abcdef/kernel.bin": b"code", "0123456789abcdef/done": b""}
LEFT_ALONE = {"0123456789abcdee/kernel.bin": b"half", "locks/0123456789abcdef": b"", "notes.txt": b"mine"}


def test_save_and_load_of_a_cache_of_another_package(example: Installed, isolated_env: IsolatedEnv) -> None:
    acme = isolated_env.home / ".cache" / "acme"
    isolated_env.fill(acme, ACME | LEFT_ALONE)
    fill_triton(isolated_env)
    roots = [str(acme), str(isolated_env.triton)]
    saved, _, loaded, _, restored = example.program(ROUND_TRIP.replace("sys.argv[1:]", repr(roots)))
    assert (saved, loaded, restored) == ("SUCCESS", "SUCCESS", ["acme_v1_0/0123456789abcdef", "triton/KERNEL"])
    assert read_tree_of(acme) == ACME


def test_pod_without_the_package_loads_the_other_caches_of_a_pack(
    example: Installed, isolated_env: IsolatedEnv
) -> None:
    isolated_env.fill(isolated_env.home / ".cache" / "acme", ACME)
    before = fill_triton(isolated_env)
    assert example.program(ROUND_TRIP.replace("sys.argv[1:]", "[]"))[0] == "SUCCESS"
    shutil.rmtree(isolated_env.triton)
    report = load()
    assert (report.status, report.restored) == (OperationStatus.SUCCESS, ("triton/KERNEL",))
    assert read_tree_of(isolated_env.triton) == before


def test_info_lists_what_the_example_adds(example: Installed, isolated_env: IsolatedEnv) -> None:
    source = "import sys; sys.argv = ['x', 'info', '--json']; from b10_transfer.__main__ import main; main()"
    found = json.loads(example.run("-c", source).stdout)
    assert [(one["kind"], one["name"], one["package"], one["problem"]) for one in found["additions"]] == [
        ("cache", "acme", "acme_b10 1.0", ""),
        ("store", "sqlite", "acme_b10 1.0", ""),
    ]
    assert [cache["path"] for cache in found["caches"] if cache["name"] == "acme_v1_0"] == [
        str(isolated_env.home / ".cache" / "acme")
    ]
