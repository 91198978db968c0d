"""Packs of every released version still load. A file in packs/ is never changed; a new version adds one.

Run this file as a program to write the pack of this version: to a path, with an origin if it is to be a merged one.
"""

from __future__ import annotations

import io
import json
import os
import sys
from pathlib import Path

import pytest

from b10_transfer.adapters import ADAPTERS, CacheRoot
from b10_transfer.concurrency.deadline import Deadline
from b10_transfer.environment import Environment
from b10_transfer.local.presence import missing
from b10_transfer.local.restore import restore
from b10_transfer.pack import Limits, PackWriter, SourceFile
from b10_transfer.repository.repository import Repository
from b10_transfer.testing.memory import MemoryStore

PACKS = Path(__file__).parent / "packs"
ENVIRONMENT = Environment(parts={"torch": "2.13.0+cu130", "device": "NVIDIA H200"}, recorded={"hostname": "golden"})
NAMESPACE = "golden"
MTIME_NS = 1_700_000_000_123_456_789

CONTENT: dict[str, dict[str, tuple[bytes, int]]] = {
    "inductor/fxgraph/ab/fabkey": {"inductor/fxgraph/ab/fabkey/graph": (b"a graph", 0o644)},
    "inductor/cd/ccdkey": {
        "inductor/cd/ccdkey.main.cpp": (b"int main() {}", 0o644),
        "inductor/cd/ccdkey.main.so": (bytes(range(256)) * 64, 0o755),
    },
    "inductor_headers/ckey": {
        "inductor_headers/ckey.h": (b"#include <a>\n", 0o644),
        "inductor_headers/ckey.h.gch": (b"", 0o600),
    },
    "triton/KERNEL": {
        "triton/KERNEL/k.cubin": (b"machine code", 0o640),
        "triton/KERNEL/__grp__k.json": (b'{"child_paths": {"k.cubin": "k.cubin"}}', 0o644),
    },
}
STEMS = {"inductor/cd/ccdkey", "inductor_headers/ckey"}


@pytest.mark.parametrize("path", sorted(PACKS.iterdir()), ids=lambda path: path.name)
def test_pack_of_a_released_version_loads(path: Path, tmp_path: Path) -> None:
    deadline = Deadline("load", 60)
    repository = Repository(MemoryStore(), NAMESPACE, ENVIRONMENT, Limits.for_packs_of(1 << 20), deadline)
    repository.publish(io.BytesIO(path.read_bytes()))
    union = repository.union(verify_frames=True)
    assert union.rejected == ()
    roots = [CacheRoot(adapter, tmp_path / adapter.name) for adapter in ADAPTERS]
    restore(repository, union, missing(union.units, roots), roots, deadline)
    for files in CONTENT.values():
        for name, (data, mode) in files.items():
            restored = tmp_path / name
            if restored.name == "__grp__k.json":
                assert json.loads(restored.read_bytes()) == {
                    "child_paths": {"k.cubin": str(restored.parent / "k.cubin")}
                }
            else:
                assert restored.read_bytes() == data
            status = restored.stat()
            assert (status.st_mode & 0o7777, status.st_mtime_ns) == (mode, MTIME_NS)
    assert sum(len(files) for _, _, files in os.walk(tmp_path)) == sum(map(len, CONTENT.values()))


@pytest.mark.parametrize("origin", ["", "01a229514913-ebb9e00682eb947e"])
def test_pack_of_this_version_has_the_same_content(origin: str, tmp_path: Path) -> None:
    (tmp_path / "now.tar.zst").write_bytes(write_pack(origin))
    test_pack_of_a_released_version_loads(tmp_path / "now.tar.zst", tmp_path / "restored")


def write_pack(origin: str = "") -> bytes:
    """The pack that this version writes of CONTENT: as it is saved, or as it is merged."""
    out = io.BytesIO()
    with PackWriter(out, Limits.for_packs_of(1 << 20), Deadline("save", 60)) as writer:
        for unit, files in CONTENT.items():
            sources = [_source(name, *content) for name, content in files.items()]
            writer.add_unit(unit, "stem" if unit in STEMS else "folder", sources, origin=origin)
        writer.finish(NAMESPACE, ENVIRONMENT)
    return out.getvalue()


def _source(name: str, data: bytes, mode: int) -> SourceFile:
    return SourceFile(name, len(data), mode, MTIME_NS, lambda _file: io.BytesIO(data))


if __name__ == "__main__":
    Path(sys.argv[1]).write_bytes(write_pack(*sys.argv[2:]))
