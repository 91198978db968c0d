"""Whether a path lies on a file system of this machine alone, found without touching any that may hang."""

from __future__ import annotations

import os

TYPE_CHECKING = False  # importing typing would cost every worker process 4 ms
if TYPE_CHECKING:
    from collections.abc import Mapping

_DISKS = {"ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "bcachefs", "jfs", "reiserfs"}
_LOCAL = _DISKS | {"tmpfs", "devtmpfs", "ramfs", "overlay", "erofs", "squashfs"}
"""File systems without a server. NFS is not among them: its reads can be killed, but a wait for writeback cannot."""
_MOST_LINKS = 40


def is_local(path: str, kinds: Mapping[str, str] | None = None) -> bool:
    """Whether an absolute path, its links followed, and all that is mounted below it are local.

    False if that is unknown. A component is looked at only after its file system has proved to be local, so a
    hung mount is recognised by its entry in the kernel's table and never asked.

    Args:
        path: The path.
        kinds: The result of :func:`mounts`, for many paths. Default: it is read.
    """
    if kinds is None:
        kinds = mounts()
    resolved = _resolved(path, kinds)
    if resolved is None:
        return False
    return all(kind in _LOCAL for mount, kind in kinds.items() if mount.startswith(f"{resolved}/"))


def is_on_root_file_system(path: str) -> bool:
    """Whether an absolute path, its links followed, is on the file system of ``/``; False if that is unknown.

    That is a container's own disk, which no other container sees.
    """
    kinds = mounts()
    resolved = _resolved(path, kinds)
    if resolved is None:
        return False
    return not any(f"{resolved}/".startswith(f"{mount}/") for mount in kinds if mount != "/")


def _resolved(path: str, kinds: Mapping[str, str]) -> str | None:
    """An absolute path without links; None if it leads to a file system that is not local, or if that is unknown."""
    if kinds.get("/") not in _LOCAL:
        return None
    resolved, pending, links = "", path.split("/"), 0
    while pending:
        name = pending.pop(0)
        if name in ("", "."):
            continue
        if name == "..":
            resolved = resolved.rpartition("/")[0]
            continue
        candidate = f"{resolved}/{name}"
        if kinds.get(candidate, "ext4") not in _LOCAL:
            return None
        try:
            target = os.readlink(candidate)
        except OSError:  # no link, or not there yet
            resolved = candidate
            continue
        links += 1
        if links > _MOST_LINKS:
            return None
        if target.startswith("/"):
            resolved = ""
        pending = target.split("/") + pending
    return resolved


def mounts(table: str = "/proc/self/mountinfo") -> dict[str, str]:
    """The kind of file system that is mounted at each mount point; of several at one point the last counts."""
    kinds = {}
    try:
        with open(table, encoding="utf-8", errors="surrogateescape") as file:
            for line in file:
                fields, _, rest = line.partition(" - ")
                kinds[_unescaped(fields.split(" ")[4])] = rest.split(" ")[0]
    except (OSError, IndexError):
        return {}
    return kinds


def is_mount_point(path: str | os.PathLike[str]) -> bool:
    """Also of a bind mount from the same file system, which ``os.path.ismount`` does not notice."""
    return os.path.ismount(path) or os.fspath(path) in mounts()


def _unescaped(mount_point: str) -> str:
    """The kernel writes blanks, tabs, newlines and backslashes of a mount point in octal."""
    for character in " \t\n\\":
        mount_point = mount_point.replace(f"\\{ord(character):03o}", character)
    return mount_point
