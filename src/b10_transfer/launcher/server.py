"""The server beside this process: which process it is, where it answers, whether it lives and serves."""

from __future__ import annotations

import logging
import os
import re
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ..config.launcher import LauncherConfig
from .processtable import Process, environment_of, processes, read

if TYPE_CHECKING:
    import http.client

logger = logging.getLogger(__name__)

_PROBE_TIMEOUT_S = 2.0
_SILENCES = 3
_READY_PATH = "/v1/models"
"""Answered by vLLM's and SGLang's servers once a model is loaded and compiled."""


def address_of(arguments: Sequence[str]) -> str | None:
    """The URL that a server started with these arguments answers at, or None for a program that is no known server.

    Known are ``vllm serve``, ``python -m vllm.entrypoints.openai.api_server`` and ``python -m sglang.launch_server``.
    """
    port = _default_port(arguments)
    if port is None or "--headless" in arguments or _option(arguments, "--uds") is not None:
        return None
    host = _option(arguments, "--host") or "127.0.0.1"
    # What a server listens on is not always what it can be asked at.
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    scheme = "https" if _option(arguments, "--ssl-certfile") else "http"
    number = _option(arguments, "--port") or str(port)
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{number}{_READY_PATH}"


def _default_port(arguments: Sequence[str]) -> int | None:
    names = [argument.rpartition("/")[2] for argument in arguments]
    if "b10-compile-cache" in names:
        return None
    for name, following in zip(names, [*arguments[1:], ""], strict=True):
        if (name, following) == ("vllm", "serve") or name == "vllm.entrypoints.openai.api_server":
            return 8000
        if (name, following) == ("sglang", "serve") or name == "sglang.launch_server":
            return 30000
    return None


def _option(arguments: Sequence[str], name: str) -> str | None:
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=True):
        if argument == name:
            return following or None
        if argument.startswith(f"{name}="):
            return argument.partition("=")[2]
    return None


def find_external_server(*, anywhere: bool = True) -> Process | None:
    """The nearest known server of this user: an ancestor of this process, else the latest of its siblings, else of its
    session, else the only one ``anywhere``.

    ``b10-compile-cache & vllm serve`` in a shell script makes them siblings, and so does a process manager that starts
    each program in a session of its own; where the shell replaces itself with the server, the server is the parent.
    """
    everyone = {process.pid: process for process in processes()}
    ours = ancestors(os.getpid(), everyone)
    known = {pid for pid, process in everyone.items() if _default_port(process.arguments) is not None}
    # Its workers, forked, have the same arguments: the server is the one on top.
    servers = [everyone[pid] for pid in known - {os.getpid()} if not known.intersection(ancestors(pid, everyone))]
    if above := [process for process in servers if process.pid in ours]:
        return above[0]
    parent, session = os.getppid(), os.getsid(0)
    if beside := [process for process in servers if process.parent == parent or process.session == session]:
        return max(beside, key=lambda process: (process.parent == parent, process.started))
    return servers[0] if anywhere and len(servers) == 1 else None


def ancestors(pid: int, everyone: Mapping[int, Process]) -> list[int]:
    """The ids of a process's parent, its parent's parent and so on, as far as they are known."""
    found: list[int] = []
    while pid in everyone and (pid := everyone[pid].parent) in everyone and pid not in found:
        found.append(pid)
    return found


class Child:
    """A server that this process has started."""

    def __init__(self, arguments: Sequence[str], url: str | None) -> None:
        self._url = url or address_of(arguments)

    def is_alive(self) -> bool:
        """Always: its parent is told of its end."""
        return True

    def serves(self) -> bool | None:
        return None if self._url is None else serves(self._url)

    def environment(self) -> Mapping[str, str]:
        """It has this process's own."""
        return {}

    def started_ns(self) -> int | None:
        """After the load, or with it."""
        return None


class ExternalServer:
    """A server that something else starts, looked for until it is there."""

    def __init__(self, config: LauncherConfig) -> None:
        self._url = config.url
        self._waits_until = time.monotonic() + config.timeout_s
        self._quiet_s = config.quiet_s
        self._near_until: float | None = None
        self._parent = os.getppid()
        self._process: Process | None = None
        self._answered = False
        self._silences = 0

    def is_alive(self) -> bool:
        """Whether it lives, or may still come.

        Without a process to watch, three questions without an answer end it. Without an answer either it may be any
        program: it counts as alive as long as whoever started this process does, but for ``timeout_s`` at least.
        """
        if self._process is None:
            self._process = self._find()
        if self._process is not None:
            return self._process.is_alive()
        if self._answered and self._url is not None:
            self._silences = 0 if serves(self._url) else self._silences + 1
            return self._silences < _SILENCES
        return time.monotonic() < self._waits_until or os.getppid() == self._parent

    def _find(self) -> Process | None:
        # Another server of this machine is not to be taken for the one that is about to be started here.
        if self._near_until is None:
            self._near_until = time.monotonic() + self._quiet_s
        found = find_external_server(anywhere=time.monotonic() >= self._near_until)
        # With a URL, what answers there is the server, whatever else is running.
        if found is None or (self._url is not None and not _same_port(self._url, address_of(found.arguments))):
            return None
        # Not its arguments: they may hold an API key.
        logger.info("found the server: process %d, %s", found.pid, address_of(found.arguments) or "without an address")
        return found

    def serves(self) -> bool | None:
        """Whether it answers; None, that is, nothing to ask, also as long as it has not been found."""
        url = self._url
        if url is None and self._process is not None:
            url = address_of(self._process.arguments)
        if url is None:
            return None
        self._answered = serves(url)
        return self._answered

    def environment(self) -> Mapping[str, str]:
        return environment_of(self._process.pid) if self._process is not None else {}

    def started_ns(self) -> int | None:
        """That of this process, a little before the server's as a rule, if the server's is not known."""
        process = self._process or read(os.getpid())
        return process.started_ns() if process is not None else None


def _same_port(url: str, other: str | None) -> bool:
    try:
        return other is not None and urlsplit(url).port == urlsplit(other).port
    except ValueError:
        return False


def serves(url: str) -> bool:
    """Whether a server answers at ``url`` as one that is ready. Takes 2 s at most; never raises.

    A refusal for want of a key (401, 403) is an answer too. The limit is for all of it: a server that answers byte by
    byte, a name with many addresses or a slow resolver does not take longer.
    """
    answers: list[bool] = []
    connections: list[http.client.HTTPConnection] = []
    thread = threading.Thread(
        target=lambda: answers.append(_answers(url, connections)), name="b10-transfer-probe", daemon=True
    )
    try:
        thread.start()
    except RuntimeError:  # the system starts no more threads
        return False
    thread.join(_PROBE_TIMEOUT_S)
    if not thread.is_alive():
        return answers == [True]
    for connection in connections:
        with suppress(OSError, AttributeError):  # the thread's read ends at once; or there is no connection yet
            connection.sock.shutdown(socket.SHUT_RDWR)
    return False


def _answers(url: str, connections: list[http.client.HTTPConnection]) -> bool:
    # Imported here: an idle command needs none of it.
    import http.client

    try:
        parts = urlsplit(url)
        if parts.scheme == "https":
            import ssl

            # Whether it serves is asked of this machine's own server; whose certificate it has does not matter.
            context = ssl._create_unverified_context()
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                parts.hostname or "", parts.port, timeout=_PROBE_TIMEOUT_S, context=context
            )
        else:
            connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=_PROBE_TIMEOUT_S)
        connections.append(connection)
        try:
            connection.request("GET", re.sub(r"^$", "/", parts.path) + (f"?{parts.query}" if parts.query else ""))
            status = connection.getresponse().status
        finally:
            connection.close()
    except (OSError, http.client.HTTPException, ValueError, AttributeError):
        return False
    return status < 300 or status in (401, 403)
