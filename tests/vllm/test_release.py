"""What holds for every release of vLLM: a second start in an emptied pod, at the same paths, compiles nothing.

``python -m tests.versions --vllm RELEASE`` runs it for older ones. At the same paths, because up to 0.26 vLLM hashes
some of them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.vllm.conftest import NewPod, Start, serve_once
from tests.vllm.log import lines_with
from tests.vllm.server import SetUp, Way


def stored_units(start: Start) -> dict[str, int]:
    """How many units of each cache the store had after a start."""
    units: Counter[str] = Counter()
    for environment in json.loads(start.stored)["environments"]:
        units.update({name: amount["units"] for name, amount in environment["caches"].items()})
    return dict(sorted(units.items()))


def test_second_start_compiles_nothing(
    new_pod: NewPod, model: Path, record_property: Callable[[str, object], None]
) -> None:
    pod = new_pod(SetUp.STOCK, "release", "release")
    first = serve_once(pod, Way.RUN, model, (), "save: SUCCESS")
    artifacts = pod.artifacts()
    second = serve_once(pod.empty(), Way.RUN, model, (), ": restored ")
    [line] = lines_with(" load: ", second.server.log)
    assert "load: SUCCESS" in line
    assert second.text == first.text != ""
    compiled = [path for path in pod.artifacts() if path not in artifacts]
    assert compiled == []
    units = stored_units(first)
    assert stored_units(second) == units
    record_property("outcome", "passed: " + ", ".join(f"{name} {number}" for name, number in units.items()))
