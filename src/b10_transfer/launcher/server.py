"""The server: its process, its address, and whether it runs and serves."""

from __future__ import annotations

import logging
import os
import re
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from ..config.launcher import LauncherConfig
from ..environment import command_line
from ..local.supervision import Supervision
from .processtable import Process, environment_of, processes, read

if TYPE_CHECKING:
    import http.client

logger = logging.getLogger(__name__)

_PROBE_TIMEOUT_S = 2.0
_SILENCES = 3
_READY_PATH = "/v1/models"
"""Answered by vLLM's and SGLang's servers once a model is loaded and compiled."""


class Server(Protocol):
    """The facts about a server that concern its caches."""

    def is_alive(self) -> bool:
        """Whether it may still compile."""

    def serves(self) -> bool | None:
        """Whether it is ready; None if it cannot be queried."""

    def environment(self) -> Mapping[str, str]:
        """The variables that it was started with; empty if they are not known."""

    def started_ns(self) -> int | None:
        """Its start in nanoseconds since the epoch; None if that is not known, or if it was not before the load."""


def address_of(arguments: Sequence[str]) -> str | None:
    """The URL of a server that was started with these arguments; None if the program is no known server.

    Known servers are ``vllm serve``, ``python -m vllm.entrypoints.openai.api_server`` and
    ``python -m sglang.launch_server``.
    """
    port = _default_port(arguments)
    if port is None or "--headless" in arguments or _option(arguments, "--uds") is not None:
        return None
    host = _option(arguments, "--host") or "127.0.0.1"
    # A server may listen on an address to which nobody can connect.
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


def note_arguments(arguments: Sequence[str]) -> None:
    """Record the server's command line for saves, and warn of options that make the caches useless."""
    command_line.record(arguments)
    if "--enforce-eager" in arguments:
        logger.warning("--enforce-eager: vLLM compiles no graphs, so it uses none that are restored")


def find_external_server(*, anywhere: bool = True) -> Process | None:
    """Find the nearest known server of this user.

    It is an ancestor of this process, else its latest sibling, else the latest in its session. In a shell script,
    ``b10-compile-cache & vllm serve`` makes them siblings. So does a process manager that starts each program in a
    session of its own. If the shell replaces itself with the server, the server is the parent.

    Args:
        anywhere: Whether the user's only server is taken if none is that near. Default: true.
    """
    everyone = {process.pid: process for process in processes()}
    ours = ancestors(os.getpid(), everyone)
    known = {pid for pid, process in everyone.items() if _default_port(process.arguments) is not None}
    # Forked workers have the arguments of the server, which is the topmost of these processes.
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
        """Always true: this process, its parent, notices its end."""
        return True

    def serves(self) -> bool | None:
        return None if self._url is None else serves(self._url)

    def environment(self) -> Mapping[str, str]:
        """Empty: it has the environment of this process."""
        return {}

    def started_ns(self) -> int | None:
        """None: it starts after the load, or during it."""
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
        """Whether it runs, or may still start.

        If no process was found, it counts as ended after three requests without an answer. If it never answered, it
        may be any program: it counts as alive as long as the parent of this process lives, and at least for
        ``timeout_s``.
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
        # At first only near processes count: another server of this machine may run, and the right one start soon.
        if self._near_until is None:
            self._near_until = time.monotonic() + self._quiet_s
        found = find_external_server(anywhere=time.monotonic() >= self._near_until)
        # If a URL is configured, only a process at that port is the server.
        if found is None or (self._url is not None and not _same_port(self._url, address_of(found.arguments))):
            return None
        note_arguments(found.arguments)
        # Its arguments are not logged: they may hold an API key.
        logger.info("found the server: process %d, %s", found.pid, address_of(found.arguments) or "without an address")
        return found

    def serves(self) -> bool | None:
        """Whether it answers; None if its address is not known, for example because it was not found yet."""
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
        """The start of the server, or of this process if the server's is not known: mostly a little earlier."""
        process = self._process or read(os.getpid())
        return process.started_ns() if process is not None else None


class Programs:
    """The programs of a set of caches. Each of them has restored for itself."""

    def __init__(self, supervision: Supervision) -> None:
        self._supervision = supervision

    def is_alive(self) -> bool:
        """Whether any of them, or a process that one has forked, is alive."""
        return self._supervision.has_programs()

    def serves(self) -> bool | None:
        return None

    def environment(self) -> Mapping[str, str]:
        """Empty: they have the environment of this process."""
        return {}

    def started_ns(self) -> int | None:
        return None


def _same_port(url: str, other: str | None) -> bool:
    try:
        return other is not None and urlsplit(url).port == urlsplit(other).port
    except ValueError:
        return False


def serves(url: str) -> bool:
    """Whether a server at ``url`` answers that it is ready. Takes 2 s at most; never raises.

    A request that is refused for lack of a key (401, 403) is answered, too. The limit holds for the whole request: also
    if the server answers byte by byte, the name has many addresses, or the resolver is slow.
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
    # Imported here: an idle command does not need it.
    import http.client

    try:
        parts = urlsplit(url)
        if parts.scheme == "https":
            import ssl

            # The request only asks a server of this machine whether it is ready, so its certificate does not matter.
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
