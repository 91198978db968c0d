"""What a server is to the launcher, in a small program: it compiles, listens, answers, and ends when it is told to.

Arguments as ``vllm serve MODEL --port N`` has them; a link named ``vllm`` to this file makes it look like one.
``FAKE_COMPILES``: units it "compiles" before it serves, unless they are in its cache; those it finds, it reads.
``FAKE_START_S``: how long its start takes. SIGUSR1 makes it compile one unit more. It ends on SIGTERM with
``FAKE_EXIT``. It notes what happens to it, with the time, in the file ``FAKE_LOG``.
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


def main() -> None:
    note("started", arguments=sys.argv, pid=os.getpid(), parent=os.getppid(), blocked=len(signal.pthread_sigmask(0, [])))
    late = iter(range(1000))
    stopping = threading.Event()
    signal.signal(signal.SIGUSR1, lambda *_: compile_unit(f"LATE{next(late)}"))

    def stop(received: int, _frame: object) -> None:
        note("signal", number=received)
        if received != signal.SIGUSR2:
            stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2):
        signal.signal(number, stop)
    stopping.wait(float(os.environ.get("FAKE_START_S", "0")))
    for kernel in range(int(os.environ.get("FAKE_COMPILES", "2"))):
        compile_unit(f"KERNEL{kernel}")
    if "--port" in sys.argv:
        port = int(sys.argv[sys.argv.index("--port") + 1])
        server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        note("serves")
    while not stopping.wait(0.05):
        if os.environ.get("FAKE_ENDS") == "1":
            break
    note("ends")
    sys.exit(int(os.environ.get("FAKE_EXIT", "0")))


if __name__ == "__main__":
    main()
