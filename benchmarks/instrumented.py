"""One load of b10_transfer in this process, with the work of each of its steps measured. Prints a line of JSON.

Steps are told apart from outside, by wrapping functions of the package; it knows nothing of this. Their work is CPU
time of their threads: two threads work at the same time, so that seconds of a clock would count some moments twice.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs as a script

from benchmarks.stopwatch import Stopwatch

STEPS = ("environment", "list", "index", "fetch", "verify", "decompress", "place", "rest")


def main() -> None:
    watch = Stopwatch(time.thread_time)
    before = time.perf_counter()
    from b10_transfer import load
    from b10_transfer.local import restore, writing
    from b10_transfer.operations import load as loading
    from b10_transfer.pack import reader
    from b10_transfer.repository.repository import ReadRepository
    from b10_transfer.stores import directory

    import_seconds = time.perf_counter() - before
    watch.watch(loading, "detect", "environment")
    watch.watch(loading, "cache_roots", "environment")
    watch.watch(ReadRepository, "look", "list")
    watch.watch(ReadRepository, "_read_once", "index")
    watch.watch(directory._FileReader, "read_at", "fetch")
    digests = SimpleNamespace(sha256=hashlib.sha256)  # the reader's own use of it, nobody else's
    watch.watch(digests, "sha256", "verify")
    setattr(reader, "hashlib", digests)  # noqa: B010 - a module's own name for another module
    watch.watch(reader, "unpack_into", "decompress")
    watch.watch(restore, "stage", "place")
    watch.watch(writing._Writer, "write", "place")  # in two threads, where a processor is idle
    watch.watch(restore, "place", "place")
    # What the placing thread does to get the content is not placing.
    watch.watch_iterator(reader.PackReader, "read_slices", "rest")
    work_before, began = time.process_time(), time.perf_counter()
    report = load()
    elapsed = time.perf_counter() - began
    work = time.process_time() - work_before
    steps = {step: watch.seconds.get(step, 0.0) for step in STEPS}
    steps["rest"] = work - sum(seconds for step, seconds in steps.items() if step != "rest")
    print(
        json.dumps(
            {
                "status": report.status.name,
                "elapsed_seconds": elapsed,
                "import_seconds": import_seconds,
                "steps": steps,
                "packed_bytes": report.packed_bytes,
            }
        )
    )


if __name__ == "__main__":
    main()
