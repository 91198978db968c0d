"""Two variables name one directory, or one inside the other: each file belongs to one cache, and kernels stay units."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from b10_transfer import OperationStatus, load, save

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import IsolatedEnv, ReadTree

KEYS = ["A" * 52, "B" * 52]


def group(folder: Path) -> bytes:
    return json.dumps({"child_paths": {"k.cubin": str(folder / "k.cubin")}}).encode()


@pytest.mark.parametrize(
    ("inductor", "triton"),
    [("shared", "shared"), ("i", "i/tri"), ("t/i", "t"), ("i", "i/triton/0"), ("i", "i/triton/custom"), ("i", "t")],
    ids=["the same", "Triton's inside", "Inductor's inside", "Inductor's own place", "below it", "apart"],
)
def test_kernels_are_units_and_get_the_paths_of_the_next_pod(
    isolated_env: IsolatedEnv,
    monkeypatch: pytest.MonkeyPatch,
    read_tree: ReadTree,
    tmp_path: Path,
    inductor: str,
    triton: str,
) -> None:
    def pod(name: str) -> tuple[Path, Path]:
        places = (tmp_path / name / inductor, tmp_path / name / triton)
        monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(places[0]))
        monkeypatch.setenv("TRITON_CACHE_DIR", str(places[1]))
        return places

    graphs, kernels = pod("first")
    isolated_env.fill(graphs, {"fxgraph/ab/fabkey/graph": b"a graph"})
    for key in KEYS:
        isolated_env.fill(kernels / key, {"k.cubin": b"binary", "__grp__k.json": group(kernels / key)})
    report = save()
    assert (report.status, report.units, report.files) == (OperationStatus.SUCCESS, 3, 5)
    assert save().status is OperationStatus.SKIPPED
    graphs, kernels = pod("second")
    assert load().units == 3
    assert (graphs / "fxgraph/ab/fabkey/graph").read_bytes() == b"a graph"
    for key in KEYS:
        assert read_tree(kernels / key) == {"k.cubin": b"binary", "__grp__k.json": group(kernels / key)}
