"""The environment key: named parts, hashed. The parts are stored beside the packs so that a miss can be explained."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType


@dataclass(frozen=True)
class Remark:
    """Something about the key that an operator must know."""

    level: int
    """A level of :mod:`logging`. ERROR: the key is not this pod's, and nothing may be loaded or saved under it."""
    seen: str
    advice: str
    repeats: bool = False
    """Whether each operation logs it, rather than the first one of a process."""

    def __str__(self) -> str:
        return f"{self.seen}. {self.advice}"


@dataclass(frozen=True)
class Environment:
    """The parts that are compared, and facts that are recorded for people but not compared."""

    parts: Mapping[str, str]
    recorded: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    remarks: tuple[Remark, ...] = field(default=(), compare=False)

    @property
    def id(self) -> str:
        """32 hexadecimal digits of SHA-256 over the parts.

        Names and values are framed by their length in bytes, so that no two different sets of parts share an input.
        """
        digest = hashlib.sha256(b"b10-transfer environment 1\n")
        for name, value in sorted(self.parts.items()):
            for text in (name, value):
                encoded = text.encode()
                digest.update(b"%d:" % len(encoded) + encoded)
        return digest.hexdigest()[:32]

    def to_json(self) -> bytes:
        """What ``environment.json`` holds: the compared parts only, so that every writer writes the same bytes."""
        return json.dumps({"id": self.id, "parts": dict(self.parts)}, indent=2, sort_keys=True).encode() + b"\n"
