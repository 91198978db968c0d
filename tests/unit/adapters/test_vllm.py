"""vLLM's compile cache: what travels of its layouts, in which units, and when a rank is done with compiling."""

from __future__ import annotations

import ast
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from b10_transfer.adapters import cache_roots
from b10_transfer.adapters.base import Unit, UnitKind
from b10_transfer.adapters.inductor import InductorAdapter
from b10_transfer.adapters.vllm import VllmAdapter
from b10_transfer.concurrency.deadline import Deadline
from b10_transfer.config import Config
from b10_transfer.local.snapshot import has_artifacts, take

if TYPE_CHECKING:
    from tests.conftest import FillTree, IsolatedEnv

ADAPTER = VllmAdapter()
ROOT = Path("/cache")
HASH = "0b62f4587e"
RANK = f"{HASH}/rank_0_0"
AOT = "torch_aot_compile/d253b2c3c4b150d99175661abf7a23d71d214f03fe9a91024d1568c882e0b4de"
CODE = "cdq7vqhv5vfe4bcrkgejqo5o4m2sxhbvdyxmehbbr4qrmnbjqwup"
GRAPH = "fgi4kywmxnyl2sgkfr6cnhm3z25hdyfqoh3mfpjxytdmzwu7p6rj"
KERNEL = "XJFWKQ3VTWVPYS5VZ4ABTYTRMO2QF4D3RU6VLZ4QYV6MRPFVXQ3A"
INDEX = f"{RANK}/backbone/vllm_compile_cache.py"
ARTIFACT = f"{RANK}/backbone/artifact_compile_range_1_512_subgraph_0"


def stem(path: str) -> Unit:
    return Unit(path, UnitKind.STEM)


def folder(path: str) -> Unit:
    return Unit(path, UnitKind.FOLDER)


@pytest.mark.parametrize(
    ("path", "unit"),
    [
        (f"{AOT}/rank_0_0/model", folder(f"{AOT}/rank_0_0")),
        (f"{AOT}/rank_1_0/model", folder(f"{AOT}/rank_1_0")),
        (f"{AOT}/inductor_cache/dq/{CODE}.main.so", stem(f"{AOT}/inductor_cache/dq/{CODE}")),
        (f"{AOT}/inductor_cache/fxgraph/gi/{GRAPH}/entry", folder(f"{AOT}/inductor_cache/fxgraph/gi/{GRAPH}")),
        (f"{AOT}/inductor_cache/aotautograd/{CODE}/entry", folder(f"{AOT}/inductor_cache/aotautograd/{CODE}")),
        (f"{AOT}/inductor_cache/triton/0/{KERNEL}/k.cubin", folder(f"{AOT}/inductor_cache/triton/0/{KERNEL}")),
        (INDEX, folder(RANK)),
        (ARTIFACT, folder(RANK)),
        (f"{ARTIFACT}/fxgraph/gi/{GRAPH}/entry", folder(RANK)),
        (f"{RANK}/vllm_compile_cache.py", folder(RANK)),
        (f"{RANK}/artifact_shape_None_subgraph_0", folder(RANK)),
        (f"{RANK}/inductor_cache/dq/{CODE}.py", folder(RANK)),
        (f"{RANK}/triton_cache/{KERNEL}/kernel.cubin", folder(RANK)),
        (f"{HASH}/rank_3_1/eagle_head/vllm_compile_cache.py", folder(f"{HASH}/rank_3_1")),
    ],
)
def test_file_belongs_to_its_unit(path: str, unit: Unit) -> None:
    assert ADAPTER.unit_of(path) == unit


@pytest.mark.parametrize(
    "path",
    [
        f"{RANK}/backbone/cache_key_factors.json",
        f"{RANK}/backbone/computation_graph.py",
        f"{RANK}/transformed_code.py",
        f"{RANK}/backbone/token",
        f"{RANK}/backbone/config.json",
        f"{RANK}/model.safetensors",
        f"{ARTIFACT}/credentials.json",
        f"{AOT}/rank_0_0/other",
        f"{AOT}/rank_0_0/model.1234.tmp",
        f"{AOT}/rank_0_0",
        f"{AOT}/stray",
        f"{AOT}/inductor_cache/locks/{CODE}.lock",
        f"{AOT}/inductor_cache/dq/{CODE}_CxxBuild/main.o",
        f"{AOT}/inductor_cache/fxgraph/gi/{GRAPH}/.12.34.tmp",
        f"{AOT}/inductor_cache/triton/0/{KERNEL}/tmp.pid_1_ab/k.cubin",
        f"{RANK}/inductor_cache/locks/anything",
        f"{RANK}/inductor_cache/precompiled_headers/header.h.gch",
        f"{RANK}/triton_cache/{KERNEL}/lock",
        f"{RANK}/triton_cache/stray",
        f"{RANK}/backbone/.12.34.tmp",
        RANK,
        "stray",
        ".b10-lock",
    ],
)
def test_file_that_is_no_artifact_belongs_to_no_unit(path: str) -> None:
    assert ADAPTER.unit_of(path) is None


NAMES = st.sampled_from(
    f"torch_aot_compile {HASH} rank_0_0 inductor_cache triton_cache triton 0 locks dq model backbone a.b .c a.tmp "
    "fxgraph x_CxxBuild vllm_compile_cache.py cache_key_factors.json".split()
)
PATHS = st.lists(NAMES, min_size=1, max_size=7).map("/".join)


@given(PATHS)
@example(f"{AOT}/inductor_cache/dq/{CODE}.main.so")
def test_unit_holds_the_file_it_was_found_by(path: str) -> None:
    unit = ADAPTER.unit_of(path)
    if unit is None:
        return
    if unit.kind is UnitKind.FOLDER:
        assert path.startswith(f"{unit.path}/")
    else:
        assert path == unit.path or path.startswith(f"{unit.path}.")


@given(PATHS)
def test_folders_of_artifacts_are_looked_into(path: str) -> None:
    parts = path.split("/")
    if ADAPTER.unit_of(path) is not None:
        assert not any(ADAPTER.skips_folder("/".join(parts[:depth])) for depth in range(1, len(parts)))


def test_locks_and_headers_are_not_looked_into() -> None:
    for cache in (f"{AOT}/inductor_cache", f"{RANK}/inductor_cache"):
        assert ADAPTER.skips_folder(f"{cache}/locks")
        assert not ADAPTER.skips_folder(cache)
    assert ADAPTER.skips_folder(f"{HASH}/locks")


def test_root_is_below_vllms_own(isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    default = isolated_env.home / ".cache" / "vllm" / "torch_compile_cache"
    assert ADAPTER.locate(Config.from_environment().reader) == default
    monkeypatch.setenv("VLLM_CACHE_ROOT", str(isolated_env.home / "elsewhere"))
    assert ADAPTER.locate(Config.from_environment().reader) == isolated_env.home / "elsewhere" / "torch_compile_cache"


def test_what_vllm_writes_before_it_compiles_is_no_cache(isolated_env: IsolatedEnv, fill: FillTree) -> None:
    [root] = [root for root in cache_roots(Config.from_environment()) if root.name == "vllm"]
    fill(root.path.parent, {"modelinfos/llama.json": b"{}"})
    fill(
        root.path,
        {
            f"{RANK}/backbone/cache_key_factors.json": b"{}",
            f"{RANK}/backbone/computation_graph.py": b"class GraphModule: ...",
            f"{AOT}/inductor_cache/locks/{CODE}.lock": b"",
            f"{AOT}/rank_0_0/model.77.tmp": b"half",
        },
    )
    assert not has_artifacts(root)


@pytest.mark.parametrize("nested", ["torch_aot_compile/HASH/inductor_cache", f"{RANK}/inductor_cache"])
def test_directories_that_vllm_points_inductor_and_triton_at_are_left_to_vllm(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, nested: str
) -> None:
    root = isolated_env.home / ".cache" / "vllm" / "torch_compile_cache"
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(root / nested))
    monkeypatch.setenv("TRITON_CACHE_DIR", str(root / RANK / "triton_cache"))
    names = [found.name for found in cache_roots(Config.from_environment())]
    assert "vllm" in names
    assert "inductor" not in names
    assert "triton" not in names


@pytest.mark.parametrize("other", ["..", f"{HASH}/rank_0_0", "torch_aot_compile", f"{AOT}/rank_0_0", "triton_cache"])
def test_other_places_in_vllms_cache_are_not_vllms(tmp_path: Path, other: str) -> None:
    root = str(tmp_path)
    assert ADAPTER.covers(root, root, ADAPTER)
    assert not ADAPTER.covers(root, os.path.normpath(tmp_path / other), InductorAdapter())


def test_ahead_of_time_artifact_is_complete_once_it_has_its_name(tmp_path: Path) -> None:
    unit = folder(f"{AOT}/rank_0_0")
    assert ADAPTER.is_complete(tmp_path, unit, [f"{AOT}/rank_0_0/model"])
    assert not ADAPTER.is_complete(tmp_path, unit, [f"{AOT}/rank_0_0/other"])


COMPLETE = [INDEX, ARTIFACT]


@pytest.mark.parametrize(
    ("files", "is_complete"),
    [
        (COMPLETE, True),
        ([ARTIFACT], False),
        ([], False),
        ([f"{RANK}/inductor_cache/dq/{CODE}.py"], False),
        ([*COMPLETE, f"{RANK}/eagle_head/artifact_compile_range_1_512_subgraph_0"], False),
        ([*COMPLETE, f"{RANK}/eagle_head/a", f"{RANK}/eagle_head/vllm_compile_cache.py"], True),
        ([f"{RANK}/vllm_compile_cache.py", f"{RANK}/deeper/artifact"], True),
        ([*COMPLETE, f"{ARTIFACT}/fxgraph/gi/{GRAPH}/entry"], True),
        ([*COMPLETE, f"{RANK}/inductor_cache/dq/{CODE}.main.cpp"], False),
        ([*COMPLETE, f"{RANK}/inductor_cache/dq/{CODE}.main.cpp", f"{RANK}/inductor_cache/dq/{CODE}.main.so"], True),
        ([*COMPLETE, f"{RANK}/triton_cache/{KERNEL}/k.ptx", f"{RANK}/triton_cache/{KERNEL}/k.cubin"], False),
        ([*COMPLETE, f"{RANK}/triton_cache/{KERNEL}/k.ptx", f"{RANK}/triton_cache/{KERNEL}/__grp__k.json"], True),
    ],
)
def test_rank_is_complete_once_each_of_its_models_has_an_index(
    tmp_path: Path, files: list[str], is_complete: bool
) -> None:
    assert ADAPTER.is_complete(tmp_path, folder(RANK), files) is is_complete


@pytest.mark.parametrize(
    ("prefix", "unit"),
    [(f"{AOT}/inductor_cache", stem(f"{AOT}/inductor_cache/dq/{CODE}")), (f"{RANK}/inductor_cache", folder(RANK))],
)
def test_library_that_is_being_built_keeps_its_unit_back(tmp_path: Path, prefix: str, unit: Unit) -> None:
    files = [*COMPLETE, f"{prefix}/dq/{CODE}.main.cpp", f"{prefix}/dq/{CODE}.main.so"]
    files = [file for file in files if ADAPTER.unit_of(file) == unit]
    assert ADAPTER.is_complete(tmp_path, unit, files)
    (tmp_path / prefix / "dq" / f"{CODE}.main_CxxBuild").mkdir(parents=True)
    assert not ADAPTER.is_complete(tmp_path, unit, files)


STANDALONE = f"""{{   ((1, 512), 0, 'inductor_standalone'): {{   'cache_key': 'a{CODE}',
    'graph_handle': (   'artifact_compile_range_1_512_subgraph_0',
                        '/old/vllm/torch_compile_cache/{ARTIFACT}')}}}}"""
INDUCTOR = f"""{{   ((1, 512), 0, 'inductor'): {{   'cache_key': None,
    'graph_handle': (   '{GRAPH}',
                        '/old/vllm/torch_compile_cache/{RANK}/inductor_cache/dq/{CODE}.py')}}}}"""
OLD = f"{{(None, 0, 'inductor_standalone'): ('artifact_shape_None_subgraph_0', '/old/{ARTIFACT}')}}"
FILES = {INDEX, ARTIFACT, f"{RANK}/inductor_cache/dq/{CODE}.py"}


@pytest.mark.parametrize("index", [STANDALONE, INDUCTOR, OLD], ids=["standalone", "inductor", "old"])
def test_index_travels_without_paths_of_its_machine(index: str) -> None:
    portable = ADAPTER.to_portable(ROOT, INDEX, index.encode(), FILES)
    assert b"/old" not in portable
    there = ADAPTER.to_local(Path("/new/place"), INDEX, portable)
    expected = index.replace("/old/vllm/torch_compile_cache", "/new/place").replace("/old", "/new/place")
    assert ast.literal_eval(there.decode()) == ast.literal_eval(expected)
    assert ADAPTER.to_portable(ROOT, INDEX, there, FILES) == portable


def test_index_may_name_a_folder_of_artifacts() -> None:
    ADAPTER.to_portable(ROOT, INDEX, STANDALONE.encode(), {INDEX, f"{ARTIFACT}/fxgraph/gi/{GRAPH}/entry"})


@pytest.mark.parametrize("length", [0, 1, len(STANDALONE) // 2, len(STANDALONE) - 1])
def test_index_that_is_half_written_does_not_travel(length: int) -> None:
    with pytest.raises(ValueError, match="not an index"):
        ADAPTER.to_portable(ROOT, INDEX, STANDALONE[:length].encode(), FILES)


def test_index_that_names_a_missing_artifact_does_not_travel() -> None:
    with pytest.raises(ValueError, match="not there"):
        ADAPTER.to_portable(ROOT, INDEX, STANDALONE.encode(), {INDEX})


def test_index_that_looks_portable_already_does_not_travel() -> None:
    with pytest.raises(ValueError, match="holds"):
        ADAPTER.to_portable(ROOT, INDEX, b"{1: '{unit}/x'}", FILES)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff",
        b"[]",
        b"{",
        b"print()",
        b"{1: open('x')}",
        b"[" * 100_000,
        b"{[]: 1}",
        b"{1: " + b"9" * 10_000 + b"}",
    ],
    ids=["empty", "no text", "list", "half", "call", "call inside", "nested", "no key", "number too long"],
)
def test_file_that_is_no_index_is_refused_both_ways(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ValueError):
        ADAPTER.to_portable(ROOT, INDEX, content, FILES)
    with pytest.raises(ValueError):
        ADAPTER.to_local(tmp_path, INDEX, content)


def test_index_that_leads_outside_its_folder_is_not_placed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="outside its folder"):
        ADAPTER.to_local(tmp_path, INDEX, b"{1: ('key', '{unit}/../../other/artifact')}")


@pytest.mark.parametrize(
    "path",
    [
        f"{RANK}/triton_cache/{KERNEL}/__grp__k.json",
        f"{AOT}/inductor_cache/triton/0/{KERNEL}/__grp__k.json",
        f"{ARTIFACT}/triton/0/{KERNEL}/__grp__k.json",
    ],
)
def test_group_file_passes_through_tritons_adapter(tmp_path: Path, path: str) -> None:
    assert ADAPTER.is_rewritten(path)
    portable = b'{"child_paths": {"k.cubin": "k.cubin"}}'
    local = ADAPTER.to_local(tmp_path, path, portable)
    kernel = path.rpartition("/")[0]
    assert f"{tmp_path}/{kernel}/k.cubin".encode() in local
    assert ADAPTER.to_portable(ROOT, path, local, {f"{kernel}/k.cubin"}) == portable


@pytest.mark.parametrize("path", [ARTIFACT, f"{AOT}/rank_0_0/model", f"{RANK}/inductor_cache/dq/vllm_compile_cache.py"])
def test_other_files_travel_as_they_are(path: str) -> None:
    assert not ADAPTER.is_rewritten(path)


def test_rank_with_a_half_written_index_is_left_for_the_next_save(isolated_env: IsolatedEnv, fill: FillTree) -> None:
    [root] = [root for root in cache_roots(Config.from_environment()) if root.name == "vllm"]
    fill(root.path, {ARTIFACT: b"graph"})
    assert take([root], Deadline("test", 60)).incomplete == 1
    fill(root.path, {INDEX: STANDALONE.encode()})
    [unit] = take([root], Deadline("test", 60)).units
    assert unit.name == f"vllm/{RANK}"
