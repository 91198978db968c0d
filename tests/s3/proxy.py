"""An HTTP proxy between a client and the gateway that does to requests what networks and busy services do.

What happens to a request is decided by a rule, a function of the request; without one everything is passed on. One
request for each connection, so that nothing depends on what came before.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

_BLOCK_BYTES = 64 * 1024
_ERROR = '<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>injected</Message></Error>'


@dataclass(frozen=True)
class Request:
    """What a rule decides by."""

    number: int
    """Counted from 1, over all connections."""
    method: str
    path: str
    """With its query."""
    headers: tuple[str, ...]
    """Lines, as they came."""

    @property
    def body_bytes(self) -> int:
        for line in self.headers:
            name, _, value = line.partition(":")
            if name.lower() == "content-length":
                return int(value)
        return 0

    @property
    def is_conditional(self) -> bool:
        return any(line.lower().startswith("if-none-match:") for line in self.headers)


@dataclass(frozen=True)
class Pass:
    """Pass the request on, and the answer back."""

    without_headers: tuple[str, ...] = ()
    """Names, in lower case, of headers that are dropped."""
    with_headers: tuple[str, ...] = ()
    """Lines that are added."""
    body_bytes: int | None = None
    """After so much of the request's body: call ``then``, and cut the connection."""
    answer_bytes: int | None = None
    """After so much of the answer's head and body: call ``then``, and cut the connection."""
    then: Callable[[], object] = lambda: None


@dataclass(frozen=True)
class Answer:
    """Answer for the gateway, which sees nothing of the request."""

    status: str
    code: str


@dataclass(frozen=True)
class Reset:
    """Take the request and cut the connection."""


Rule = Callable[[Request], Pass | Answer | Reset]
SLOW_DOWN = Answer("503 Slow Down", "SlowDown")


class Proxy:
    """Listens on a port of its own on loopback. Use it as a context manager."""

    def __init__(self, port: int) -> None:
        self._upstream = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self._lock = threading.Lock()
        self.requests: list[Request] = []
        self.rule: Rule = lambda request: Pass()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Proxy:
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()
        return self

    def __exit__(self, *_: object) -> None:
        # Closing alone would leave the thread in accept() and the port open; interrupted, it might then go on with
        # whatever has got the same descriptor since, such as the listener of the next proxy.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join()
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):  # closed
            while True:
                client, _address = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError):  # whichever side goes away ends it for both
            client.settimeout(60)
            head, rest = _read_head(client)
            if not head:
                return
            first, *headers = head.decode("latin-1").split("\r\n")
            method, path, _version = first.split(" ")
            with self._lock:
                request = Request(len(self.requests) + 1, method, path, tuple(headers))
                self.requests.append(request)
                action = self.rule(request)
            if isinstance(action, Pass):
                self._pass(client, request, rest, action)
                return
            _copy(client, None, request.body_bytes - len(rest))
            if isinstance(action, Reset):
                _cut(client)
                return
            body = _ERROR.format(code=action.code)
            lines = f"Content-Length: {len(body)}\r\nContent-Type: application/xml\r\nConnection: close"
            client.sendall(f"HTTP/1.1 {action.status}\r\n{lines}\r\n\r\n{body}".encode())

    def _pass(self, client: socket.socket, request: Request, rest: bytes, action: Pass) -> None:
        dropped = {"connection", *action.without_headers}
        kept = [line for line in request.headers if line.partition(":")[0].lower() not in dropped]
        kept += [*action.with_headers, "Connection: close"]
        lines = [f"{request.method} {request.path} HTTP/1.1", *kept, "", ""]
        try:
            gateway = socket.create_connection(self._upstream, timeout=60)
        except OSError:
            _cut(client)
            return
        with gateway:
            try:
                gateway.sendall("\r\n".join(lines).encode("latin-1"))
                if action.body_bytes is not None:
                    gateway.sendall(rest[: action.body_bytes])
                    _copy(client, gateway, action.body_bytes - len(rest))
                else:
                    gateway.sendall(rest)
                    _copy(client, gateway, request.body_bytes - len(rest))
                    _copy(gateway, client, action.answer_bytes)
                    if action.answer_bytes is None:
                        return
            except OSError:
                _cut(client)
                return
            action.then()
            _cut(client)


def _read_head(connection: socket.socket) -> tuple[bytes, bytes]:
    """A request's head, without the empty line at its end, and what came of the body with it."""
    data = b""
    while b"\r\n\r\n" not in data:
        block = connection.recv(_BLOCK_BYTES)
        if not block:
            return b"", b""
        data += block
    head, _, rest = data.partition(b"\r\n\r\n")
    return head, rest


def _copy(source: socket.socket, target: socket.socket | None, size: int | None) -> None:
    """Pass so many bytes on, or all until the end; to nobody without a target."""
    while size is None or size > 0:
        block = source.recv(_BLOCK_BYTES if size is None else min(size, _BLOCK_BYTES))
        if not block:
            return
        if target is not None:
            target.sendall(block)
        if size is not None:
            size -= len(block)


def _cut(connection: socket.socket) -> None:
    """Have the other side see a reset, not an end."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
