"""The environment key: named parts and their digest. The parts are stored with packs, so that `explain` can compare."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple


class Remark(NamedTuple):
    """A fact about the key that an operator must know."""

    level: int
    """A level of :mod:`logging`. ERROR: the key is wrong for this pod, so nothing may be loaded or saved."""
    seen: str
    advice: str
    repeats: bool = False
    """Whether every operation logs it, and not only the first one of a process."""

    def __str__(self) -> str:
        return f"{self.seen}. {self.advice}"


@dataclass(frozen=True)
class Environment:
    """The parts that are compared, and facts that are recorded but not compared."""

    parts: Mapping[str, str]
    recorded: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    remarks: tuple[Remark, ...] = field(default=(), compare=False)

    @property
    def id(self) -> str:
        """32 hexadecimal digits of SHA-256 over the parts.

        Each name and value is preceded by its length in bytes, so that different parts never give the same input.
        """
        digest = hashlib.sha256(b"b10-transfer environment 1\n")
        for name, value in sorted(self.parts.items()):
            for text in (name, value):
                encoded = text.encode()
                digest.update(b"%d:" % len(encoded) + encoded)
        return digest.hexdigest()[:32]

    def to_json(self) -> bytes:
        """The content of ``environment.json``: only the compared parts, so that every pod writes the same bytes."""
        return json.dumps({"id": self.id, "parts": dict(self.parts)}, indent=2, sort_keys=True).encode() + b"\n"
