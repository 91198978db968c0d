"""Write a store with everything that this version leaves in one: ``python -m tests.formats.write_store FOLDER``.

FOLDER gets the store, ``roles.json`` with the id of each pack, and the public key of the signed one.
"""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Mapping
from pathlib import Path

from b10_transfer.concurrency.deadline import Deadline
from b10_transfer.environment import Environment
from b10_transfer.errors import CorruptPackError
from b10_transfer.pack import Limits, PackWriter, SourceFile
from b10_transfer.repository.group import Group
from b10_transfer.repository.merging import merge
from b10_transfer.repository.repository import Repository
from b10_transfer.repository.signing import SigningKey
from b10_transfer.repository.union import Rejected
from b10_transfer.stores.directory import DirectoryStore

ENVIRONMENT = Environment(parts={"torch": "2.13.0+cu130", "device": "NVIDIA H200"}, recorded={"hostname": "golden"})
NAMESPACE = "golden"
MTIME_NS = 1_700_000_000_123_456_789
LIMITS = Limits.for_packs_of(1 << 20)
GROUP = "golden-job"
GRAPH = "inductor/fxgraph/6l/f6lkinwzp3z7nqbnvdhbyiqtlcnoyrtpe4qufkqvzkgvuqj64xkx"


UNUSED = "HI"
"""Kernels of the first pack that the recorded start has not used."""


def kernel(letter: str) -> str:
    """The name of a Triton kernel's unit."""
    return f"triton/{letter * 52}"


def files_of(unit: str) -> dict[str, bytes]:
    """The files of a unit, as a pack holds them."""
    if unit == GRAPH:
        return {f"{GRAPH}/{'q' * 51}": b"a graph"}
    group = json.dumps({"child_paths": {"add.cubin": "add.cubin", "add.json": "add.json"}}).encode()
    code = {f"{unit}/add.cubin": b"machine code of " + unit.encode(), f"{unit}/add.json": b'{"name": "add"}'}
    return {**code, f"{unit}/__grp__add.json": group}


class Writer:
    """Writes one store."""

    def __init__(self, folder: Path) -> None:
        self._store = DirectoryStore(folder / "store")
        self._repository = self.repository()
        self._roles: dict[str, str] = {}

    def repository(self, signer: SigningKey | None = None) -> Repository:
        return Repository(self._store, NAMESPACE, ENVIRONMENT, LIMITS, Deadline("write", 60), signer=signer)

    def write(self, folder: Path) -> None:
        """Publish packs, merge two of them, mark others, and record what loads and starts record."""
        self._publish("first", [GRAPH, kernel("A"), *map(kernel, UNUSED)])
        self._publish("second", [kernel("B")])
        out = io.BytesIO()
        packs = self._repository.union().packs
        merge(self._repository, packs, out, Deadline("merge", 60))
        self._roles["merged"] = self._repository.publish(out, behind=packs[-1].id)
        recalled = self._publish("recalled", [kernel("C")])
        self._repository.recall(recalled, "wrong results")
        damaged = self._publish("damaged", [kernel("D")])
        self._damage(folder / "store" / "v1" / NAMESPACE / ENVIRONMENT.id / "packs" / f"{damaged}.tar.zst")
        self._repository.quarantine(Rejected(damaged, CorruptPackError(damaged, "a frame is damaged")))
        pruned = self._publish("pruned", [kernel("E")])
        self._repository.prune(pruned, "older than 30 days")
        key = SigningKey.generate()
        self._publish("signed", [kernel("F")], signer=key)
        trusted = self.repository(key)
        trusted.recall(self._publish("recalled, signed", [kernel("G")], signer=key), "wrong results")
        (folder / "key.pub").write_text(key.public_text())
        union = Group(self._store, trusted, GROUP).union()
        trusted.record_use([ENVIRONMENT.id], union)
        trusted.record_start([kernel("A")])
        (folder / "roles.json").write_text(json.dumps(self._roles, indent=2) + "\n")

    def _publish(self, role: str, units: list[str], signer: SigningKey | None = None) -> str:
        self._roles[role] = self.repository(signer).publish(io.BytesIO(_pack({unit: files_of(unit) for unit in units})))
        return self._roles[role]

    def _damage(self, pack: Path) -> None:
        data = bytearray(pack.read_bytes())
        data[20] ^= 1
        pack.chmod(0o644)
        pack.write_bytes(data)


def _pack(units: Mapping[str, Mapping[str, bytes]]) -> bytes:
    out = io.BytesIO()
    with PackWriter(out, LIMITS, Deadline("save", 60)) as writer:
        for unit, files in units.items():
            writer.add_unit(unit, "folder", [_source(name, data) for name, data in files.items()])
        writer.finish(NAMESPACE, ENVIRONMENT)
    return out.getvalue()


def _source(name: str, data: bytes) -> SourceFile:
    return SourceFile(name, len(data), 0o644, MTIME_NS, lambda _file: io.BytesIO(data))


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.mkdir(parents=True)
    Writer(target).write(target)
