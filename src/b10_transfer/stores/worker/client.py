"""A store whose I/O happens in a process of its own, so that nothing can hang the caller.

A system call into a hung mount cannot be abandoned from within a process. Once a FUSE server has read a request, the
kernel waits for its answer even against SIGKILL (``request_wait_answer`` in ``fs/fuse/dev.c``), so a process with a
thread in such a call cannot even exit. Hence this process never touches the store: a worker does, spawned for one
operation, and the deadline is kept by waiting for a socket. A worker that is stuck is left behind.

The worker costs some 12 ms, nearly all of it the start of a bare interpreter. For a bucket it is not a choice, because
obstore's runtime does not survive a fork, and servers fork; it costs some 40 ms.
"""

from __future__ import annotations

import errno
import mmap
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...concurrency.deadline import Deadline
from ...concurrency.forks import ForkGuard
from ...config import PluginUrl
from ...environment.interpreter import startable_python
from ...errors import MORE_PROCESSES, CacheError, ReadOnlyStoreError, StoreError
from .. import traffic
from ..base import BorrowedBuffer, ObjectInfo, ObjectReader, Store, StoreFacts
from ..directory import DirectoryStore
from ..locality import is_local
from .wire import receive, send

if TYPE_CHECKING:
    from ..base import Source

_PART_BYTES = 1024 * 1024
_SLOT_BYTES = 4 * 1024 * 1024
"""A pack's frames are smaller, unless their content hardly compresses."""
_SLOTS = 4
_starting = ForkGuard()
"""Held while a worker is started. A process forked by another thread in that moment would inherit the worker's end of
the connection and the pipe on which ``subprocess`` waits for it, and this process would wait for that one's end."""
_PROGRAM = (
    "import sys; sys.path += sys.argv.pop(1).split(':'); from b10_transfer.stores.worker.server import main; main()"
)


@contextmanager
def directory_store(path: Path, *, make_parents: bool, deadline: Deadline) -> Iterator[Store]:
    """The store in a directory, in a worker process if its file system has a server that may hang.

    A local one is used directly, which saves some 12 ms. So is any other where no interpreter can be started (an
    embedded one): the deadline holds there too, only the exit of the process may wait for a call that hangs.
    """
    python = None if is_local(str(path)) else startable_python()
    if python is None:
        yield DirectoryStore(path, make_parents=make_parents)
        return
    # It needs the standard library alone.
    arguments = ["directory", str(path), "1" if make_parents else "0"]
    with closing(WorkerStore(python, str(path), arguments, deadline)) as store:
        yield store


@contextmanager
def bucket_store(url: str, *, deadline: Deadline) -> Iterator[Store]:
    """The store in a bucket. Raises StoreError where obstore is missing or no interpreter can be started."""
    found = find_spec("obstore")
    if found is None or found.origin is None:
        raise StoreError("reach", url, "buckets need the package obstore: pip install 'b10-transfer[cloud]'")
    python = startable_python()
    if python is None:
        raise StoreError("reach", url, f"no interpreter can be started for it ({sys.executable or 'none is known'})")
    arguments = ["bucket", url, f"{deadline.remaining_s:.3f}"]
    packages = [os.path.dirname(os.path.dirname(found.origin))]
    with closing(WorkerStore(python, url, arguments, deadline, packages)) as store:
        yield store


@contextmanager
def plugin_store(url: PluginUrl, *, deadline: Deadline) -> Iterator[Store]:
    """The store that another package adds. Raises StoreError if no interpreter can be started.

    The worker imports the package: it may hang, crash or write to standard output without harm to this process.
    """
    python = startable_python()
    if python is None:
        raise StoreError("reach", url, f"no interpreter can be started for it ({sys.executable or 'none is known'})")
    arguments = ["plugin", url, f"{deadline.remaining_s:.3f}", url.plugin.value, url.plugin.package]
    packages = [os.path.abspath(folder) for folder in sys.path]
    # Not without site: an editable install is found through its .pth file.
    with closing(WorkerStore(python, url, arguments, deadline, packages, ("-I",))) as store:
        yield store


class WorkerStore(Store):
    """Forwards the contract to a worker process, which is started at once. Raises when the deadline has passed."""

    def __init__(
        self,
        python: str,
        location: str,
        arguments: Sequence[str],
        deadline: Deadline,
        packages: Sequence[str] = (),
        options: Sequence[str] = ("-I", "-S"),
    ) -> None:
        self.location = location
        self._deadline = deadline
        self._lock = threading.Lock()
        self._memory = _SharedMemory()
        with _starting:
            # By default isolated, and without looking for site-packages.
            self._start([python, *options], arguments, packages)

    def _start(self, interpreter: Sequence[str], arguments: Sequence[str], packages: Sequence[str]) -> None:
        self._connection, theirs = socket.socketpair()
        for end in (self._connection, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _PART_BYTES)
        modules = ":".join([str(Path(__file__).resolve().parents[3]), *packages])
        with theirs, self._memory.handed_over() as memory:
            try:
                self._process = subprocess.Popen(
                    [*interpreter, "-c", _PROGRAM, modules, str(memory), *arguments],
                    stdin=theirs.fileno(),
                    pass_fds=[memory] if memory >= 0 else [],
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    cwd="/",
                    # Ctrl-C is for this process to handle.
                    start_new_session=True,
                )
            except OSError as error:
                self._connection.close()
                advice = f"; {MORE_PROCESSES}" if error.errno == errno.EAGAIN else ""
                raise StoreError(
                    "reach", self.location, f"no worker process could be started ({error}){advice}"
                ) from error

    def close(self) -> None:
        """End the worker. One that hangs in a system call is left behind, for the kernel to end when it can."""
        # Shut down, not only closed: a process forked meanwhile has the same socket.
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()
        self._process.kill()
        # Not waited for here: it may hang, and an operation is over when its work is.
        with suppress(RuntimeError):  # the system starts no more threads: the end of this process reaps it
            threading.Thread(target=self._process.wait, name="b10-transfer-reaper", daemon=True).start()

    def folders(self, folder: str) -> list[str]:
        answer, _ = self._ask({"do": "folders", "folder": folder})
        return [str(name) for name in answer["folders"]]

    def list(self, folder: str) -> list[ObjectInfo]:
        answer, _ = self._ask({"do": "list", "folder": folder})
        return [ObjectInfo(*fields) for fields in answer["objects"]]

    def list_each(self, folders: Sequence[str]) -> Sequence[Sequence[ObjectInfo]]:
        answer, _ = self._ask({"do": "list_each", "folders": list(folders)})
        return [[ObjectInfo(*fields) for fields in objects] for objects in answer["objects"]]

    def facts(self) -> StoreFacts:
        answer, _ = self._ask({"do": "facts"})
        return StoreFacts(**answer)

    def expect(self, names: Sequence[str]) -> None:
        self._ask({"do": "expect", "names": list(names)})

    def open(self, name: str) -> ObjectReader | None:
        answer, _ = self._ask({"do": "open", "name": name})
        return None if answer["reader"] is None else _WorkerReader(self, answer["reader"], answer["size"])

    def create(self, name: str, source: Source) -> bool:
        answer, _ = self._ask({"do": "create", "name": name}, source)
        return bool(answer["created"])

    def delete(self, name: str) -> bool:
        answer, _ = self._ask({"do": "delete", "name": name})
        return bool(answer["deleted"])

    def now(self) -> float:
        answer, _ = self._ask({"do": "now"})
        return float(answer["now"])

    def remove_abandoned(self, older_than_s: float) -> int:
        answer, _ = self._ask({"do": "clean", "older_than_s": older_than_s})
        return int(answer["removed"])

    def borrow(self, number: int | None, offset: int, length: int) -> BorrowedBuffer:
        """A part of an open object in the memory that both processes share; by the connection if that is in use."""
        request = {"do": "read", "reader": number, "offset": offset, "length": length}
        slot = self._memory.slot(length)
        if slot is None:
            return BorrowedBuffer(self._ask(request)[1])
        self._ask({**request, "at": slot})  # where this fails the slot is not used again: it may yet be written to
        return self._memory.borrowed(slot, length)

    def _ask(self, request: dict[str, Any], body: Source | None = None) -> tuple[dict[str, Any], bytearray]:
        """One request and its answer. Raises StoreError, or DeadlineExceededError."""
        if not self._lock.acquire(timeout=self._deadline.remaining_s):
            raise self._deadline.error()
        try:
            self._send(request)
            if body is not None:
                self._send_body(body)
            answer = self._receive()
        finally:
            self._lock.release()
        if "error" in answer[0]:
            raise (ReadOnlyStoreError if answer[0].get("read_only") else StoreError)(*answer[0]["error"])
        return answer

    def _send_body(self, body: Source) -> None:
        try:
            while part := body.read(_PART_BYTES):
                self._send({"part": "more"}, part)
        except CacheError:
            raise
        except BaseException:  # the source's: the worker is still waiting for the rest
            self._send({"part": "abort"})
            self._receive()
            raise
        self._send({"part": "end"})

    def _send(self, header: dict[str, Any], payload: bytes | bytearray = b"") -> None:
        with self._connected():
            send(self._connection, header, payload)

    def _receive(self) -> tuple[dict[str, Any], bytearray]:
        with self._connected():
            answer = receive(self._connection)
        if answer is None:
            raise StoreError("reach", self.location, "the worker process ended unexpectedly")
        if taken := answer[0].pop("traffic", None):
            traffic.total.add(*taken)
        return answer

    @contextmanager
    def _connected(self) -> Iterator[None]:
        """Keep the deadline, and say whose error it is."""
        self._deadline.check()
        try:
            self._connection.settimeout(self._deadline.remaining_s or 0.001)
            yield
        except TimeoutError as error:
            self._deadline.cancel()  # the connection is out of step: no more requests are possible
            raise self._deadline.error() from error
        except OSError as error:
            raise StoreError("reach", self.location, f"the worker process ended ({error})") from error


class _SharedMemory:
    """Memory that the worker writes what it has read into: half as much work as sending it."""

    def __init__(self) -> None:
        self._free: list[int] = []
        self._cleanup = ExitStack()
        self._descriptor = -1
        with suppress(OSError, AttributeError), ExitStack() as cleanup:  # without it (on Linux it is), all is sent
            descriptor = os.memfd_create("b10-transfer")
            cleanup.callback(os.close, descriptor)
            os.ftruncate(descriptor, _SLOTS * _SLOT_BYTES)
            self._view = memoryview(mmap.mmap(descriptor, _SLOTS * _SLOT_BYTES))
            self._free = [number * _SLOT_BYTES for number in range(_SLOTS)]
            self._descriptor = descriptor
            self._cleanup = cleanup.pop_all()

    @contextmanager
    def handed_over(self) -> Iterator[int]:
        """A descriptor of it for the worker, or -1. This process needs it no longer."""
        with self._cleanup:
            yield self._descriptor

    def slot(self, length: int) -> int | None:
        """A place with room for so many bytes; None if there is none."""
        with suppress(IndexError):  # another thread may take the last one
            return self._free.pop() if length <= _SLOT_BYTES else None
        return None

    def borrowed(self, slot: int, length: int) -> BorrowedBuffer:
        """The content of a slot; the slot is free again when the context ends."""
        return _BorrowedSlot(self._view[slot : slot + length], self._free, slot)


class _BorrowedSlot(BorrowedBuffer):
    __slots__ = ("_free", "_slot")

    def __init__(self, data: memoryview, free: list[int], slot: int) -> None:
        super().__init__(data)
        self._free = free
        self._slot = slot

    def __exit__(self, *_: object) -> None:
        self._free.append(self._slot)


class _WorkerReader(ObjectReader):
    def __init__(self, store: WorkerStore, number: int, size_bytes: int) -> None:
        self._store = store
        self._number: int | None = number
        self.size_bytes = size_bytes

    def read_at(self, offset: int, length: int) -> bytearray:
        return self._store._ask({"do": "read", "reader": self._number, "offset": offset, "length": length})[1]

    def borrow_at(self, offset: int, length: int) -> BorrowedBuffer:
        return self._store.borrow(self._number, offset, length)

    def close(self) -> None:
        if self._number is not None:
            number, self._number = self._number, None
            with suppress(StoreError):  # the worker may be gone, and the reader with it
                self._store._ask({"do": "close", "reader": number})
