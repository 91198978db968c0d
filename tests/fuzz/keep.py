"""Keep of many inputs those that reach what no smaller one does: ``python -m tests.fuzz.keep TARGET FROM… TO``.

What is reached are pairs of successive lines of this package. The inputs that TO holds are taken into account.
"""

from __future__ import annotations

import hashlib
import logging
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import b10_transfer

from . import seeds, targets

_PACKAGE = str(Path(b10_transfer.__file__).parent)
_MOST_BYTES = 4096
Step = tuple[str, int, int]


def main() -> None:
    name, *sources, kept = sys.argv[1:]
    logging.disable()
    seeds.packs()
    found = [
        path for folder in (*sources, kept) for path in Path(folder).iterdir() if path.stat().st_size < _MOST_BYTES
    ]
    inputs = {path.read_bytes() for path in found}
    chosen: dict[str, bytes] = {}
    reached: set[Step] = set()
    for data in sorted(inputs, key=lambda data: (len(data), data)):
        steps = steps_of(targets.TARGETS[name], data)
        if steps - reached:
            reached |= steps
            chosen[hashlib.sha256(data).hexdigest()[:16]] = data
    for path in Path(kept).iterdir():
        path.unlink()
    for digest, data in chosen.items():
        (Path(kept) / digest).write_bytes(data)
    print(f"{len(chosen)} of {len(inputs)} inputs, {sum(map(len, chosen.values()))} bytes, {len(reached)} steps")


def steps_of(target: Callable[[bytes], None], data: bytes) -> set[Step]:
    """What an input reaches, in whatever thread."""
    reached: set[Step] = set()

    def trace(frame: FrameType, _event: str, _argument: Any) -> Any:
        file = frame.f_code.co_filename
        if not file.startswith(_PACKAGE):
            return None
        last = frame.f_lineno

        def step(frame: FrameType, _event: str, _argument: Any) -> Any:
            nonlocal last
            reached.add((file, last, frame.f_lineno))
            last = frame.f_lineno
            return step

        return step

    threading.settrace(trace)
    sys.settrace(trace)
    try:
        target(data)
    finally:
        sys.settrace(None)
        threading.settrace(None)
    return reached


if __name__ == "__main__":
    main()
