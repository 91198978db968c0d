"""Packs of a hostile writer: small in a store, and made to take much memory or disk of a pod that loads them."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from b10_transfer.environment import Environment
from b10_transfer.pack import trailer
from b10_transfer.pack.zstd import pack_frame

EMPTY, ZEROS = hashlib.sha256(b"").hexdigest(), "0" * 64
FOOTER = struct.Struct("<QQII32sQ8s")


class HostileStore:
    """The packs of one environment in a directory store."""

    def __init__(self, store: Path, environment: Environment) -> None:
        self.folder = store / "v1" / "default" / environment.id / "packs"
        self.folder.mkdir(parents=True, exist_ok=True)
        self._environment = environment
        self._count = 0

    def path(self) -> Path:
        """The name of the next pack, which is newer than those before it."""
        self._count += 1
        return self.folder / f"{0x018BCFE56800 + self._count:012x}-{self._count:016x}.tar.zst"

    def add(self, units: list[dict[str, Any]], content_bytes: int = 0, frames: int = 0) -> Path:
        """A pack of these units, whose files take ``content_bytes`` of zeros."""
        packed: list[tuple[bytes, int]] = []
        left = content_bytes
        full = pack_frame(bytes(8 << 20))
        while left > 0:
            raw = min(left, 8 << 20)
            packed.append((full if raw == 8 << 20 else pack_frame(bytes(raw)), raw))
            left -= raw
        packed += [(pack_frame(b"\0"), 1)] * frames
        return self.add_index(
            self.index(units, [[len(f), raw, hashlib.sha256(f).hexdigest()] for f, raw in packed]),
            b"".join(f for f, _ in packed),
        )

    def add_file(self, path: str, data: bytes) -> Path:
        """A pack of one file."""
        pieces = [data[at : at + (8 << 20)] for at in range(0, len(data), 8 << 20)]
        packed = [(pack_frame(piece), len(piece)) for piece in pieces]
        members = [[path, len(data), 0o644, 0, 0, hashlib.sha256(data).hexdigest()]]
        return self.add_index(
            self.index(
                [unit(path, "stem", members)], [[len(f), raw, hashlib.sha256(f).hexdigest()] for f, raw in packed]
            ),
            b"".join(f for f, _ in packed),
        )

    def index(self, units: list[dict[str, Any]], frames: list[list[Any]]) -> bytes:
        document = {
            "format": 1,
            "namespace": "default",
            "environment": {"id": self._environment.id, "parts": dict(self._environment.parts), "recorded": {}},
            "roots": ["inductor", "triton"],
            "frames": frames,
            "units": units,
        }
        return json.dumps(document, separators=(",", ":"), sort_keys=True).encode()

    def add_index(self, index: bytes, frames: bytes = b"") -> Path:
        path = self.path()
        path.write_bytes(frames + trailer.encode(index, len(frames)))
        return path

    def add_extension(self, size: int) -> Path:
        """A sparse pack with so much of zeros where its signature is."""
        path = self.path()
        digest = hashlib.sha256()
        for _ in range(size >> 20):
            digest.update(bytes(1 << 20))
        with open(path, "wb") as file:
            file.write(struct.pack("<II", 0x184D2A5B, size + 72))
            file.seek(8 + size)
            file.write(FOOTER.pack(0, 0, size, 1, digest.digest(), size + 80, b"b10pack\n"))
        return path


def files(
    count: int, prefix: str = "F", size: int = 0, folders: int = 0, folder: str = "d", suffix: str = ".so"
) -> list[dict[str, Any]]:
    """Kernels of one file each, one behind the other; ``folders`` lie between a kernel's folder and its file."""
    found = []
    for number in range(count):
        name = f"triton/{prefix}X{number:040d}"
        path = f"{name}/{f'{folder}/' * folders}k{suffix}"
        found.append(unit(name, "folder", [[path, size, 0o644, number, number * size, EMPTY]]))
    return found


def kernels(count: int, prefix: str = "", each: int = 8) -> Iterator[dict[str, Any]]:
    """Units of several files each."""
    for number in range(count):
        name = f"triton/{prefix}K{number:040d}"
        yield unit(name, "folder", [[f"{name}/f{i}.so", 0, 0o644, number * each + i, 0, EMPTY] for i in range(each)])


def unit(name: str, kind: str, members: list[list[Any]]) -> dict[str, Any]:
    return {"kind": kind, "members": members, "name": name}
