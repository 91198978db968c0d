"""The server beside this process: which process it is, where it answers, whether it lives and serves."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from ..config.launcher import LauncherConfig

logger = logging.getLogger(__name__)

_PROC = Path("/proc")
_PROBE_TIMEOUT_S = 2.0
_SILENCES = 3
_READY_PATH = "/v1/models"
"""Answered by vLLM's and SGLang's servers once a model is loaded and compiled."""


@dataclass(frozen=True)
class Process:
    """A process, told from a later one of the same number by when it started."""

    pid: int
    started: int
    """In clock ticks since boot, from ``/proc/<pid>/stat``."""
    parent: int
    session: int
    arguments: tuple[str, ...]

    def is_alive(self) -> bool:
        """Whether it still runs; a zombie does not."""
        found = _read(self.pid)
        return found is not None and found.started == self.started


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


def find_beside() -> Process | None:
    """The nearest known server of this user: an ancestor of this process, else one of its session, else the only one.

    ``b10-compile-cache & vllm serve`` in a shell script makes them siblings; where the shell replaces itself with the
    server, the server is the parent.
    """
    everyone = {process.pid: process for process in _processes()}
    servers = {
        pid: process
        for pid, process in everyone.items()
        if pid != os.getpid() and _default_port(process.arguments) is not None
    }
    # Its workers, forked, have the same arguments: the server is the one on top.
    servers = {pid: process for pid, process in servers.items() if process.parent not in servers}
    pid = os.getpid()
    while pid in everyone:
        if pid in servers:
            return servers[pid]
        pid = everyone[pid].parent
    beside = [process for process in servers.values() if process.session == os.getsid(0)]
    if beside:
        return max(beside, key=lambda process: process.started)
    return next(iter(servers.values())) if len(servers) == 1 else None


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


class Beside:
    """A server that something else starts, looked for until it is there."""

    def __init__(self, config: LauncherConfig) -> None:
        self._url = config.url
        self._gives_up_at = time.monotonic() + config.timeout_s
        self._process: Process | None = None
        self._answered = False
        self._silences = 0

    def is_alive(self) -> bool:
        """Whether it lives, or may still come. Without a process to watch, three questions without an answer end it."""
        if self._process is None:
            self._process = find_beside()
            if self._process is not None:
                logger.info(
                    "found the server: process %d, %s", self._process.pid, " ".join(self._process.arguments[-3:])
                )
        if self._process is not None:
            return self._process.is_alive()
        if self._answered and self._url is not None:
            self._silences = 0 if serves(self._url) else self._silences + 1
            return self._silences < _SILENCES
        return time.monotonic() < self._gives_up_at

    def serves(self) -> bool | None:
        url = self._url
        if url is None and self._process is not None:
            url = address_of(self._process.arguments)
            if url is None:
                return None
        self._answered = url is not None and serves(url)
        return self._answered

    def environment(self) -> Mapping[str, str]:
        return environment_of(self._process.pid) if self._process is not None else {}


def _processes() -> list[Process]:
    """This user's processes, as far as they can be seen."""
    found = []
    user = os.getuid()
    for name in os.listdir(_PROC):
        if name.isdigit():
            with suppress(OSError):
                if os.stat(_PROC / name).st_uid == user and (process := _read(int(name))) is not None:
                    found.append(process)
    return found


def _read(pid: int) -> Process | None:
    try:
        status = (_PROC / str(pid) / "stat").read_text(errors="replace")
        arguments = (_PROC / str(pid) / "cmdline").read_bytes()
    except OSError:
        return None
    # The name, in parentheses, may hold anything; behind it: state, parent, group, session, … start as the 20th.
    fields = status.rpartition(")")[2].split()
    if fields[0] in "ZX":
        return None
    texts = tuple(os.fsdecode(argument) for argument in arguments.rstrip(b"\0").split(b"\0"))
    return Process(pid, int(fields[19]), int(fields[1]), int(fields[3]), texts)


def environment_of(pid: int) -> dict[str, str]:
    """The environment a process was started with; empty if it may not be read."""
    try:
        entries = os.fsdecode((_PROC / str(pid) / "environ").read_bytes()).split("\0")
    except OSError:
        return {}
    return dict(entry.split("=", 1) for entry in entries if "=" in entry)


def serves(url: str) -> bool:
    """Whether a server answers at ``url`` as one that is ready. Takes 2 s at most; never raises.

    A refusal for want of a key (401, 403) is an answer too.
    """
    # Imported here: an idle command needs none of it.
    import http.client
    import ssl

    try:
        parts = urlsplit(url)
        if parts.scheme == "https":
            # Whether it serves is asked of this machine's own server; whose certificate it has does not matter.
            context = ssl._create_unverified_context()
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                parts.hostname or "", parts.port, timeout=_PROBE_TIMEOUT_S, context=context
            )
        else:
            connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=_PROBE_TIMEOUT_S)
        try:
            connection.request("GET", re.sub(r"^$", "/", parts.path) + (f"?{parts.query}" if parts.query else ""))
            status = connection.getresponse().status
        finally:
            connection.close()
    except (OSError, http.client.HTTPException, ValueError):
        return False
    return status < 300 or status in (401, 403)
