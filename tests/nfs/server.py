"""The NFS server of the guest, and what lies on it behind its clients' backs."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

EXPORT = Path("/mnt/export")
"""The file system that the server exports, as it sees it itself: what is done there no client knows of."""
MOUNTS = {"v3": Path("/mnt/v3"), "v4.2": Path("/mnt/v4.2")}
OPTIONS = "rw,no_root_squash,fsid=0,insecure,no_subtree_check,sync"
_CLIENT = f"127.0.0.1:{EXPORT}"


class Server:
    """Exports, stops and starts. Clients wait for a stopped server; what is not exported they are refused."""

    def export(self, **changed: str) -> None:
        """Export with some options replaced: ``export(rw="ro")``."""
        options = [changed.get(option, option) for option in OPTIONS.split(",")]
        _run("exportfs", "-o", ",".join(options), _CLIENT)
        _run("exportfs", "-f")

    def unexport(self) -> None:
        _run("exportfs", "-u", _CLIENT)
        _run("exportfs", "-f")

    def stop(self) -> None:
        _run("rpc.nfsd", "0")

    def start(self) -> None:
        _run("rpc.nfsd", "--grace-time", "10", "--lease-time", "10", "4")

    def drop_caches(self) -> None:
        """Make clients and server forget what they have read. It waits for a server that is stopped."""
        os.sync()
        Path("/proc/sys/vm/drop_caches").write_text("3")

    def restore(self) -> None:
        """As it was when the guest booted."""
        self.export()
        self.start()


def behind(path: Path) -> Path:
    """Where the server has what a client sees at ``path``."""
    [mount] = [mount for mount in MOUNTS.values() if mount in path.parents]
    return EXPORT / path.relative_to(mount)


def seen_through(path: Path, version: str) -> Path:
    """What a client sees at ``path``, as a client that speaks another version sees it."""
    return MOUNTS[version] / behind(path).relative_to(EXPORT)


def version_of(path: Path) -> str:
    """The version of the protocol by which ``path`` is mounted."""
    [version] = [version for version, mount in MOUNTS.items() if mount in path.parents]
    return version


def mount(version: str, at: Path, options: str) -> None:
    """Mount the export once more, with other options."""
    kind, source = ("nfs", _CLIENT) if version == "v3" else ("nfs4", "127.0.0.1:/")
    _run("mount", "-t", kind, "-o", f"vers={version.removeprefix('v')},{options}", source, str(at))


def unmount(at: Path) -> None:
    _run("umount", "-f", "-l", str(at))


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=60)
