"""Fuzz one target with atheris (libFuzzer): ``python -m tests.fuzz.engine TARGET CORPUS… [libFuzzer's options]``.

atheris sees which lines an input reaches and keeps those that reach new ones in the first folder CORPUS; what finds
something wrong is written to ``crash-…`` or ``timeout-…``. ``make fuzz`` runs it.
"""

from __future__ import annotations

import logging
import random
import resource
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["b10_transfer"]):
    from . import hostile_stores, mutator, seeds, targets

_MOST_MEMORY_BYTES = 1 << 30
"""Of address space, on top of what the interpreter has at first: no input has more to ask for."""


def main() -> None:
    name, *rest = sys.argv[1:]
    options = [argument for argument in rest if argument.startswith("-")]
    folders = [argument for argument in rest if not argument.startswith("-")]
    inputs = {
        "pack": seeds.packs,
        "signature": seeds.signatures,
        "settings": seeds.settings,
        "commands": hostile_stores.inputs,
    }[name]()
    started_with = Path(tempfile.mkdtemp(prefix="seeds-"))
    for number, data in enumerate(inputs):
        (started_with / f"seed-{number}").write_bytes(data)
    extras: dict[str, dict[str, Callable[..., bytes]]] = {
        "pack": {"custom_mutator": _mutator(mutator.mutate), "custom_crossover": _cross},
        "signature": {"custom_mutator": _mutator(mutator.mutate_signature)},
        "settings": {},
        "commands": {},
    }
    options = ["-timeout=20", f"-max_len={mutator.MOST_BYTES}", "-rss_limit_mb=2048", *options]
    logging.disable()
    atheris.Setup([sys.argv[0], *options, *folders, str(started_with)], targets.TARGETS[name], **extras[name])
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + _MOST_MEMORY_BYTES,) * 2)
    atheris.Fuzz()


def _mutator(mutate: Callable[..., bytes]) -> Callable[[bytes, int, int], bytes]:
    def mutate_at_most(data: bytes, max_size: int, seed: int) -> bytes:
        result = mutate(data, random.Random(seed), lambda part, _rng: bytes(atheris.Mutate(part, max_size)))
        return result if len(result) <= max_size else data[:max_size]

    return mutate_at_most


def _cross(one: bytes, other: bytes, max_size: int, seed: int) -> bytes:
    result = mutator.crossed(one, other, random.Random(seed))
    return result if len(result) <= max_size else one[:max_size]


if __name__ == "__main__":
    main()
