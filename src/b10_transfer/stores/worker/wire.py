"""Messages between a process and its store worker: a header and a payload, each framed by its length.

Headers are marshalled: both ends run the same interpreter, and ``marshal`` is there without an import that costs.
"""

from __future__ import annotations

import marshal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    class Connection(Protocol):
        """The part of a socket that is used here."""

        def sendall(self, data: bytes | bytearray | memoryview, /) -> None: ...
        def recv_into(self, buffer: memoryview, /) -> int: ...


def send(connection: Connection, header: dict[str, Any], *payload: bytes | bytearray | memoryview) -> None:
    """Send one message. Raises OSError (TimeoutError among them) if the other side does not take it."""
    encoded = marshal.dumps(header)
    size = sum(len(part) for part in payload)
    connection.sendall(len(encoded).to_bytes(4, "big") + size.to_bytes(4, "big") + encoded)
    for part in payload:
        connection.sendall(part)


def receive(connection: Connection) -> tuple[dict[str, Any], bytearray] | None:
    """The next message, or None if the other side has closed the connection."""
    lengths = _receive_exactly(connection, 8)
    if lengths is None:
        return None
    header = _receive_exactly(connection, int.from_bytes(lengths[:4], "big"))
    payload = _receive_exactly(connection, int.from_bytes(lengths[4:], "big"))
    if header is None or payload is None:
        return None
    return marshal.loads(header), payload


def _receive_exactly(connection: Connection, size: int) -> bytearray | None:
    data = bytearray(size)
    view = memoryview(data)
    while view:
        received = connection.recv_into(view)
        if not received:
            return None
        view = view[received:]
    return data
