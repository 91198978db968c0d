"""Messages between a process and its store worker: a JSON header and a payload, each framed by its length."""

from __future__ import annotations

import json
import socket
import struct
from typing import Any

_LENGTHS = struct.Struct(">II")


def send(connection: socket.socket, header: dict[str, Any], payload: bytes | memoryview = b"") -> None:
    """Send one message. Raises OSError (TimeoutError among them) if the other side does not take it."""
    encoded = json.dumps(header).encode()
    connection.sendall(_LENGTHS.pack(len(encoded), len(payload)) + encoded)
    if payload:
        connection.sendall(payload)


def receive(connection: socket.socket) -> tuple[dict[str, Any], bytes] | None:
    """The next message, or None if the other side has closed the connection."""
    lengths = _receive_exactly(connection, _LENGTHS.size)
    if lengths is None:
        return None
    header_bytes, payload_bytes = _LENGTHS.unpack(lengths)
    header = _receive_exactly(connection, header_bytes)
    payload = _receive_exactly(connection, payload_bytes)
    if header is None or payload is None:
        return None
    return json.loads(header), payload


def _receive_exactly(connection: socket.socket, size: int) -> bytes | None:
    if not size:
        return b""
    data = bytearray(size)
    view = memoryview(data)
    while view:
        received = connection.recv_into(view)
        if not received:
            return None
        view = view[received:]
    return bytes(data)
