"""One load in this process, with the CPU time of each of its steps. Prints JSON.

Wraps the store contract and a few functions of the package, wherever they are imported. A step counts CPU time and not
elapsed time, because two threads work at once.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs as a script

from benchmarks.stopwatch import Stopwatch

STEPS = ("environment", "list", "index", "fetch", "verify", "decompress", "place", "rest")
LISTING, READING = ("folders", "list", "list_each"), ("read_at", "reread_at", "borrow_at", "views_at")


def replace_everywhere(function: Callable[..., Any], wrapped: Callable[..., Any]) -> None:
    """Replace a function in every module of the package that has imported it."""
    for name, module in list(sys.modules.items()):
        if name.startswith("b10_transfer"):
            for attribute, value in list(vars(module).items()):
                if value is function:
                    setattr(module, attribute, wrapped)


def watch_methods(watch: Stopwatch, owner: type, names: tuple[str, ...], step: str) -> None:
    """Count methods of a class and of its subclasses."""
    for subclass in (owner, *owner.__subclasses__()):
        for name in names:
            if name in vars(subclass):
                setattr(subclass, name, watch.counted(vars(subclass)[name], step))


def main() -> None:
    watch = Stopwatch(time.thread_time)
    before = time.perf_counter()
    from b10_transfer import load
    from b10_transfer.environment import detect
    from b10_transfer.local.restore import restore
    from b10_transfer.operations import load as _operation  # noqa: F401 - imports all of a load
    from b10_transfer.pack.reader import PackReader
    from b10_transfer.pack.zstd import unpack_into
    from b10_transfer.stores.base import ObjectReader
    from b10_transfer.stores.directory import DirectoryStore

    import_seconds = time.perf_counter() - before
    placing = 0.0

    def timed_restore(*arguments: Any, **named: Any) -> Any:
        nonlocal placing
        work, counted = time.process_time(), sum(watch.seconds.values())
        try:
            return restore(*arguments, **named)
        finally:  # all that its threads did, except the other steps
            placing += (time.process_time() - work) - (sum(watch.seconds.values()) - counted)

    replace_everywhere(detect, watch.counted(detect, "environment"))
    replace_everywhere(unpack_into, watch.counted(unpack_into, "decompress"))
    replace_everywhere(restore, timed_restore)
    watch_methods(watch, DirectoryStore, LISTING, "list")
    watch_methods(watch, ObjectReader, READING, "fetch")
    watch_methods(watch, PackReader, ("read_index",), "index")
    hashlib.sha256 = watch.counted(hashlib.sha256, "verify")
    work, began = time.process_time(), time.perf_counter()
    report = load()
    seconds, work = time.perf_counter() - began, time.process_time() - work
    steps = {step: watch.seconds.get(step, 0.0) for step in STEPS} | {"place": placing}
    steps["rest"] = work - sum(steps.values())
    answer = {"status": report.status.name, "seconds": seconds, "import_seconds": import_seconds, "steps": steps}
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
