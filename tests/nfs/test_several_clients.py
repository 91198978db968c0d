"""Clients that speak different versions of NFS use one store at once; each remembers what it likes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import pytest

from b10_transfer import OperationStatus, load, save
from tests.concurrency.pods import Pod, kernel, packs, release

from .server import MOUNTS, behind, seen_through, version_of

if TYPE_CHECKING:
    from ..conftest import IsolatedEnv, ReadTree


def caches(env: IsolatedEnv, kernels: Mapping[str, Sequence[str]]) -> dict[str, dict[str, str]]:
    """A pod on each mount, whose cache holds some kernels: its variables, by version."""
    variables = {}
    for version, names in kernels.items():
        root = env.home / ".cache" / f"cache of {version}"
        for name in names:
            env.fill(root, kernel(name, content=version))
        variables[version] = {
            "TORCHINDUCTOR_CACHE_DIR": str(root),
            "B10_STORE": str(seen_through(env.store, version)),
        }
    return variables


@pytest.mark.parametrize("locks", ["1", "0"])
def test_pods_on_mounts_of_different_versions_save_at_once_and_each_loads_the_union(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, read_tree: ReadTree, locks: str
) -> None:
    names = {version: ["SHARED", f"ONLY-{number}"] for number, version in enumerate(MOUNTS)}
    pods = [Pod("save", variables | {"B10_LOCKS": locks}) for variables in caches(isolated_env, names).values()]
    assert Counter(outcome["status"] for outcome in release(pods)) == {"SUCCESS": 2}
    for version in MOUNTS:
        root = isolated_env.home / ".cache" / f"late on {version}"
        monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(root))
        monkeypatch.setenv("B10_STORE", str(seen_through(isolated_env.store, version)))
        assert load().status is OperationStatus.SUCCESS
        tree = read_tree(root)
        for name in {name for pair in names.values() for name in pair}:
            assert len({tree[path].split()[1] for path in kernel(name)}) == 1, f"{name} is a mixture"


def test_pods_on_mounts_of_different_versions_share_the_work_of_saving_the_same(isolated_env: IsolatedEnv) -> None:
    pods = [Pod("save", variables) for variables in caches(isolated_env, dict.fromkeys(MOUNTS, ("A", "B"))).values()]
    outcomes = Counter(outcome["status"] for outcome in release(pods))
    assert outcomes == {"SUCCESS": 1, "SKIPPED": 1}
    assert len(packs(behind(isolated_env.store))) == 1


def test_pack_that_another_client_published_is_loaded_at_once_though_there_was_none_a_moment_ago(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    [publisher] = [version for version in MOUNTS if version != version_of(isolated_env.store)]
    [variables] = caches(isolated_env, {publisher: ["A"]}).values()
    assert load().status is OperationStatus.DOES_NOT_EXIST
    assert [outcome["status"] for outcome in release([Pod("save", variables)])] == ["SUCCESS"]
    assert load().status is OperationStatus.SUCCESS


def test_save_that_does_not_see_anothers_pack_publishes_its_own_and_loses_nothing(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, read_tree: ReadTree
) -> None:
    """The listing is as stale as can be: it misses the pack for good."""
    mine, theirs = version_of(isolated_env.store), next(v for v in MOUNTS if v != version_of(isolated_env.store))
    variables = caches(isolated_env, {mine: ["SHARED", "MINE"], theirs: ["SHARED", "THEIRS"]})
    release([Pod("save", variables[theirs])])
    [hidden] = packs(behind(isolated_env.store))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", variables[mine]["TORCHINDUCTOR_CACHE_DIR"])
    aside = behind(isolated_env.store) / hidden.name
    hidden.rename(aside)
    assert save().units == 2
    aside.rename(hidden)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(isolated_env.home / ".cache" / "late"))
    assert load().units == 3
    tree = read_tree(isolated_env.home / ".cache" / "late")
    assert len({tree[path].split()[1] for path in kernel("SHARED")}) == 1
