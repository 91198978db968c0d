"""Which process is the server, where it answers, whether it serves."""

from __future__ import annotations

import http.server
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from b10_transfer.config.launcher import LauncherConfig
from b10_transfer.launcher import processtable, server
from b10_transfer.launcher.processtable import Process
from b10_transfer.launcher.server import Child, ExternalServer, address_of, find_external_server, serves

VLLM = ["python3", "/usr/bin/vllm", "serve", "model"]


@pytest.mark.parametrize(
    ("arguments", "address"),
    [
        (VLLM, "http://127.0.0.1:8000/v1/models"),
        (["vllm", "serve", "model", "--port", "9"], "http://127.0.0.1:9/v1/models"),
        ([*VLLM, "--port=9", "--host=0.0.0.0"], "http://127.0.0.1:9/v1/models"),
        ([*VLLM, "--host", "::"], "http://[::1]:8000/v1/models"),
        ([*VLLM, "--host", "10.0.0.1", "--ssl-certfile", "c"], "https://10.0.0.1:8000/v1/models"),
        (["python", "-m", "vllm.entrypoints.openai.api_server"], "http://127.0.0.1:8000/v1/models"),
        (["python", "-m", "sglang.launch_server"], "http://127.0.0.1:30000/v1/models"),
        (["timeout", "60", *VLLM], "http://127.0.0.1:8000/v1/models"),
        ([*VLLM, "--headless"], None),
        ([*VLLM, "--uds", "/run/socket"], None),
        (["python", "train.py"], None),
        (["vllm", "bench"], None),
        (["sh", "-c", "vllm serve model"], None),
        (["python", "/bin/b10-compile-cache", "run", "--", *VLLM], None),
        ([""], None),
    ],
)
def test_address_follows_from_the_command_line(arguments: list[str], address: str | None) -> None:
    assert address_of(arguments) == address


def process(pid: int, parent: int = 1, *, session: int = 0, started: int = 0, arguments: list[str] = VLLM) -> Process:
    return Process(pid, started, parent, session, tuple(arguments))


HERE, PARENT, SESSION = os.getpid(), os.getppid(), os.getsid(0)
US = process(HERE, PARENT, session=SESSION, arguments=["python", "b10-compile-cache"])
SHELL = process(PARENT, 1, session=SESSION, arguments=["sh", "script"])
FREE = 10**7
"""No process has so high a number."""


@pytest.mark.parametrize(
    ("others", "expected"),
    [
        ([], None),
        ([process(FREE, PARENT, session=SESSION)], FREE),
        # A process manager's children have sessions of their own.
        ([process(FREE, PARENT, session=5), process(FREE + 1, 3, session=5)], FREE),
        ([process(FREE, 3, session=SESSION, started=9), process(FREE + 1, PARENT, session=SESSION)], FREE + 1),
        ([process(FREE, 3, session=SESSION, started=1), process(FREE + 1, 3, session=SESSION, started=2)], FREE + 1),
        # Forked by the server, and by something between.
        ([process(FREE, PARENT), process(FREE + 1, FREE), process(FREE + 2, FREE + 1)], FREE),
        (
            [process(FREE, PARENT), process(FREE + 1, FREE, arguments=["engine"]), process(FREE + 2, FREE + 1)],
            FREE,
        ),
        ([process(FREE, 3, session=5)], FREE),
        ([process(FREE, 3, session=5), process(FREE + 1, 4, session=5)], None),
        ([process(FREE, PARENT, session=SESSION, arguments=["python", "train.py"])], None),
    ],
)
def test_nearest_server_is_found(monkeypatch: pytest.MonkeyPatch, others: list[Process], expected: int | None) -> None:
    monkeypatch.setattr(server, "processes", lambda: [US, SHELL, *others])
    found = find_external_server()
    assert (found.pid if found else None) == expected


def test_server_that_is_our_ancestor_comes_before_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    above = process(PARENT, 1, session=SESSION)
    sibling = process(FREE, PARENT, session=SESSION, started=9)
    monkeypatch.setattr(server, "processes", lambda: [US, above, sibling])
    assert find_external_server() == above


def test_server_of_another_session_is_taken_only_if_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "processes", lambda: [US, SHELL, process(FREE, 3, session=5)])
    assert find_external_server(anywhere=False) is None


def config(**changes: object) -> LauncherConfig:
    settings = {"url": None, "timeout_s": 60.0, "interval_s": 1.0, "quiet_s": 60.0, "start_within_s": 1.0}
    return LauncherConfig(**(settings | {"last_save_s": 1.0} | changes))  # type: ignore[arg-type]


def test_process_elsewhere_is_not_the_server_of_a_url_with_another_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "processes", lambda: [US, SHELL, process(FREE, PARENT, session=SESSION)])
    external = ExternalServer(config(url="http://127.0.0.1:1/health"))
    assert external.is_alive()
    assert external.environment() == {}


def test_unknown_program_counts_as_alive_while_whoever_started_us_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "processes", list)
    external = ExternalServer(config(timeout_s=1e-9))
    assert external.is_alive()
    assert external.serves() is None
    monkeypatch.setattr(os, "getppid", lambda: 1)
    assert not external.is_alive()


def test_own_process_is_seen_as_the_kernel_tells_of_it() -> None:
    us = next(found for found in processtable.processes() if found.pid == os.getpid())
    assert us.is_alive()
    assert (us.parent, us.session) == (os.getppid(), os.getsid(0))
    started_ns = us.started_ns()
    assert started_ns is not None
    assert started_ns < time.time_ns()
    assert processtable.environment_of(us.pid)["PATH"]


def test_process_that_is_gone_and_one_that_has_its_number_are_not_alive() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        found = processtable.read(child.pid)
        assert found is not None
        assert found.is_alive()
        assert not Process(found.pid, found.started + 1, found.parent, found.session, found.arguments).is_alive()
        assert child.stdin is not None
        child.stdin.close()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert not found.is_alive()  # a zombie
    assert processtable.read(found.pid) != found
    assert processtable.environment_of(FREE) == {}


@pytest.fixture
def answering() -> Iterator[tuple[str, list[int]]]:
    """A server's address, and the statuses it answers with; each stays until another comes first."""
    statuses = [200]

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(statuses[0])
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}/v1/models?some=query", statuses
        running.shutdown()
        thread.join()


@pytest.mark.parametrize(("status", "ready"), [(200, True), (401, True), (403, True), (404, False), (503, False)])
def test_server_serves_once_it_answers(answering: tuple[str, list[int]], status: int, ready: bool) -> None:
    url, statuses = answering
    statuses[0] = status
    assert serves(url) is ready
    assert Child(["program"], url).serves() is ready


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:1/",
        "https://127.0.0.1:1",
        "http://",
        "http://[",
        "http://x:y/",
        "http://a b/",
        "http://127.0.0.1:1/\n",
    ],
)
def test_what_does_not_answer_does_not_serve(url: str) -> None:
    assert serves(url) is False


@pytest.mark.parametrize("drop", [b"HTTP/1.1 200 OK\r\nX-", b"H", b"x" * 1000, b""])
def test_server_that_answers_byte_by_byte_takes_no_longer_than_one_that_is_silent(drop: bytes) -> None:
    """Each byte comes in time, and the answer never ends."""
    over = threading.Event()

    def drip(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection, suppress(OSError):
            connection.sendall(drop)
            while not over.wait(0.3):
                connection.sendall(b"a")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=drip, args=(listener,))
        thread.start()
        started = time.monotonic()
        assert serves(f"http://127.0.0.1:{listener.getsockname()[1]}/") is False
        assert time.monotonic() - started < 10, "it would take for ever"
        over.set()
        thread.join()


def test_server_found_by_its_url_is_gone_after_three_silences(
    answering: tuple[str, list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, statuses = answering
    monkeypatch.setattr(server, "processes", list)
    external = ExternalServer(config(url=url))
    assert external.serves()
    statuses[0] = 503
    assert [external.is_alive() for _ in range(2)] == [True, True]
    statuses[0] = 200
    assert external.is_alive()
    statuses[0] = 503
    assert [external.is_alive() for _ in range(3)] == [True, True, False]


def test_program_that_is_no_known_server_cannot_be_asked() -> None:
    assert Child(["python", "train.py"], None).serves() is None
