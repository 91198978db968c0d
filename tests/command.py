"""Helpers for tests of subcommands: they call the command, and publish packs for it."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from b10_transfer.cli.main import main
from b10_transfer.concurrency.deadline import Deadline
from b10_transfer.environment import Environment, detect
from b10_transfer.repository.repository import Repository
from b10_transfer.stores.directory import DirectoryStore
from tests.conftest import Files, Packs

UNITS: Mapping[str, Files] = {
    "inductor/fxgraph/ke/fkey/": {"graph": b"a graph" * 100},
    "triton/KERNEL/": {"launcher.so": b"machine code" * 50},
}


@dataclass(frozen=True)
class Answer:
    """The result of a command."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        return json.loads(self.stdout)


def command(*arguments: str) -> Answer:
    """Call ``b10-compile-cache`` in this process. What it does to logging is undone."""
    logger = logging.getLogger("b10_transfer")
    before = logger.handlers[:], logger.propagate, logger.level
    try:
        result = CliRunner().invoke(main, arguments, prog_name="b10-compile-cache")
    finally:
        logger.handlers[:], logger.propagate, level = before
        logger.setLevel(level)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Answer(result.exit_code, result.stdout, result.stderr)


class Publisher(Packs):
    """Publishes packs for any environment, as a pod of that kind would."""

    def __init__(self, store: Path, environment: Environment, namespace: str = "default") -> None:
        self.store = store
        self.environment = environment
        self.namespace = namespace

    @property
    def folder(self) -> Path:
        return self.store / "v1" / self.namespace / self.environment.id

    def publish(self, units: Mapping[str, Files] = UNITS) -> Path:
        """Publish one pack; where it lies."""
        return self.publish_pack(self.write(units))

    def publish_pack(self, pack: bytes) -> Path:
        """Publish a finished pack; where it lies."""
        store = DirectoryStore(self.store)
        repository = Repository(store, self.namespace, self.environment, self.limits, Deadline("publish", 60))
        return self.folder / "packs" / f"{repository.publish(io.BytesIO(pack))}.tar.zst"


def pod_like_this(**parts: str) -> Environment:
    """This pod's environment, but for some parts; blanks in their names are written as ``_``."""
    return Environment({**detect().parts, **{name.replace("_", " "): value for name, value in parts.items()}})


def damage(pack: Path) -> None:
    """Flip a bit of a pack's index."""
    data = bytearray(pack.read_bytes())
    data[-100] ^= 1
    pack.chmod(0o644)
    pack.write_bytes(data)
