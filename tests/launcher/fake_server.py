"""What a server is to the launcher, in a small program: it compiles, listens, answers, and ends when it is told to.

Arguments as ``vllm serve MODEL --port N`` has them; a link named ``vllm`` to this file makes it look like one.
``FAKE_COMPILES``: units it "compiles" before it serves, unless they are in its cache; those it finds, it reads.
``FAKE_GATE``: a file for which it waits at first; ``FAKE_END_S``: how long its end takes. SIGUSR1 makes it compile one
unit more; SIGUSR2, SIGALRM and SIGRTMIN do nothing. Any other signal ends it, with ``FAKE_EXIT``; ``FAKE_ENDS=1`` does
so at once, ``FAKE_ENDS=kill`` with SIGKILL. ``FAKE_ORPHANS``: children of children it leaves behind before it serves,
which end at once. ``FAKE_WORKER=1``: it forks a process that lives until SIGTERM. It notes what happens to it, with the
time, in the file ``FAKE_LOG``.
"""

from __future__ import annotations

import http.server
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

cache = Path(os.environ["TRITON_CACHE_DIR"])


def note(event: str, **facts: object) -> None:
    with open(os.environ["FAKE_LOG"], "a") as log:
        log.write(json.dumps({"event": event, "time": time.time(), **facts}) + "\n")


def compile_unit(name: str) -> None:
    folder = cache / name
    group = folder / "__grp__kernel.json"
    if group.exists():
        paths = json.loads(group.read_text())["child_paths"].values()
        note("hit", unit=name, bytes=sum(len(Path(path).read_bytes()) for path in paths))
        return
    folder.mkdir(parents=True, exist_ok=True)
    kernel = folder / "kernel.cubin"
    kernel.write_bytes(name.encode() * 100)
    group.write_text(json.dumps({"child_paths": {"kernel.cubin": str(kernel)}}))
    note("compiled", unit=name)


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/v1/models" else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def leave_orphans(count: int) -> None:
    """Each is the child of a child that does not wait for it."""
    for _ in range(count):
        if os.fork() == 0:
            if os.fork() == 0:
                time.sleep(0.1)
            os._exit(0)
        os.wait()


def serve(port: int) -> None:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()


def receive_signals(stopping: list[int]) -> None:
    """Append each number of a signal that stops a server. An Event's lock may be held where a signal arrives."""
    late = iter(range(1000))

    def receive(received: int, _frame: object) -> None:
        if received == signal.SIGUSR1:
            compile_unit(f"LATE{next(late)}")
        note("signal", number=received)  # last: a test may kill this process as soon as it reads it
        if received not in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGRTMIN):
            stopping.append(received)

    for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGRTMIN"):
        signal.signal(getattr(signal, name), receive)


def start_worker() -> None:
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        note("worker", pid=os.getpid())
        signal.pause()


def main() -> None:
    stopping: list[int] = []
    receive_signals(stopping)
    note("started", arguments=sys.argv, pid=os.getpid(), parent=os.getppid(), cached=sorted(os.listdir(cache)))
    if os.environ.get("FAKE_WORKER") == "1":
        start_worker()
    gate = os.environ.get("FAKE_GATE")
    while gate is not None and not os.path.exists(gate) and not stopping:
        time.sleep(0.02)
    for kernel in range(int(os.environ.get("FAKE_COMPILES", "2"))):
        compile_unit(f"KERNEL{kernel}")
    leave_orphans(int(os.environ.get("FAKE_ORPHANS", "0")))
    if "--port" in sys.argv:
        serve(int(sys.argv[sys.argv.index("--port") + 1]))
    note("serves")
    ends = os.environ.get("FAKE_ENDS")
    if ends == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    while not stopping and ends != "1":
        time.sleep(0.05)
    time.sleep(float(os.environ.get("FAKE_END_S", "0")))
    note("ends")
    sys.exit(int(os.environ.get("FAKE_EXIT", "0")))


if __name__ == "__main__":
    cache.mkdir(parents=True, exist_ok=True)
    main()
