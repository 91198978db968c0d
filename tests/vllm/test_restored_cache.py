"""A replica in another place, with nothing but the store, compiles nothing of what the first one has compiled."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.vllm.conftest import RestoredStart, Starts
from tests.vllm.log import compile_s, graphs_compiled, loaded_artifacts
from tests.vllm.server import SetUp

RestoredStarts = Callable[[SetUp], RestoredStart]
both = pytest.mark.parametrize("set_up", SetUp, ids=lambda set_up: set_up.name.lower())


@both
def test_server_that_is_serving_can_be_saved_from(cold_start: Starts, set_up: SetUp) -> None:
    first = cold_start(set_up)
    assert first.saved.status == "SUCCESS", first.saved
    assert first.exit_code == 0


@both
def test_cache_is_restored_where_vllm_has_already_written_other_things(
    cold_start: Starts, restored_start: RestoredStarts, set_up: SetUp
) -> None:
    restored = restored_start(set_up)
    assert restored.loaded.status == "SUCCESS", restored.loaded
    assert restored.loaded.units == cold_start(set_up).saved.units


@both
def test_restored_server_answers_with_the_same_text(
    cold_start: Starts, restored_start: RestoredStarts, set_up: SetUp
) -> None:
    assert restored_start(set_up).start.text == cold_start(set_up).text != ""


def test_stock_server_compiles_for_a_quarter_of_the_time_at_most(
    cold_start: Starts, restored_start: RestoredStarts
) -> None:
    first, second = cold_start(SetUp.STOCK), restored_start(SetUp.STOCK).start
    assert compile_s(second.server.log) <= 0.25 * compile_s(first.server.log)


def test_ahead_of_time_artifact_is_loaded_from_its_new_place(
    cold_start: Starts, restored_start: RestoredStarts
) -> None:
    first, second = cold_start(SetUp.GPU_MODE), restored_start(SetUp.GPU_MODE).start
    assert graphs_compiled(first.server.log) == 1
    assert loaded_artifacts(first.server.log) == []
    assert graphs_compiled(second.server.log) == 0
    [path] = loaded_artifacts(second.server.log)
    assert path.startswith(f"{second.pod.cache_root}/torch_compile_cache/torch_aot_compile/")


@both
def test_nothing_is_compiled_again(restored_start: RestoredStarts, set_up: SetUp) -> None:
    restored = restored_start(set_up)
    written = restored.start.pod.files().items() - restored.files.items()
    assert [path for path, _time in written if "/torch_compile_cache/" in path or "/torchinductor_" in path] == []


@both
def test_restored_server_has_nothing_new_to_save(restored_start: RestoredStarts, set_up: SetUp) -> None:
    assert restored_start(set_up).start.saved.status == "SKIPPED"
