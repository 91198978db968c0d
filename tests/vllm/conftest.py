"""What the tests with the real server share: a model, and cold starts, which cost a minute each.

Without vLLM there is nothing to collect here: ``make test-vllm`` has an environment of its own.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.vllm.log import compile_s
from tests.vllm.model import make_model
from tests.vllm.server import Pod, Report, Server, SetUp

collect_ignore_glob = [] if find_spec("vllm") else ["test_*.py"]
collect_ignore = ["plugin"]

TEST_S = 600
"""A test may be the first to need several starts."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(TEST_S))


_figures: list[str] = []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what the starts took, so that a run is also a measurement."""
    for figure in _figures:
        terminalreporter.write_line(figure)


@dataclass(frozen=True)
class Start:
    """A start of the server that is over: it became ready, answered, and was stopped."""

    pod: Pod
    server: Server
    text: str
    """What it answered."""
    exit_code: int
    saved: Report
    """What a save said while it was serving."""


Starts = Callable[[SetUp], Start]
NewPod = Callable[[SetUp, str], Pod]


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model's directory. The path is in vLLM's hash: all pods of a test must use the same."""
    return make_model(tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture(scope="session")
def new_pod(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NewPod]:
    """``new_pod(set_up, name)`` is a new replica in a place of its own, with the set-up's store."""
    # Short: vLLM's sockets lie below, and their paths have 107 characters at most.
    top = tmp_path_factory.mktemp("pods")
    made = []

    def pod(set_up: SetUp, name: str) -> Pod:
        made.append(Pod(top / f"{name}-{set_up.name.lower()}", top / f"store-{set_up.name.lower()}", set_up))
        return made[-1].empty()

    yield pod
    for each in made:
        # 150 MB each, of a precompiled header; the logs stay.
        shutil.rmtree(each.root, ignore_errors=True)


@pytest.fixture(scope="session")
def cold_start(new_pod: NewPod, model: Path) -> Starts:
    """``cold_start(set_up)`` is the first start with an empty store, saved from while it served; each happens once."""

    @cache
    def start(set_up: SetUp) -> Start:
        return _start(new_pod(set_up, "cold"), model)

    return start


@pytest.fixture(scope="session")
def restored_start(new_pod: NewPod, cold_start: Starts, model: Path) -> Callable[[SetUp], RestoredStart]:
    """``restored_start(set_up)`` is a start in a new pod, elsewhere, after a load; each happens once."""

    @cache
    def start(set_up: SetUp) -> RestoredStart:
        first = cold_start(set_up)
        pod = new_pod(set_up, "new")
        # What a server writes long before it compiles must not pass for a cache.
        shutil.copytree(first.pod.cache_root / "modelinfos", pod.cache_root / "modelinfos")
        loaded = pod.call("load")
        return RestoredStart(loaded, pod.files(), _start(pod, model))

    return start


@dataclass(frozen=True)
class RestoredStart:
    """A start after a load, and what there was before it."""

    loaded: Report
    files: dict[str, int]
    """The pod's files before the start, and their times."""
    start: Start


def _start(pod: Pod, model: Path) -> Start:
    with pod.serve(model) as server:
        server.wait_until_ready()
        text = "\n".join(map(server.complete, ("A model", "def main():", "0 1 2 3", "What is new?")))
        saved = pod.call("save")
        took = f"compile phase {compile_s(server.log):.1f} s, ready after {server.ready_s:.1f} s"
        _figures.append(f"{pod.root.name} ({pod.set_up.value}): {took}")
        return Start(pod, server, text, server.stop(), saved)
