"""A unit that its compiler found out of date and wrote anew under its name is saved again, but not at every start."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from b10_transfer import OperationStatus, load, save
from b10_transfer.adapters import ADAPTERS
from b10_transfer.adapters.base import Unit, UnitKind

if TYPE_CHECKING:
    from tests.conftest import IsolatedEnv

RANK = f"torch_aot_compile/{'a' * 64}/rank_0_0"


@pytest.fixture
def model(isolated_env: IsolatedEnv) -> Path:
    """An ahead-of-time artifact of vLLM's, saved."""
    root = isolated_env.home / ".cache" / "vllm" / "torch_compile_cache"
    isolated_env.fill(root, {f"{RANK}/model": b"of the old sources"})
    assert save().status is OperationStatus.SUCCESS
    return root / RANK / "model"


def let_time_pass(store: Path) -> None:
    """Have every pack be two hours older."""
    for pack in store.rglob("packs/*"):
        time_ms, _, rest = pack.name.partition("-")
        pack.rename(pack.with_name(f"{int(time_ms, 16) - 7_200_000:012x}-{rest}"))


def replace(path: Path, content: bytes) -> None:
    """As vLLM does it."""
    beside = path.with_name("model.1.tmp")
    beside.write_bytes(content)
    beside.replace(path)


def test_replaced_unit_is_saved_and_the_next_pod_gets_it(isolated_env: IsolatedEnv, model: Path) -> None:
    let_time_pass(isolated_env.store)
    replace(model, b"of the new sources")
    report = save()
    assert (report.status, report.units) == (OperationStatus.SUCCESS, 1)
    model.unlink()
    assert load().status is OperationStatus.SUCCESS
    assert model.read_bytes() == b"of the new sources"


def test_unit_that_was_published_a_moment_ago_is_not_replaced(model: Path) -> None:
    replace(model, b"compiled at the same time elsewhere")
    assert save().status is OperationStatus.SKIPPED


def test_compiler_that_never_accepts_what_it_finds_publishes_once_in_a_while(
    isolated_env: IsolatedEnv, model: Path
) -> None:
    let_time_pass(isolated_env.store)
    replace(model, b"one")
    assert save().status is OperationStatus.SUCCESS
    replace(model, b"two")
    assert save().status is OperationStatus.SKIPPED


def test_unit_as_it_was_restored_is_not_replaced(isolated_env: IsolatedEnv, model: Path) -> None:
    let_time_pass(isolated_env.store)
    assert save().status is OperationStatus.SKIPPED
    model.unlink()
    assert load().status is OperationStatus.SUCCESS
    assert save().status is OperationStatus.SKIPPED


def test_unit_written_again_with_the_same_content_is_not_replaced(isolated_env: IsolatedEnv, model: Path) -> None:
    let_time_pass(isolated_env.store)
    os.utime(model)
    assert save().status is OperationStatus.SKIPPED


def test_kernel_of_a_known_name_is_the_same_work_done_twice(isolated_env: IsolatedEnv) -> None:
    isolated_env.fill(isolated_env.triton, {"KEY/a.so": b"one"})
    assert save().status is OperationStatus.SUCCESS
    let_time_pass(isolated_env.store)
    isolated_env.fill(isolated_env.triton, {"KEY/a.so": b"two"})
    assert save().status is OperationStatus.SKIPPED


def test_caches_whose_names_say_less_than_is_checked_are_known() -> None:
    unit = Unit("torch_aot_compile/abc/rank_0_0", UnitKind.FOLDER)
    assert {adapter.name for adapter in ADAPTERS if adapter.may_be_replaced(unit)} == {
        "vllm",
        "vllm_modelinfos",
        "flashinfer",
        "sglang_flashinfer",
        "tvm_ffi",
        "torch_extensions",
        "sglang_autotune",
        "flashinfer_entries",
        "flashinfer_knobs",
        "flashinfer_v2",
        "flashinfer_tuning",
        "miopen",
        "miopen_kernels",
        "quack_autotune",
        "torch_quack_autotune",
    }
    for path in ("abcdef0123/rank_0_0", "torch_aot_compile/abc/inductor_cache/fxgraph/ey/key"):
        assert not next(a for a in ADAPTERS if a.name == "vllm").may_be_replaced(Unit(path, UnitKind.FOLDER))
