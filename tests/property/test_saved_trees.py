"""From any cache, a save makes packs that every reader accepts and a load restores."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from b10_transfer.adapters import ADAPTERS, CacheRoot
from b10_transfer.concurrency.deadline import Deadline
from b10_transfer.local import snapshot
from b10_transfer.local.presence import missing
from b10_transfer.local.restore import restore
from b10_transfer.pack import PackWriter
from b10_transfer.testing.memory import MemoryStore

if TYPE_CHECKING:
    from tests.conftest import FillTree, Packs, ReadTree

NAMES = st.one_of(
    st.sampled_from(
        ["aa", "AA", "key", "Key", "key.py", "key.so", "key.tmp", "lock", "triton", "0", "fxgraph", "x", "X"]
    ),
    st.text("aA.x _-é\\", min_size=1, max_size=4).filter(lambda name: name not in (".", "..")),
)
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)
TREES = st.dictionaries(PATHS, st.binary(max_size=20), max_size=12)


def without_clashes(tree: dict[str, bytes]) -> dict[str, bytes]:
    """Of paths where one is a folder of the other, a file system holds one."""
    folders = {"/".join(path.split("/")[:depth]) for path in tree for depth in range(1, path.count("/") + 1)}
    return {path: data for path, data in tree.items() if path not in folders}


@given(TREES, TREES)
@settings(max_examples=100)
def test_every_reader_accepts_published_packs(
    packs: Packs, fill: FillTree, read_tree: ReadTree, inductor: dict[str, bytes], triton: dict[str, bytes]
) -> None:
    trees = {"inductor": without_clashes(inductor), "triton": without_clashes(triton)}
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(snapshot.logger, "disabled", True)  # it warns of each unit that it leaves out
        saved = [CacheRoot(adapter, Path(folder, "saved", adapter.name)) for adapter in ADAPTERS]
        for root in saved:
            fill(root.path, trees.get(root.name, {}))
        units = snapshot.take(saved, Deadline("save", 60)).units
        spool = io.BytesIO()
        with PackWriter(spool, packs.limits, Deadline("save", 60)) as writer:
            left_out = snapshot.Packed()
            snapshot.pack(snapshot.in_order(units), writer, left_out)
            assert left_out == snapshot.Packed()
            writer.finish(packs.namespace, packs.environment)
        repository = packs.repository(MemoryStore())
        repository.publish(spool)
        union = repository.union(verify_frames=True)
        assert union.rejected == ()

        loaded = [CacheRoot(adapter, Path(folder, "loaded", adapter.name)) for adapter in ADAPTERS]
        restore(repository, union, missing(union.units, loaded), loaded, Deadline("load", 60))
        expected = {
            f"{unit.root.name}/{file.path}": trees[unit.root.name][file.path] for unit in units for file in unit.files
        }
        assert read_tree(Path(folder, "loaded")) == expected
