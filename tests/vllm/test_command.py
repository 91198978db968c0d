"""``b10-compile-cache`` with the real server: a replica in another place, with nothing but the store, compiles nothing
of what another has compiled.

Both documented ways of starting serve twice, the second time in an empty home (see CASES in conftest.py). In the GPU's
mode, ``patched`` as tests/vllm/plugin does it, three workloads share a store.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.vllm.conftest import CASES, GPU_MODE, STOCK, Case, Neighbours, Start, Starts
from tests.vllm.log import cache_lines, graphs_compiled, lines_with, loaded_artifacts
from tests.vllm.server import Way

every_case = pytest.mark.parametrize("case", CASES, ids=str)
stock = pytest.mark.parametrize("case", STOCK, ids=str)
gpu_mode = pytest.mark.parametrize("case", GPU_MODE, ids=str)
by_run = pytest.mark.parametrize("case", [case for case in CASES if case.way is Way.RUN], ids=str)
in_background = pytest.mark.parametrize("case", [case for case in CASES if case.way is Way.BACKGROUND], ids=str)


@every_case
def test_what_the_server_has_compiled_is_saved_while_it_serves(cold_start: Starts, case: Case) -> None:
    log = cold_start(case).server.log
    assert log.index("the server is ready") < log.index("save: SUCCESS") < log.index("Shutting down")


@every_case
def test_exit_code_of_run_is_the_one_that_the_server_has_by_itself(cold_start: Starts, case: Case) -> None:
    """SIGTERM while serving: ``run`` gets it and passes it on; in the background the server gets it itself."""
    assert cold_start(case).exit_code == 0


@every_case
def test_restored_server_answers_with_the_same_text(cold_start: Starts, restored_start: Starts, case: Case) -> None:
    assert restored_start(case).text == cold_start(case).text != ""


@every_case
def test_cache_is_restored_also_where_vllm_has_already_written_other_things(restored_start: Starts, case: Case) -> None:
    [line] = lines_with(" load: ", restored_start(case).server.log)
    assert "load: SUCCESS" in line


@by_run
def test_what_vllm_knows_of_the_models_class_is_restored_and_believed(restored_start: Starts, case: Case) -> None:
    """Otherwise vLLM would import the class in a process of its own, and write the file anew."""
    [file] = (restored_start(case).pod.cache_root / "modelinfos").iterdir()
    assert file.stat().st_mtime_ns < restored_start(case).began_ns


@gpu_mode
def test_ahead_of_time_artifact_is_loaded_from_its_new_place(
    cold_start: Starts, restored_start: Starts, case: Case
) -> None:
    first, second = cold_start(case), restored_start(case)
    assert graphs_compiled(first.server.log) == 1
    assert loaded_artifacts(first.server.log) == []
    assert graphs_compiled(second.server.log) == 0
    [path] = loaded_artifacts(second.server.log)
    assert path.startswith(f"{second.pod.cache_root}/torch_compile_cache/torch_aot_compile/")


@every_case
def test_nothing_is_compiled_again(restored_start: Starts, case: Case) -> None:
    restored = restored_start(case)
    written = [path for path, time_ns in restored.pod.files().items() if time_ns >= restored.began_ns]
    assert [path for path in written if "/torch_compile_cache/" in path or "/torchinductor_" in path] == []


@every_case
def test_restored_server_has_nothing_new_to_save(
    cold_start: Starts, restored_start: Starts, neighbours: Neighbours, case: Case
) -> None:
    assert "save: SUCCESS" not in restored_start(case).server.log
    last = cold_start(neighbours(case)[-1])
    assert _packs(restored_start(case)) == _packs(last)


@every_case
def test_artifacts_are_in_place_before_vllm_first_looks(restored_start: Starts, case: Case) -> None:
    """By the times of the files: the last was put in place before any was read."""
    statuses = [path.stat() for path in _artifacts(restored_start(case))]
    # A load sets both times to the original's, and what reads a file moves the second.
    reads_ns = [status.st_atime_ns for status in statuses if status.st_atime_ns != status.st_mtime_ns]
    assert max(status.st_ctime_ns for status in statuses) < min(reads_ns)


@by_run
def test_run_starts_the_server_when_the_artifacts_are_in_place(restored_start: Starts, case: Case) -> None:
    assert "load: SUCCESS" in restored_start(case).server.log.splitlines()[0]


@in_background
def test_in_the_background_artifacts_are_in_place_before_vllms_engine_starts(
    restored_start: Starts, case: Case
) -> None:
    log = restored_start(case).server.log
    assert log.index("load: SUCCESS") < log.index("Initializing a V1 LLM engine")


@stock
def test_command_proves_that_all_of_a_restored_cache_was_used(
    cold_start: Starts, restored_start: Starts, case: Case
) -> None:
    compiled = {line.cache: line.compiled for line in cache_lines(cold_start(case).server.log)}
    proof = {line.cache: line for line in cache_lines(restored_start(case).server.log)}
    inductor = proof["inductor"]
    assert inductor.restored == inductor.used == compiled["inductor"] > 0
    assert [line for line in proof.values() if line.compiled] == []
    assert lines_with(" WARNING: ", restored_start(case).server.log) == []


@gpu_mode
def test_command_proves_that_the_artifact_was_used(restored_start: Starts, case: Case) -> None:
    """Of what lies in Inductor's directory beside the artifact, vLLM reads only some."""
    log = restored_start(case).server.log
    proof = {line.cache: line for line in cache_lines(log)}
    assert proof["vllm"].used
    assert [line for line in proof.values() if line.compiled] == []
    assert lines_with(" WARNING: ", log) == []


def test_caches_of_another_length_and_another_model_live_side_by_side(
    cold_start: Starts, restored_start: Starts
) -> None:
    units = [_units(cold_start(case)) for case in GPU_MODE]
    assert 0 < units[0] < units[1] < units[2]
    for case in GPU_MODE:
        restored = cache_lines(restored_start(case).server.log)
        # Both models are Llamas: what vLLM knows of that class is one unit, which is no compiled one.
        assert sum(line.restored for line in restored) == units[-1] - 1
    loaded = [Path(path).parts[-3] for case in GPU_MODE for path in loaded_artifacts(restored_start(case).server.log)]
    assert len(set(loaded)) == len(loaded) == len(GPU_MODE)


@pytest.mark.parametrize("case", GPU_MODE[1:], ids=str)
def test_command_warns_that_what_was_restored_is_for_another_workload(cold_start: Starts, case: Case) -> None:
    """The first start of a workload finds only what others have saved."""
    [warning] = lines_with(" WARNING: ", cold_start(case).server.log)
    assert "were restored and none was used" in warning
    assert "the compiler's own keys differ" in warning


def _artifacts(start: Start) -> list[Path]:
    """What the load has put in place before it returned: all but precompiled headers."""
    return [
        start.pod.root / path
        for path, time_ns in start.pod.files().items()
        if time_ns < start.began_ns
        and ("/torch_compile_cache/" in path or "/torchinductor_" in path)
        and "/precompiled_headers/" not in path
    ]


def _units(start: Start) -> int:
    """Units that the store held after a start."""
    [environment] = json.loads(start.stored)["environments"]
    assert isinstance(environment["units"], int)
    return environment["units"]


def _packs(start: Start) -> list[str]:
    """The packs that the store held after a start."""
    [environment] = json.loads(start.stored)["environments"]
    return [pack["id"] for pack in environment["packs"]]
