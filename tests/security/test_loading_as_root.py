"""Root loads for another user, in an init container for example, with that user's rights."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from b10_transfer import OperationStatus, load, save
from b10_transfer.local.ownership import User
from b10_transfer.local.rights import rights_of
from tests.conftest import IsolatedEnv, ReadTree

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
SERVER = User(54321, 54322)
KERNEL = {"A" * 52 + "/launcher.so": b"machine code"}


@pytest.fixture
def servers(isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> IsolatedEnv:
    """A saved kernel, and a new home that root has given to the server's user."""
    isolated_env.fill(isolated_env.triton, KERNEL)
    assert save().status is OperationStatus.SUCCESS
    home = tmp_path / "server"
    home.mkdir()
    os.chown(home, SERVER.uid, SERVER.gid)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("TRITON_CACHE_DIR", str(home / ".triton" / "cache"))
    for folder in tmp_path.parents:
        if folder.stat().st_uid == 0 and folder != Path("/tmp"):
            folder.chmod(folder.stat().st_mode | 0o001)  # the server's user enters
    tmp_path.chmod(0o755)
    return isolated_env


def test_everything_that_is_restored_belongs_to_the_user_and_follows_the_umask(servers: IsolatedEnv) -> None:
    home = Path(os.environ["HOME"])
    previous = os.umask(0o022)
    try:
        assert load().status is OperationStatus.SUCCESS
    finally:
        os.umask(previous)
    for path in home.rglob("*"):
        status = path.lstat()
        assert (status.st_uid, status.st_gid) == (SERVER.uid, SERVER.gid), path
        assert stat.S_IMODE(status.st_mode) == _mode_of(path), path
    program = "import os; os.setgid(54322); os.setuid(54321); os.makedirs(os.path.expanduser('~/.triton/cache/new'))"
    subprocess.run([sys.executable, "-c", program], check=True)
    (home.parent / "roots_again").mkdir()  # this process has its own rights again
    assert (home.parent / "roots_again").stat().st_uid == 0


def _mode_of(path: Path) -> int:
    if path.is_dir():
        return 0o755
    return 0o600 if path.name.endswith(".b10-lock") else 0o644


@pytest.mark.parametrize("merge", [False, True])
@pytest.mark.parametrize("where", [".triton", ".triton/cache", ".triton/cache/" + "A" * 52])
def test_links_of_the_user_lead_root_nowhere(
    servers: IsolatedEnv, tmp_path: Path, read_tree: ReadTree, where: str, merge: bool
) -> None:
    """The victim is a folder that root may write to and the user may not."""
    victim = tmp_path / "victim"
    victim.mkdir()
    link = Path(os.environ["HOME"]) / where
    with rights_of(SERVER):
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(victim)
    load(merge=merge)
    assert read_tree(victim) == {}
    assert not any(victim.iterdir())


def test_root_saves_nothing_from_the_cache_of_another_user(
    servers: IsolatedEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    with rights_of(SERVER):
        servers.fill(Path(os.environ["TRITON_CACHE_DIR"]), {"B" * 52 + "/launcher.so": b"planted"})
    report = save()
    assert report.status is not OperationStatus.SUCCESS
    assert f"belongs to user {SERVER.uid}" in report.reason
    monkeypatch.setenv("B10_SHARED_ROOTS", "1")
    assert save().status is OperationStatus.SUCCESS


def test_rights_are_those_of_the_user_in_this_thread_alone(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"")
    secret.chmod(0o600)
    os.chown(tmp_path, 0, 0)
    tmp_path.chmod(0o755)
    with rights_of(SERVER):
        with pytest.raises(PermissionError):
            secret.read_bytes()
        with pytest.raises(PermissionError):
            (tmp_path / "new").touch()
        assert os.getgroups() == []
    secret.read_bytes()
    assert os.geteuid() == 0
