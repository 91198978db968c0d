"""Errors of this package. Each has its arguments as attributes, and says what happened to what, why, and what to do.

They are raised inside. The public functions turn them into an :class:`~b10_transfer.status.OperationStatus`, in
``operations/public.py``, and put them into the report.
"""

from __future__ import annotations

import errno
import re

MORE_FILES = "raise the limit of open files (ulimit -n)"
MORE_PROCESSES = "raise the limit of processes and threads (ulimit -u, or the container's limit of pids)"


def explained(error: OSError) -> str:
    """The text of a system error, with advice if its text gives none."""
    text = error.strerror or str(error)
    return f"{text}; {MORE_FILES}" if error.errno == errno.EMFILE else text


def printable(text: str) -> str:
    """Escape characters that a log handler cannot write, or that control a terminal or begin a line.

    Paths, variables and texts from a store may have any character.
    """
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def count(number: int, what: str) -> str:
    """``1 pack``, ``2 packs``."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def without_secrets(text: str) -> str:
    """A text for a message, without the credentials and the query of any URL in it: both may hold secrets."""
    text = printable(text)
    if "://" not in text or text.startswith("file://"):
        return text
    return re.sub(r"\?\S*", "?…", re.sub(r"//.*@", "//…@", text))


class CacheError(Exception):
    """Base of the errors that this package raises."""


class CacheValidationError(CacheError):
    """A setting, or the bytes of a pack, break a rule. A name of the published 0.4.1."""


class CacheOperationInterrupted(CacheError):  # noqa: N818 - a name of the published 0.4.1
    """An operation stopped because a file system is full. A name of the published 0.4.1."""


class ConfigurationError(CacheValidationError):
    """A setting is not usable. The operation changed nothing.

    Args:
        variable: Name of the environment variable or of the argument.
        value: Its value.
        rule: The rule that the value breaks.
    """

    def __init__(self, variable: str, value: str, rule: str) -> None:
        self.variable = variable
        self.value = without_secrets(value)
        self.rule = without_secrets(rule)
        super().__init__(f"{variable}={self.value!r} is not usable: {self.rule}")


class RemotePathError(ConfigurationError):
    """A setting is a URL, and only a local path is usable."""


class StoreError(CacheError):
    """The store, or an object in it, could not be read or written. ``__cause__`` is the foreign error, if there is one.

    Args:
        operation: The action that failed, for example ``read``.
        target: Directory or URL of the store, or name of the object.
        detail: Why the action failed.
    """

    def __init__(self, operation: str, target: str, detail: str) -> None:
        self.operation = operation
        self.target = printable(target)
        self.detail = printable(detail)
        super().__init__(f"could not {operation} {self.target}: {self.detail}")


class ReadOnlyStoreError(StoreError):
    """The store refuses every write of this process, which may read it: a read-only mount, or no permission."""


class PackError(CacheError):
    """A pack cannot be used. Loads ignore it.

    Args:
        pack: Id of the pack.
        detail: Why it cannot be used.
    """

    def __init__(self, pack: str, detail: str) -> None:
        self.pack = pack
        self.detail = printable(detail)
        super().__init__(f"pack {pack}: {self.detail}")


class CorruptPackError(PackError, CacheValidationError):
    """The bytes of a pack are not those that were published, or break a rule of the format: damage, or an attack."""


class UnreadablePackError(PackError):
    """The store failed to deliver a pack. The pack itself may be sound."""


class UnsupportedPackError(PackError):
    """A sound pack that this version cannot use, because a newer version wrote it. Nothing changes or deletes it."""


class UnnamedCachesError(UnsupportedPackError):
    """A sound pack that holds only extra caches that B10_EXTRA_CACHES of this pod does not name."""


class UntrustedPackError(PackError):
    """No trusted key signed this pack."""


class PackTooLargeError(PackError):
    """A pack is over this reader's own limits, or a load has no room for it beside newer packs.

    Args:
        pack: Id of the pack.
        detail: Why it cannot be used.
        limit: The limit, with its unit. Default: empty, none in particular.
        variable: The environment variable that raises the limit. Default: empty, there is none.
    """

    def __init__(self, pack: str, detail: str, limit: str = "", variable: str = "") -> None:
        self.limit = limit
        self.variable = variable
        super().__init__(pack, detail)


class PackFullError(CacheError):
    """A unit does not fit into the pack that is being written; an empty pack has room for it."""


class SaveTooLargeError(CacheError):
    """Something to publish is over a limit, and splitting it into packs does not help. It was not published.

    Args:
        subject: The unit or the file.
        what: Its size or number, with the unit.
        limit: The limit, with its unit.
        variable: The environment variable that raises the limit. Default: empty, there is none.
    """

    def __init__(self, subject: str, what: str, limit: str, variable: str = "") -> None:
        self.subject = subject
        self.what = what
        self.limit = limit
        self.variable = variable
        advice = f". Raise {variable} in every pod that saves or loads it" if variable else ""
        super().__init__(f"{subject} has {what}, over the limit of {limit}, and was not published{advice}")


class ImportFileError(CacheError):
    """A file is not a complete export. Nothing of it was published."""

    def __init__(self, path: str, detail: str) -> None:
        self.path = path
        self.detail = detail
        super().__init__(f"could not import {path}: {detail}; nothing was published")


class NoSpaceError(CacheOperationInterrupted):
    """A local file system has no room for the units of a cache. Nothing was restored there.

    Args:
        path: A folder on the file system.
        needed_bytes: Bytes that the restore writes.
        free_bytes: Bytes that this user may still write.
        variable: The environment variable that says where the cache is; "" if there is none.
        needed_files: Files and folders that the restore creates.
        free_files: How many this user may still create; None if the file system has no such limit.
    """

    def __init__(
        self,
        path: str,
        needed_bytes: int,
        free_bytes: int,
        variable: str = "",
        needed_files: int = 0,
        free_files: int | None = None,
    ) -> None:
        self.path = path
        self.needed_bytes = needed_bytes
        self.free_bytes = free_bytes
        self.variable = variable
        self.needed_files = needed_files
        self.free_files = free_files
        place = f"point {variable} at" if variable else "use"
        if free_files is not None and free_files < needed_files:
            lack = f"{path} has room for {free_files} more files (inodes) and the restore creates {needed_files}"
            super().__init__(f"{lack}; remove files, or {place} another file system")
            return
        super().__init__(
            f"{path} has {free_bytes / 1e6:.1f} MB free and the restore needs {needed_bytes / 1e6:.1f} MB; "
            f"free some space, or {place} a larger file system"
        )


class UnidentifiedDeviceError(CacheError):
    """This pod has a device that the environment key cannot name. Artifacts would get a wrong key."""


class LocalCacheError(CacheError):
    """A local cache root, or the local working directory, could not be read or written.

    Args:
        operation: The action that failed, for example ``read``.
        path: The file or directory.
        detail: Why the action failed.
    """

    def __init__(self, operation: str, path: str, detail: str) -> None:
        self.operation = operation
        self.path = path
        self.detail = detail
        super().__init__(f"could not {operation} {path}: {detail}")


class NoThreadError(CacheError):
    """The system refuses to start another thread for this process.

    Args:
        error: The error of Python's ``threading``.
    """

    def __init__(self, error: RuntimeError) -> None:
        super().__init__(f"no thread could be started ({error}); {MORE_PROCESSES}")


class DeadlineExceededError(CacheError):
    """An operation did not end before its deadline.

    Args:
        operation: Name of the operation.
        deadline_s: The deadline, in seconds.
        waiting_for: What the operation was doing.
    """

    def __init__(self, operation: str, deadline_s: float, waiting_for: str) -> None:
        self.operation = operation
        self.deadline_s = deadline_s
        self.waiting_for = waiting_for
        super().__init__(
            f"{operation} gave up after its deadline of {deadline_s:g} s while {waiting_for}. If the store is "
            "healthy but slow, raise B10_DEADLINE_SECONDS; if it hangs, check the mount, or the network to the bucket"
        )
