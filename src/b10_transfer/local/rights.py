"""Root acts with the rights of another user, so that links of that user lead it to nothing that the user cannot change.

Linux gives every thread its own rights on file systems (``setfsuid``), so no other thread of the process is affected.
"""

from __future__ import annotations

import errno
import os
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from ..concurrency.forks import no_fork
from ..errors import LocalCacheError, explained
from .ownership import User

if TYPE_CHECKING:
    import ctypes

_SYSTEM_CALLS = {"x86_64": (116, 122, 123), "aarch64": (159, 151, 152)}
"""Numbers of setgroups, setfsuid and setfsgid. The C library's setgroups would change every thread."""
_UNCHANGED = -1
_GET_DUMPABLE, _SET_DUMPABLE = 3, 4


@contextmanager
def rights_of(user: User | None) -> Iterator[None]:
    """Let this thread use the rights of a user on file systems; None for its own rights.

    Raises LocalCacheError if it cannot.
    """
    if user is None:
        yield
        return
    with no_fork:
        import ctypes  # only root needs it, and every load would pay for the import

    libc = ctypes.CDLL(None, use_errno=True)
    groups, dumpable = os.getgroups(), libc.prctl(_GET_DUMPABLE)
    try:
        _assume(libc, user, [])
    except OSError as error:
        with suppress(OSError):
            _assume(libc, User(os.geteuid(), os.getegid()), groups)
        detail = f"root cannot take on the rights of user {user.uid} ({explained(error)}); run this as that user"
        raise LocalCacheError("write to", f"directories of user {user.uid}", detail) from error
    try:
        yield
    finally:
        _assume(libc, User(os.geteuid(), os.getegid()), groups)
        libc.prctl(_SET_DUMPABLE, dumpable)  # the kernel has switched core dumps off


def _assume(libc: ctypes.CDLL, user: User, groups: Sequence[int]) -> None:
    """Change the rights of this thread. The group changes first or last, because that needs root's rights."""
    import ctypes

    try:
        setgroups, setfsuid, setfsgid = _SYSTEM_CALLS[platform.machine()]
    except KeyError:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS)) from None
    libc.syscall(setfsuid, os.geteuid())
    if libc.syscall(setgroups, len(groups), (ctypes.c_uint32 * len(groups))(*groups)) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    for number, wanted in ((setfsgid, user.gid), (setfsuid, user.uid)):
        libc.syscall(number, wanted)
        if libc.syscall(number, _UNCHANGED) != wanted:  # these calls report no error
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))
