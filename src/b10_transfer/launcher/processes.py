"""Being a server's parent: start it, pass signals on, reap what dies, tell its exit code.

Signals are blocked and waited for, in the main thread, rather than handled: so none is lost, and each says where it
came from. What a terminal sends (Ctrl-C) reaches the server by itself, since it is in the same process group, and is
not passed on a second time. The server gets the signal mask and the dispositions that this process was started with.
"""

from __future__ import annotations

import errno
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress

logger = logging.getLogger(__name__)

_SI_KERNEL = 0x80
"""``si_code`` of a signal that the kernel sent, as a terminal's driver does (``asm-generic/siginfo.h``)."""
STOPPING = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP})
_PASSED_ON = STOPPING | {signal.SIGUSR1, signal.SIGUSR2}


class Signals:
    """The signals of this process, blocked: only the main thread takes them, when it asks. A context manager."""

    def __init__(self) -> None:
        self._wanted = _PASSED_ON | {signal.SIGCHLD}
        self._original: Iterable[int] = ()

    def __enter__(self) -> Signals:
        # A parent that ignores SIGCHLD would have the kernel throw exit codes away.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._original = signal.pthread_sigmask(signal.SIG_BLOCK, self._wanted)
        return self

    def __exit__(self, *_: object) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._original)

    def take(self, timeout_s: float | None = None) -> signal.struct_siginfo | None:
        """The next signal, or None if none comes in time."""
        if timeout_s is None:
            return signal.sigwaitinfo(self._wanted)
        return signal.sigtimedwait(self._wanted, timeout_s)

    def wait_for(self, done: threading.Event, timeout_s: float, poll_s: float = 0.01) -> int | None:
        """Wait until ``done`` or for so long; returns early with the number of a signal that asks to stop."""
        end = time.monotonic() + timeout_s
        while not done.is_set() and (left_s := end - time.monotonic()) > 0:
            found = self.take(min(poll_s, left_s))
            if found is not None and found.si_signo in STOPPING:
                return found.si_signo
            if found is not None and found.si_signo == signal.SIGCHLD:
                reap_orphans()
        return None

    def spawn(self, arguments: Sequence[str]) -> int:
        """Start a program as if this process had not been there; returns its process id. Raises OSError."""
        # Python ignores these two for itself.
        defaults = [signal.SIGPIPE, signal.SIGXFSZ]
        sys.stdout.flush()
        return os.posix_spawnp(arguments[0], list(arguments), os.environ, setsigmask=self._original, setsigdef=defaults)

    def supervise(self, pid: int) -> int:
        """Pass signals on to a child until it ends; returns its exit code, 128 + n if signal n ended it."""
        while True:
            found = self.take()
            assert found is not None
            if found.si_signo == signal.SIGCHLD:
                status = _reap(pid)
                if status is not None:
                    code = os.waitstatus_to_exitcode(status)
                    return code if code >= 0 else 128 - code
            elif found.si_code != _SI_KERNEL:
                logger.debug("passing signal %d on to process %d", found.si_signo, pid)
                with suppress(ProcessLookupError):
                    os.kill(pid, found.si_signo)


def _reap(pid: int) -> int | None:
    """Reap the child ``pid`` and, as process 1, orphans; the child's status if it has ended."""
    reaped, status = os.waitpid(pid, os.WNOHANG)
    if reaped:
        return status
    reap_orphans(but=pid)
    return None


def reap_orphans(but: int = 0) -> None:
    """As process 1 of a container, reap adopted processes. Does nothing elsewhere: there they have another parent.

    This may take away exit statuses of this program's own helpers, which do without.
    """
    if os.getpid() != 1:
        return
    with suppress(ChildProcessError):
        while True:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if found is None or found.si_pid == but:
                return
            os.waitpid(found.si_pid, os.WNOHANG)


def exit_code_of(error: OSError) -> int:
    """What shells exit with if a program cannot be started: 127 if there is none, 126 otherwise."""
    return 127 if error.errno == errno.ENOENT else 126


def lower_priority() -> None:
    """Let the server go first: on Linux this holds for the calling thread and for those that it starts."""
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)
