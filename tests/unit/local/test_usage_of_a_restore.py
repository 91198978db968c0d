"""What becomes of a restore on a real file system: used, compiled anew, and why not."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest

from b10_transfer import LoadReport, OperationStatus, cache_report, load, save
from b10_transfer.adapters import cache_roots
from b10_transfer.config import Config
from b10_transfer.local import staging
from b10_transfer.local.usage import Usage
from b10_transfer.operations import load as loading
from b10_transfer.operations.session import session

if TYPE_CHECKING:
    from tests.conftest import IsolatedEnv


def compile_kernel(root: Path, key: str) -> None:
    folder = root / key
    folder.mkdir(parents=True)
    (folder / "kernel.cubin").write_bytes(key.encode() * 100)
    group = {"child_paths": {"kernel.cubin": str(folder / "kernel.cubin")}}
    (folder / "__grp__kernel.json").write_text(json.dumps(group))


def compile_graph(root: Path, key: str) -> None:
    entry = root / "fxgraph" / key[1:3] / key / "entry"
    entry.parent.mkdir(parents=True)
    entry.write_text(key)


def use(root: Path, key: str) -> None:
    (root / key / "kernel.cubin").read_bytes()


@pytest.fixture
def restored(isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Triton's cache of a second pod, with two kernels from the first."""
    for key in ("A", "B"):
        compile_kernel(isolated_env.triton, key)
    assert save().status is OperationStatus.SUCCESS
    root = isolated_env.home / "second"
    monkeypatch.setenv("TRITON_CACHE_DIR", str(root))
    monkeypatch.setattr(session, "last_load", None)
    assert load().status is OperationStatus.SUCCESS
    yield root
    session.last_load = None


def counts() -> dict[str, tuple[int, int | None, int]]:
    return {cache.cache: (cache.restored, cache.used, cache.compiled) for cache in cache_report().caches}


def test_units_that_were_read_are_used(restored: Path) -> None:
    assert counts() == {"triton": (2, 0, 0)}
    use(restored, "A")
    assert counts() == {"triton": (2, 1, 0)}
    use(restored, "A")
    use(restored, "B")
    assert counts() == {"triton": (2, 2, 0)}


def test_looking_whether_a_unit_is_there_does_not_use_it(restored: Path) -> None:
    for path in restored.rglob("*"):
        path.stat()
        path.is_dir() and os.listdir(path)
    assert counts() == {"triton": (2, 0, 0)}


def test_looking_whether_a_library_is_whole_does_not_use_it(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"ab/cabkey.cpp": b"source", "ab/cabkey.so": b"library" * 20, "ab/cabother.py": b"code"}
    isolated_env.fill(isolated_env.inductor, files)
    assert save().units == 2
    root = isolated_env.home / ".cache" / "second"
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(root))
    assert load().units == 2
    assert save().status is OperationStatus.SKIPPED
    assert counts() == {"inductor": (2, 0, 0)}
    (root / "ab" / "cabkey.so").read_bytes()
    assert counts() == {"inductor": (2, 1, 0)}


def test_units_that_were_written_since_are_compiled_anew(restored: Path, isolated_env: IsolatedEnv) -> None:
    compile_kernel(restored, "C")
    compile_graph(isolated_env.inductor, "fkey")
    assert counts() == {"inductor": (0, 0, 1), "triton": (2, 0, 1)}


def test_restored_unit_that_was_written_again_is_compiled_anew(restored: Path) -> None:
    time.sleep(0.02)  # beyond a tick of the file system's clock, which would hide it
    (restored / "A" / "kernel.cubin").write_bytes(b"another")
    assert counts()["triton"][2] == 1


def test_units_that_were_there_before_the_load_are_neither(isolated_env: IsolatedEnv, restored: Path) -> None:
    time.sleep(0.02)
    assert load(merge=True).status is OperationStatus.SKIPPED
    assert counts() == {}
    assert re.fullmatch(r"compile cache HIT: 2 units already in place, 0 compiled, load [0-9.]+ s", str(cache_report()))


def test_saving_is_no_use(restored: Path) -> None:
    """Not of restored units, which the store has; nor of others, where a save had to read them."""
    compile_kernel(restored, "C")
    assert save().status is OperationStatus.SUCCESS
    assert save().status is OperationStatus.SKIPPED
    assert counts() == {"triton": (2, 0, 1)}


def test_units_that_another_rank_restored_meanwhile_are_restored(
    restored: Path, isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not compiled: torch hits them. What this process compiles counts as before."""
    root = isolated_env.home / "third"
    monkeypatch.setenv("TRITON_CACHE_DIR", str(root))
    program = [sys.executable, "-c", "import b10_transfer; b10_transfer.load()"]
    real = staging.wait_for_restore

    def wait(root_of_a_cache: Path, *arguments: Any, **options: Any) -> None:
        if root_of_a_cache == root:
            subprocess.run(program, check=True)
        real(root_of_a_cache, *arguments, **options)

    monkeypatch.setattr(loading, "wait_for_restore", wait)
    assert load().status is OperationStatus.SKIPPED
    use(root, "A")
    assert counts() == {"triton": (2, 1, 0)}
    assert cache_report().summary.startswith("compile cache HIT: 1 of 2 units used, 0 compiled, load ")
    compile_kernel(root, "C")
    assert counts() == {"triton": (2, 1, 1)}


def test_extension_that_ninja_built_again_is_reported(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = isolated_env.home / "extensions"
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(root))
    log = b"# ninja log v7\n22760\t23066\t1795449944286738074\tmy.so\tcdcaf21747c84c49\n"
    isolated_env.fill(root, {"my/.ninja_log": log, "my/my.so": b"library", "my/main.o": b"object"})
    time.sleep(0.02)  # beyond a tick of the file system's clock
    restored = LoadReport(OperationStatus.SUCCESS, "restored", restored=("torch_extensions/my",))
    usage = Usage(cache_roots(Config.from_environment()), restored, time.time_ns(), time.time_ns())
    (root / "my" / "my.so").read_bytes()
    assert usage.report().warning == ""
    time.sleep(0.02)
    (root / "my" / "my.so").write_bytes(b"another library")
    assert usage.report().warning.startswith(
        "ninja built 1 unit again after a restore, torch_extensions/my for example"
    )


def test_first_line_says_miss_and_partial(isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "last_load", None)
    assert load().status is OperationStatus.DOES_NOT_EXIST
    compile_kernel(isolated_env.triton, "A")
    assert cache_report().summary.startswith("compile cache MISS: nothing was restored, 1 compiled, load ")
    assert save().status is OperationStatus.SUCCESS
    [pack] = isolated_env.store.rglob("packs/*.tar.zst")
    damaged = pack.with_name(pack.name.replace("01", "00", 1))
    damaged.write_bytes(b"no pack")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(isolated_env.home / "second"))
    assert load().status is OperationStatus.SUCCESS
    summary = cache_report().summary
    assert summary.startswith("compile cache PARTIAL: 0 of 1 unit used, 0 compiled, load ")
    assert summary.endswith(f"; 1 unit; pack {damaged.name.removesuffix('.tar.zst')} is damaged")


def test_another_load_of_the_pod_is_no_use(restored: Path, isolated_env: IsolatedEnv) -> None:
    subprocess.run([sys.executable, "-c", "import b10_transfer; b10_transfer.load(merge=True)"], check=True)
    assert counts() == {"triton": (2, 0, 0)}


def test_restore_that_was_used_is_no_warning(restored: Path, caplog: pytest.LogCaptureFixture) -> None:
    use(restored, "A")
    caplog.set_level(logging.INFO)
    assert cache_report().warning == ""
    summary, cache = [record.getMessage() for record in caplog.records]
    assert re.fullmatch(r"compile cache HIT: 1 of 2 units used, 0 compiled, load [0-9.]+ s, 0.0 MB", summary)
    assert cache == "triton: restored 2, used 1"


def test_restore_that_was_not_used_is_a_warning(restored: Path, caplog: pytest.LogCaptureFixture) -> None:
    report = cache_report()
    assert "2 units were restored and none was used, nor was anything compiled" in report.warning
    assert str(restored) in report.warning
    assert [record.levelno for record in caplog.records if record.levelno >= logging.WARNING] == [logging.WARNING]
    compile_kernel(restored, "C")
    assert "while 1 was compiled anew" in cache_report().warning


def test_file_system_that_records_no_reads_is_said_to(
    isolated_env: IsolatedEnv, restored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "noatime"
    root.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "noatime", "tmpfs", str(root)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        message = "may not mount a tmpfs"
        pytest.fail(message) if os.environ.get("B10_TEST_EVERYTHING") else pytest.skip(message)
    try:
        monkeypatch.setenv("TRITON_CACHE_DIR", str(root / "triton"))
        assert load().status is OperationStatus.SUCCESS
        use(root / "triton", "A")
        report = cache_report()
        assert [cache.used for cache in report.caches] == [None]
        assert "used unknown (its file system records no reads)" in str(report)
        assert report.warning == ""
    finally:
        subprocess.run(["umount", "-l", str(root)], check=True)


def test_trying_out_whether_reads_are_recorded_leaves_nothing(restored: Path) -> None:
    before = sorted(restored.rglob("*"))
    assert counts() == {"triton": (2, 0, 0)}
    assert sorted(restored.rglob("*")) == before


def test_caches_that_were_removed_are_no_error(restored: Path) -> None:
    for path in sorted(restored.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    restored.rmdir()
    assert [cache.restored for cache in cache_report().caches] == [2]


def test_report_before_any_load_is_empty(isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "last_load", None)
    report = cache_report()
    assert (report.caches, report.warning) == ((), "")


def test_torchs_own_counts_are_told(restored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dynamo = ModuleType("torch._dynamo.utils")
    counters: dict[str, Counter[str]] = {
        "inductor": Counter(fxgraph_cache_hit=3, something_else=9),
        "aot_autograd": Counter(autograd_cache_miss=1),
    }
    dynamo.counters = counters  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch._dynamo.utils", dynamo)
    report = cache_report()
    counted = {name: count for name, count in report.counters.items() if count}
    assert counted == {"fxgraph_cache_hit": 3, "autograd_cache_miss": 1}
    assert "torch: autograd_cache_miss 1, fxgraph_cache_hit 3" in str(report).splitlines()


def test_report_never_raises(restored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("unforeseen")

    monkeypatch.setattr("b10_transfer.local.usage.snapshot.take", fail)
    assert "unforeseen" in cache_report().warning
