"""Tests on real NFS, which run in the guest that ``make test-nfs`` boots (guest.sh), once for each version mounted."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .server import Server, unmount

if TYPE_CHECKING:
    from ..conftest import IsolatedEnv


@pytest.fixture(autouse=True)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """The guest's server, for the test to maltreat."""
    if not os.environ.get("B10_NFS_GUEST"):
        pytest.skip("needs real NFS: make test-nfs")
    request.getfixturevalue("store_place")  # which can be removed only once the server is itself again
    server = Server()
    yield server
    server.restore()


@pytest.fixture
def pod(isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch) -> IsolatedEnv:
    """A pod with one artifact of 8 MB in its cache, which makes a pack of several frames. Its store is on NFS."""
    # A lease that could not be given back must not hold up the next save for long.
    monkeypatch.setenv("CLEANUP_LOCK_TIMEOUT_SECONDS", "1")
    add_artifact(isolated_env, "first")
    return isolated_env


def add_artifact(pod: IsolatedEnv, key: str, size_bytes: int = 8_000_000) -> None:
    """As a compiler does. What it holds does not compress."""
    pod.fill(pod.inductor, {f"fxgraph/{key[1:3]}/{key}/entry": os.urandom(size_bytes)})


@pytest.fixture
def other_mount(tmp_path: Path) -> Iterator[Path]:
    """A mount point for one mount more."""
    place = tmp_path / "mounted"
    place.mkdir()
    yield place
    if os.path.ismount(place):
        unmount(place)
