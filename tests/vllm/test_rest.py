"""``B10_RESTORE_REST=after`` with the real server: what it does not find in time, it does not need."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.vllm.conftest import NewPod, serve_once
from tests.vllm.log import lines_with
from tests.vllm.server import SetUp, Way


@pytest.mark.parametrize("set_up", list(SetUp), ids=["stock", "gpu_mode"])
def test_start_after_a_record_of_use_compiles_nothing(new_pod: NewPod, model: Path, set_up: SetUp) -> None:
    pod = replace(
        new_pod(set_up, f"rest-{set_up.name}", f"rest-{set_up.name}"), variables={"B10_RESTORE_REST": "after"}
    )
    first = serve_once(pod, Way.RUN, model, (), "save: SUCCESS")
    artifacts = pod.artifacts()
    second = serve_once(pod.empty(), Way.RUN, model, (), "recorded that this start used ")
    third = serve_once(pod.empty(), Way.RUN, model, (), ": restored ")
    assert third.text == second.text == first.text != ""
    [line] = lines_with(" load: ", third.server.log)
    assert "load: SUCCESS" in line
    assert pod.artifacts().items() <= artifacts.items()
    assert "save: SUCCESS" not in third.server.log
    assert ", 0 compiled" in third.server.log
