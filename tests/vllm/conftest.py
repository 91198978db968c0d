"""What the tests with the real server share: models, and starts, which cost up to a minute each.

Without vLLM there is nothing to collect here: ``make test-vllm`` has an environment of its own.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from functools import wraps
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import pytest

from tests.faults.conftest import mount
from tests.vllm.log import compile_s
from tests.vllm.model import make_model
from tests.vllm.server import Pod, Server, SetUp, Way

__all__ = ["mount"]

collect_ignore_glob = [] if find_spec("vllm") else ["test_*.py"]
collect_ignore = ["plugin"]

TEST_S = 3600
"""A test may be the first to need several starts."""


def pytest_itemcollected(item: pytest.Item) -> None:
    item.add_marker(pytest.mark.timeout(TEST_S))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Tests with the same starts run in the same process (``make test-vllm`` has two); others run anywhere.

    By the names of tests, since pytest-xdist's own groups (3.8) get lost with pytest 9.2.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByStarts(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            if "-stock-" in nodeid:
                return "stock"
            return "gpu mode" if "-gpu_mode-" in nodeid or "/test_command.py" in nodeid else nodeid

    return ByStarts(config, log)


def _case_of(item: pytest.Item) -> Case | None:
    case = item.callspec.params.get("case") if hasattr(item, "callspec") else None
    return case if isinstance(case, Case) else None


_figures: list[str] = []


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["figures"] = _figures


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    _figures.extend(node.workeroutput.get("figures", ()))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what the starts took, so that a run is also a measurement."""
    for figure in _figures:
        terminalreporter.write_line(figure)


class Workload(Enum):
    """What is served. The model's path and the length are in vLLM's hash."""

    FIRST = "a model"
    LENGTH = "the same with another --max-model-len"
    MODEL = "another model"


@dataclass(frozen=True)
class Case:
    """A server that is started twice: with nothing saved for it, then restored in an empty home."""

    way: Way
    set_up: SetUp
    workload: Workload = Workload.FIRST

    @property
    def store(self) -> str:
        """The store's name. All workloads in the GPU's mode share one, so that their caches live side by side; in the
        stock set-up each way has its own: Inductor would take kernels of the other's."""
        return "gpu" if self.set_up is SetUp.GPU_MODE else f"stock-{self.way.name.lower()}"

    def __str__(self) -> str:
        return "-".join(each.name.lower() for each in (self.way, self.set_up, self.workload))


STOCK = (Case(Way.RUN, SetUp.STOCK), Case(Way.BACKGROUND, SetUp.STOCK))
GPU_MODE = (
    Case(Way.RUN, SetUp.GPU_MODE),
    Case(Way.BACKGROUND, SetUp.GPU_MODE, Workload.LENGTH),
    Case(Way.RUN, SetUp.GPU_MODE, Workload.MODEL),
)
"""In the order of their first starts."""
CASES = (*STOCK, *GPU_MODE)


@dataclass(frozen=True)
class Start:
    """A start of the server that is over: it became ready, answered, and was stopped with SIGTERM while serving."""

    pod: Pod
    server: Server
    began_ns: int
    """When, in nanoseconds since the epoch."""
    text: str
    """What it answered."""
    exit_code: int
    stored: str
    """What the store said of itself afterwards (``ls --json``)."""


P = ParamSpec("P")
R = TypeVar("R")


def once(function: Callable[P, R]) -> Callable[P, R]:
    """A function that is called once for each choice of arguments: what it returned, or raised, it does again."""

    outcomes: dict[object, R | Exception] = {}

    @wraps(function)
    def repeated(*arguments: P.args, **named: P.kwargs) -> R:
        key = (arguments, tuple(named.items()))
        if key not in outcomes:
            try:
                outcomes[key] = function(*arguments, **named)
            except Exception as error:  # noqa: BLE001 - it is raised, as often as it is asked for
                outcomes[key] = error
        found = outcomes[key]
        if isinstance(found, Exception):
            raise found
        return found

    return repeated


Starts = Callable[[Case], Start]
Neighbours = Callable[[Case], list[Case]]
NewPod = Callable[[SetUp, str, str], Pod]


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model's directory."""
    return make_model(tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture(scope="session")
def other_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("models") / "other", layers=3, hidden=384)


@pytest.fixture(scope="session")
def new_pod(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NewPod]:
    """``new_pod(set_up, name, store)`` is a new replica in a place of its own."""
    # Short: vLLM's sockets lie below, and their paths have 107 characters at most.
    top = tmp_path_factory.mktemp("pods")
    made = []

    def pod(set_up: SetUp, name: str, store: str) -> Pod:
        made.append(Pod(top / name, top / f"store-{store}", set_up))
        return made[-1].empty()

    yield pod
    for each in made:
        # 150 MB each, of a precompiled header; the logs stay.
        shutil.rmtree(each.root, ignore_errors=True)


@pytest.fixture(scope="session")
def start(new_pod: NewPod, model: Path, other_model: Path) -> Callable[[Case, str, Path | None], Start]:
    """``start(case, name, modelinfos)`` is a start in a new pod in which vLLM may have written its ``modelinfos``."""

    def started(case: Case, name: str, modelinfos: Path | None = None) -> Start:
        pod = new_pod(case.set_up, f"{name}{CASES.index(case)}", case.store)
        if modelinfos is not None:
            shutil.copytree(modelinfos, pod.cache_root / "modelinfos")
        served = other_model if case.workload is Workload.MODEL else model
        options = ("--max-model-len", "384") if case.workload is Workload.LENGTH else ()
        found = serve_once(pod, case.way, served, options, ": restored " if name == "new" else "save: ")
        took = f"compile phase {compile_s(found.server.log):.1f} s, ready after {found.server.ready_s:.1f} s"
        _figures.append(f"{name} {case.way.value}, {case.workload.value} ({case.set_up.value}): {took}")
        return found

    return started


@pytest.fixture(scope="session")
def neighbours(request: pytest.FixtureRequest) -> Neighbours:
    """``neighbours(case)``: the cases with the same store that the chosen tests are about, in their order."""
    chosen = {case for item in request.session.items if (case := _case_of(item))}
    if any(
        "restored_start" in getattr(item, "fixturenames", ()) and not _case_of(item) for item in request.session.items
    ):
        chosen = set(CASES)  # for a test that looks at several
    return lambda case: [other for other in CASES if other.store == case.store and other in chosen]


@pytest.fixture(scope="session")
def cold_start(start: Callable[..., Start], neighbours: Neighbours) -> Starts:
    """``cold_start(case)`` is the first start of a case. Each happens once, those with the same store in order."""

    @once
    def first(case: Case) -> Start:
        for other in neighbours(case):
            if CASES.index(other) < CASES.index(case):
                first(other)
        return start(case, "cold")

    return first


@pytest.fixture(scope="session")
def restored_start(start: Callable[..., Start], cold_start: Starts, neighbours: Neighbours) -> Starts:
    """``restored_start(case)`` is the second start of a case, in an empty pod in another place, with all that is saved
    in its store by then; each happens once."""

    @once
    def second(case: Case) -> Start:
        for other in neighbours(case):
            cold_start(other)
        # What a server writes long before it compiles must not pass for a cache. Elsewhere it is restored.
        written = cold_start(case).pod.cache_root / "modelinfos" if case.way is Way.BACKGROUND else None
        return start(case, "new", written)

    return second


def serve_once(pod: Pod, way: Way, model: Path, options: tuple[str, ...], last_word: str) -> Start:
    """One life of a server, until it is stopped. ``last_word`` is what the command says when it has done its work."""
    began_ns = time.time_ns()
    with pod.serve(model, *options, prefix=way.prefix) as server:
        server.wait_until_ready()
        text = "\n".join(map(server.complete, ("A model", "def main():", "0 1 2 3", "What is new?")))
        server.wait_until_it_says(f"b10-compile-cache [A-Z]+: .*{last_word}")
        exit_code = server.stop()
        pod.wait_until_deserted()
        return Start(pod, server, began_ns, text, exit_code, pod.run("b10-compile-cache", "ls", "--json"))
