"""The message if a store's file system refuses an operation: the object, its owner, its mode, and what to do."""

from __future__ import annotations

import errno
import os
import stat


def reason_read_only(top: str, staging: str, error: OSError | None = None) -> str:
    """Why this process can write nothing to a store, although the store is there.

    Args:
        top: The store's top folder.
        staging: The folder in it that each write begins in.
        error: The error of a write, if one was tried.

    Returns:
        The reason; empty if one of the two folders can be written, or if the top folder is missing.
    """
    if not os.path.isdir(top):
        return ""
    if error is not None and error.errno == errno.EROFS:
        return os.strerror(errno.EROFS)
    if (error is not None and not isinstance(error, PermissionError)) or _is_writable(top) or _is_writable(staging):
        return ""
    if os.statvfs(top).f_flag & os.ST_RDONLY:
        return os.strerror(errno.EROFS)
    return explained_refusal(error or PermissionError(errno.EACCES, os.strerror(errno.EACCES), top), top)


def _is_writable(folder: str) -> bool:
    return os.access(folder, os.W_OK | os.X_OK, effective_ids=os.access in os.supports_effective_ids)


def explained_refusal(error: PermissionError, top: str) -> str:
    """Explain a refusal of an operation on ``error.filename``, in the store with the top folder ``top``."""
    text = error.strerror or str(error)
    found = _nearest(str(error.filename or top))
    if found is None:
        return text
    path, status = found
    uid, groups = os.geteuid(), {os.getegid(), *os.getgroups()}
    if uid == 0:  # no mode refuses root: it is the file system that does
        return f"{text}; {path} belongs to uid {status.st_uid}, and its server does not let root in (root_squash?)"
    owner = f"{path} belongs to uid {status.st_uid}, gid {status.st_gid}, mode {stat.S_IMODE(status.st_mode):04o}"
    return f"{text}; {owner}; this process is uid {uid}, gid {os.getegid()}. {_advice(top, status, uid, groups)}"


def _advice(top: str, status: os.stat_result, uid: int, groups: set[int]) -> str:
    quoted = _quoted(top)
    if status.st_uid == uid:
        return f"Run: chmod -R u+rwX {quoted}"
    if status.st_gid in groups:
        return f"As its owner or root, run: chmod -R g+rwX {quoted}"
    return f"As root, run: chgrp -R {os.getegid()} {quoted} && chmod -R g+rwX {quoted}"


def _quoted(path: str) -> str:
    """A path for a shell. (The module ``shlex`` is not imported for it: a worker's imports delay every load.)"""
    is_plain = all(character.isalnum() or character in "/._-+@%" for character in path)
    return path if is_plain else "'" + path.replace("'", "'\"'\"'") + "'"


def _nearest(path: str) -> tuple[str, os.stat_result] | None:
    """The object itself, or the innermost folder on the way to it whose status can be read."""
    while path:
        try:
            return path, os.lstat(path)
        except OSError:
            path = os.path.dirname(path) if path != "/" else ""
    return None
