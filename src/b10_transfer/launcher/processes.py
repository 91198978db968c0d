"""The parent of a server: starts it, passes signals on, reaps processes that end, and returns its exit code.

Signals are blocked, and the main thread waits for them instead of handling them. So none is lost, and each has its
sender. A terminal sends its signals (Ctrl-C) to the whole process group, so the server gets them without help, and
this process does not pass them on. It leaves SIGTSTP alone, because that has to stop both. A signal that a program
sends to the whole group reaches the server twice: nothing shows that it was not for this process alone.

The server gets the signal mask and the dispositions that this process was started with. There are two exceptions.
Python ignores SIGPIPE and SIGXFSZ and forgets whether they were ignored before, so the server gets their defaults. The
C library keeps 32 and 33 for itself, so they are ignored in a program that glibc's ``posix_spawn`` starts.
"""

from __future__ import annotations

import errno
import logging
import os
import shutil
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

from .processtable import environment_of, processes

logger = logging.getLogger(__name__)

_SI_KERNEL = 0x80
"""``si_code`` of a signal that the kernel sent, as a terminal's driver does (``asm-generic/siginfo.h``)."""
STOPPING = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP})
_PASSED_ON = STOPPING | {signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGVTALRM, signal.SIGIO, signal.SIGPWR}
_REAL_TIME = range(signal.SIGRTMIN, signal.SIGRTMAX + 1)
"""Passed on as well: each of these would end this process and leave the server without a parent."""
_IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)
_PR_SET_PDEATHSIG = 1
"""``prctl``'s request for a signal when the parent dies (``linux/prctl.h``)."""
_WORKER = "b10_transfer.stores.worker.server"
"""A part of the command line of each of the store's worker processes."""


class Signals:
    """The signals of this process. They are blocked for the rest of its life, and only the main thread takes them.

    Create it before any other thread starts: a signal could otherwise interrupt that thread.
    """

    def __init__(self) -> None:
        self._wanted = {*_PASSED_ON, *_REAL_TIME, signal.SIGCHLD}
        # Blocked signals arrive even if they are ignored, as under nohup and in the background of a shell script.
        self._ignored = {number for number in STOPPING if signal.getsignal(number) is signal.SIG_IGN}
        # Where SIGCHLD is ignored, the kernel throws exit codes away.
        self._children_ignored = signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._original = signal.pthread_sigmask(signal.SIG_BLOCK, self._wanted)
        self.asked_to_stop = False
        """Whether a signal that stops a process has arrived."""

    def give_back(self) -> None:
        """Restore the signal mask and the dispositions of before."""
        if self._children_ignored:
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._original)

    def take(self, timeout_s: float | None = None) -> signal.struct_siginfo | None:
        """The next signal, or None if none comes in time."""
        if timeout_s is None:
            found: signal.struct_siginfo | None = signal.sigwaitinfo(self._wanted)
        else:
            found = signal.sigtimedwait(self._wanted, timeout_s)
        if found is not None and found.si_signo in STOPPING - self._ignored:
            self.asked_to_stop = True
        return found

    def wait_for(self, done: threading.Event, timeout_s: float, poll_s: float = 0.01) -> int | None:
        """Wait until ``done`` or for so long; returns early with the number of a signal that asks to stop."""
        end = time.monotonic() + timeout_s
        while not done.is_set() and (left_s := end - time.monotonic()) > 0:
            found = self.take(min(poll_s, left_s))
            if found is not None and found.si_signo in STOPPING - self._ignored:
                return found.si_signo
            if found is not None and found.si_signo == signal.SIGCHLD:
                reap_orphans()
        return None

    def spawn(
        self, arguments: Sequence[str], *, dies_with_this: bool = False, variables: Mapping[str, str] | None = None
    ) -> int:
        """Start a program with the signals and the environment that this process was started with.

        Args:
            arguments: The command line.
            dies_with_this: Whether the kernel sends it SIGTERM when this process dies, by SIGKILL too (Linux only).
            variables: Environment variables that it gets as well.

        Returns:
            The process id.

        Raises:
            OSError: The program cannot be started.
        """
        environ = original_environment() | dict(variables or {})
        if dies_with_this:
            return self._fork(arguments, environ)
        if self._children_ignored:
            # Only until the program runs: before it can end, SIGCHLD is no longer ignored.
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        try:
            return os.posix_spawnp(
                arguments[0],
                list(arguments),
                environ,
                setsigmask=self._original,
                setsigdef=_IGNORED_BY_PYTHON,
            )
        finally:
            if self._children_ignored:
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)

    def _fork(self, arguments: Sequence[str], environ: Mapping[str, str]) -> int:
        """Start a program that dies with this process. ``posix_spawn`` cannot ask for that, hence a fork."""
        import ctypes

        prctl = ctypes.CDLL(None, use_errno=True).prctl
        parent = os.getpid()
        # The child tells an error through a pipe that closes when the program starts.
        receiving, sending = os.pipe2(os.O_CLOEXEC)
        pid = os.fork()
        if pid == 0:
            try:
                prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
                if os.getppid() != parent:  # it died before the request
                    os._exit(128 + signal.SIGTERM)
                for number in _IGNORED_BY_PYTHON:
                    signal.signal(number, signal.SIG_DFL)
                if self._children_ignored:
                    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
                signal.pthread_sigmask(signal.SIG_SETMASK, self._original)
                os.execvpe(arguments[0], list(arguments), environ)
            except OSError as error:
                os.write(sending, b"%d" % (error.errno or errno.EIO))
            finally:
                os._exit(127)
        os.close(sending)
        with open(receiving, "rb") as answer:
            failed = answer.read()
        if failed:
            os.waitpid(pid, 0)
            raise OSError(int(failed), os.strerror(int(failed)), arguments[0])
        return pid

    def supervise(self, pid: int) -> int:
        """Pass signals on to a child until it ends; returns its exit code, 128 + n if signal n ended it."""
        # Reaped first, because a change of SIGCHLD's disposition, as in spawn(), discards a pending SIGCHLD.
        while (status := _reap(pid)) is None:
            found = self.take()
            assert found is not None
            if found.si_signo != signal.SIGCHLD and not _is_the_servers_too(found):
                logger.debug("passing signal %d on to process %d", found.si_signo, pid)
                try:
                    os.kill(pid, found.si_signo)
                except OSError as error:  # it has become another user's, or has just ended
                    logger.debug("signal %d cannot be passed on: %s", found.si_signo, error.strerror)
        return _as_a_shell_tells(status)


def wait_for_exit(pid: int) -> int:
    """Wait for a child and ignore signals. Returns its exit code as :meth:`Signals.supervise` does."""
    return _as_a_shell_tells(os.waitpid(pid, 0)[1])


def _as_a_shell_tells(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _is_the_servers_too(received: signal.struct_siginfo) -> bool:
    """Whether the server received a signal too, because a terminal sent it to the whole foreground process group.

    If a terminal closes, the kernel sends SIGHUP to the session's leader alone (``tty_signal_session_leader``).
    """
    closed = received.si_signo == signal.SIGHUP and os.getsid(0) == os.getpid()
    return received.si_code == _SI_KERNEL and not closed


def original_environment() -> dict[str, str]:
    """The environment without the variable that Python adds if no language is set (PEP 538)."""
    environ = dict(os.environ)
    if "LC_CTYPE" in environ and "LC_CTYPE" not in environment_of(os.getpid()):
        del environ["LC_CTYPE"]
    return environ


def _reap(pid: int) -> int | None:
    """Reap the child ``pid`` and, as process 1, orphans; the child's status if it has ended."""
    reaped, status = os.waitpid(pid, os.WNOHANG)
    if reaped:
        return status
    reap_orphans(but=pid)
    return None


def reap_orphans(but: int = 0) -> None:
    """Reap adopted processes if this is process 1 of a container. Otherwise do nothing: they have another parent.

    This may take exit statuses of this program's own helpers, which do not need them.
    """
    if os.getpid() != 1:
        return
    with suppress(ChildProcessError):  # there is no child left
        while True:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if found is None or found.si_pid == but:
                return
            with suppress(ChildProcessError):  # another thread has been waiting for this one
                os.waitpid(found.si_pid, os.WNOHANG)


def end_workers() -> None:
    """Kill the store's workers that an abandoned load or save has left, so that none outlives this process.

    A worker in a call that the kernel does not interrupt ends when that call ends.
    """
    for process in processes():
        if process.parent == os.getpid() and any(_WORKER in argument for argument in process.arguments):
            with suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)


def why_not_started(program: str, error: OSError) -> tuple[int, str]:
    """The exit code of shells if a program cannot be started, and the reason: 127 if it does not exist, 126 otherwise.

    The C library reports a missing program as EACCES if one folder of PATH cannot be searched.
    """
    is_missing = "/" not in program and shutil.which(program, os.F_OK) is None
    if is_missing or error.errno == errno.ENOENT:
        return 127, os.strerror(errno.ENOENT)
    return 126, error.strerror or str(error)
