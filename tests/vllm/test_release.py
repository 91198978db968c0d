"""What holds for every release of vLLM: a second start in an emptied pod, at the same paths, compiles nothing.

``python -m tests.versions --vllm RELEASE`` runs it for older ones. At the same paths, because up to 0.26 vLLM hashes
some of them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.vllm.conftest import NewPod
from tests.vllm.log import lines_with
from tests.vllm.server import Pod, SetUp, Way


def served(pod: Pod, model: Path, last_word: str) -> tuple[str, str]:
    """One life of a server under ``run``: what it answered, and its log."""
    with pod.serve(model, prefix=Way.RUN.prefix) as server:
        server.wait_until_ready()
        text = server.complete()
        server.wait_until_it_says(f"b10-compile-cache [A-Z]+: .*{last_word}")
        server.stop()
        pod.wait_until_deserted()
        return text, server.log


def stored_units(pod: Pod) -> dict[str, int]:
    """How many units of each cache the store has."""
    units: Counter[str] = Counter()
    for environment in json.loads(pod.run("b10-compile-cache", "ls", "--json"))["environments"]:
        units.update({name: amount["units"] for name, amount in environment["caches"].items()})
    return dict(sorted(units.items()))


def test_second_start_compiles_nothing(
    new_pod: NewPod, model: Path, record_property: Callable[[str, object], None]
) -> None:
    pod = new_pod(SetUp.STOCK, "release", "release")
    first, _ = served(pod, model, "save: SUCCESS")
    artifacts = pod.artifacts()
    units = stored_units(pod)
    text, log = served(pod.empty(), model, ": restored ")
    [line] = lines_with(" load: ", log)
    assert "load: SUCCESS" in line
    assert text == first
    compiled = [path for path in pod.artifacts() if path not in artifacts]
    assert compiled == []
    assert stored_units(pod) == units
    record_property("outcome", "passed: " + ", ".join(f"{name} {number}" for name, number in units.items()))
