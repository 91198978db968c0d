"""Only files that compilers write are saved or removed, with any other files in their folders."""

from __future__ import annotations

import io
import tempfile
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from b10_transfer.adapters import ADAPTERS, Adapter, CacheRoot, flashinfer_knobs, vllm_modelinfos
from b10_transfer.concurrency.deadline import Deadline
from b10_transfer.local import snapshot
from b10_transfer.local.ownership import open_private
from b10_transfer.maintenance.clear import Sweep
from b10_transfer.pack import PackWriter
from tests.shapes import ARTIFACTS, LEFT_HERE, folders_of, tree

if TYPE_CHECKING:
    from tests.conftest import FillTree, Packs, ReadTree

SECRETS = [
    *(
        "token",
        "stored_tokens",
        "credentials",
        "credentials.json",
        "credentials.db",
        "application_default_credentials.json",
    ),
    *(
        "id_rsa",
        "id_ed25519",
        "id_rsa.pub",
        "known_hosts",
        ".netrc",
        ".env",
        ".git-credentials",
        ".pgpass",
        "kubeconfig",
    ),
    *(
        "config",
        "config.json",
        "config.yaml",
        "auth.json",
        "secrets.toml",
        "key.pem",
        "server.key",
        "service-account.json",
    ),
    *(
        "model.safetensors",
        "model-00001-of-00002.safetensors",
        "pytorch_model.bin",
        "model.bin",
        "adapter.pt",
        "ckpt.pth",
    ),
    *(
        "model.gguf",
        "weights.npz",
        "tokenizer.json",
        "tokenizer.model",
        "generation_config.json",
        "vocab.txt",
        "merges.txt",
    ),
    *("history", ".bash_history", "notes.md", "main.tf", "dump.sql", "core", "x.txt", "data.parquet"),
]
"""Names of credentials, weights and other people's files."""
RANDOM = st.text(
    st.characters(codec="utf-8", exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=12
).filter(lambda name: name not in (".", "..") and len(name.encode()) < 200)
NAMES = st.one_of(st.sampled_from(SECRETS), st.sampled_from(SECRETS), RANDOM.map(lambda name: f"{name}.txt"), RANDOM)
FOLDERS = st.lists(
    st.one_of(st.sampled_from(["hub", "huggingface", ".ssh", "job", "ab", "KEY", "models--m", "blobs"]), RANDOM),
    max_size=3,
)

each = pytest.mark.parametrize("adapter", ADAPTERS, ids=lambda adapter: adapter.name)


@each
@given(data=st.data())
@settings(max_examples=40)
def test_files_that_no_compiler_writes_are_neither_saved_nor_removed(
    packs: Packs, fill: FillTree, read_tree: ReadTree, adapter: Adapter, data: st.DataObject
) -> None:
    artifacts = ARTIFACTS[adapter.name]
    places = st.one_of(st.sampled_from(folders_of(artifacts)), FOLDERS.map("/".join))
    paths = data.draw(st.lists(st.tuples(places, NAMES).map(lambda both: "/".join(filter(None, both))), max_size=6))
    strangers = without_clashes(paths, artifacts)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(snapshot.logger, "disabled", True)
        root = CacheRoot(adapter, Path(folder).resolve() / "cache")
        fill(root.path, {**artifacts, **strangers})
        assert published(packs, root) <= {f"{adapter.name}/{path}" for path in artifacts}
        opened = open_private(root)
        assert opened is not None
        Sweep().clear(opened, Deadline("clear", 60))
        left = read_tree(root.path)
        assert strangers.items() <= left.items()


@each
def test_files_of_a_compiler_are_saved_and_removed(
    packs: Packs, fill: FillTree, read_tree: ReadTree, tmp_path: Path, adapter: Adapter
) -> None:
    """Otherwise the test above could pass for the wrong reason."""
    root = CacheRoot(adapter, tmp_path / "cache")
    fill(root.path, tree(adapter.name))
    assert published(packs, root) == {f"{adapter.name}/{path}" for path in ARTIFACTS[adapter.name]}
    assert snapshot.take([root], Deadline("save", 60)).unrecognised[adapter.name] == 0
    assert snapshot.has_artifacts(root) is not adapter.accompanies
    opened = open_private(root)
    assert opened is not None
    Sweep().clear(opened, Deadline("clear", 60))
    assert read_tree(root.path) == LEFT_HERE.get(adapter.name, {})


@each
@pytest.mark.parametrize("name", SECRETS)
def test_secret_in_any_folder_of_a_cache_is_counted_and_left_alone(
    fill: FillTree, tmp_path: Path, adapter: Adapter, name: str
) -> None:
    artifacts = ARTIFACTS[adapter.name]
    strangers = {f"{folder}/{name}" if folder else name: b"secret" for folder in folders_of(artifacts)}
    root = CacheRoot(adapter, tmp_path / "cache")
    fill(root.path, {**artifacts, **strangers})
    found = snapshot.take([root], Deadline("save", 60))
    saved = {file.path for unit in found.units for file in unit.files}
    assert saved.isdisjoint(strangers)
    known = {path for path in strangers if adapter.leaves_here(path)}
    assert found.unrecognised[adapter.name] == len(strangers.keys() - known)


@pytest.fixture(autouse=True, scope="module")
def installed_vllm() -> Iterator[None]:
    """What is known of model classes travels with vLLM's version alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vllm_modelinfos, "_installed_version", lambda: "0.32.0")
        patch.setattr(flashinfer_knobs, "_installed_version", lambda: "0.7.4")
        yield


def published(packs: Packs, root: CacheRoot) -> set[str]:
    """Paths in the pack that a save of one cache makes."""
    spool = io.BytesIO()
    with PackWriter(spool, packs.limits, Deadline("save", 60)) as writer:
        snapshot.pack(deque(snapshot.take([root], Deadline("save", 60)).units), writer, snapshot.Packed())
        index = writer.finish(packs.namespace, packs.environment)
    return {member.path for unit in index.units for member in unit.members}


def without_clashes(paths: list[str], artifacts: Mapping[str, bytes]) -> dict[str, bytes]:
    """Those of which a file system can hold all, beside the artifacts, and which are none themselves."""
    found: dict[str, bytes] = {}
    for path in paths:
        others = [*artifacts, *found]
        if not any(f"{path}/".startswith(f"{other}/") or f"{other}/".startswith(f"{path}/") for other in others):
            found[path] = b"somebody else's"
    return found
