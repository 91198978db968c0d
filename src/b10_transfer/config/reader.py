"""Typed access to environment variables."""

from __future__ import annotations

import logging
import os
import re
import stat
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from ..concurrency.forks import no_fork
from ..errors import ConfigurationError, RemotePathError
from ..notices import notices

logger = logging.getLogger(__name__)

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_MOST_COMPONENTS = 10_000
"""More components than any path that the kernel resolves. It ends the walk along links that form a circle."""


class Variable(NamedTuple):
    """One environment variable, as docs/configuration.md shows it."""

    name: str
    default: str
    rule: str
    meaning: str


class EnvReader:
    """Typed access to environment variables. An empty value counts as unset, except in variables that protect."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def text(self, name: str) -> str | None:
        return self._environ.get(name) or None

    def protecting_text(self, name: str) -> str | None:
        """The value of a variable that protects something. Empty is refused, because it would remove the protection.

        Raises:
            ConfigurationError: The variable is set and holds nothing but blanks.
        """
        value = self._environ.get(name)
        if value is not None and not value.strip():
            rule = "it is set but empty. Give it a value, or unset it if this protection is not wanted"
            raise ConfigurationError(name, value, rule)
        return value

    def whole_number(self, name: str, default: int, minimum: int) -> int:
        text = self.text(name)
        if text is None:
            return default
        # ASCII digits only: int() would also take "1_0", " 1 " and other scripts' digits.
        if not re.fullmatch(r"\d{1,15}", text, re.ASCII) or int(text) < minimum:
            raise ConfigurationError(name, text, f"it must be a whole number of at least {minimum}")
        return int(text)

    def capped(self, name: str, default: int, cap_name: str, cap_default: int, *, minimum: int = 1) -> int:
        """A number of at least ``minimum``, clamped to its cap with a warning."""
        value = self.whole_number(name, default, minimum)
        cap = self.whole_number(cap_name, cap_default, minimum)
        if value > cap:
            logger.warning("%s=%d is above its cap, %s=%d is used instead", name, value, cap_name, cap)
            return cap
        return value

    def flag(self, name: str, *, default: bool, protects: bool = False) -> bool:
        """A flag. One that ``protects`` something must not be empty."""
        text = self.protecting_text(name) if protects else self.text(name)
        if text is None:
            return default
        if text not in ("0", "1"):
            raise ConfigurationError(name, text, "it must be 0 or 1")
        return text == "1"

    def seconds(self, name: str, default: float) -> float:
        text = self.text(name)
        return default if text is None else parse_seconds(name, text)

    def seconds_or_zero(self, name: str) -> float:
        """A number of seconds; 0 if the variable is not set or 0."""
        text = self.text(name)
        return 0.0 if text in (None, "0", "0.0") else self.seconds(name, 0.0)

    def path(self, name: str) -> Path | None:
        """An absolute path without links or ``..``, or None if the variable is unset."""
        text = self.text(name)
        return None if text is None else resolve(name, text)

    def literal_path(self, name: str) -> Path | None:
        """A path from a variable whose other reader, a compiler, does not expand ``~`` but takes it as a name."""
        text = self.text(name)
        if text is None or not text.startswith("~"):
            return self.path(name)
        notices.log(
            logger,
            logging.WARNING,
            f"{name}={text}: the program that reads this variable does not expand '~', so it uses the folder {text} in "
            "the working directory. Set it to an absolute path",
        )
        return resolve(name, os.path.join(os.curdir, text))

    def absolute_path(self, name: str) -> Path | None:
        """A path that must be absolute, because a server in another working directory would resolve it differently."""
        text = self.text(name)
        if text is not None and not os.path.isabs(os.path.expanduser(text)):
            raise ConfigurationError(name, text, "it must be an absolute path")
        return self.literal_path(name)


def parse_seconds(name: str, text: str) -> float:
    """Parse a number of seconds, above 0 and at most 86400. Raises ConfigurationError."""
    rule = "it must be a number of seconds above 0 and at most 86400"
    try:
        seconds = float(text)
    except ValueError as error:
        raise ConfigurationError(name, text, rule) from error
    if not 0 < seconds <= 86400:  # also refuses NaN
        raise ConfigurationError(name, text, rule)
    return seconds


def resolve(name: str, text: str) -> Path:
    """An absolute path without links or ``..``.

    Raises :class:`ConfigurationError` if it is a URL, cannot be resolved, or leads through a link of another user.
    """
    if "\0" in text:
        raise ConfigurationError(name, text, "it must not hold a NUL character")
    if _URL.match(text):  # as a path it would become a folder in the working directory
        raise RemotePathError(name, text, "it must be a local path, but is a URL")
    try:
        # Not normalised: after a link, ".." is the parent of the target.
        path = from_working_directory(name, os.path.expanduser(text))
        resolved = os.path.realpath(path)
        if resolved != path and (link := _foreign_link(path)):
            raise ConfigurationError(name, text, f"it leads through {link}, a link that belongs to another user")
        return Path(resolved)
    except OSError as error:
        raise ConfigurationError(name, text, f"its links cannot be resolved ({error})") from error


def from_working_directory(name: str, path: str) -> str:
    """An absolute path: a relative one is joined to the working directory.

    Raises:
        ConfigurationError: The path is relative and the working directory was deleted.
    """
    if os.path.isabs(path):
        return path
    try:
        return os.path.join(os.getcwd(), path)
    except FileNotFoundError as error:
        rule = "the working directory that it is relative to has been deleted; give an absolute path"
        raise ConfigurationError(name, path, rule) from error


def temporary_directory() -> str:
    """The directory for temporary files. If none is usable: the default, so that its user reports the error."""
    try:
        with no_fork:
            return tempfile.gettempdir()
    except FileNotFoundError:
        return os.environ.get("TMPDIR") or "/tmp"


def _foreign_link(path: str) -> str | None:
    """The first link in a path that belongs neither to this user nor to root."""
    resolved, pending = "", path.split("/")
    for _component in range(_MOST_COMPONENTS):
        if not pending:
            break
        name = pending.pop(0)
        if name in ("", "."):
            continue
        if name == "..":
            resolved = resolved.rpartition("/")[0]
            continue
        candidate = f"{resolved}/{name}"
        try:
            status = os.lstat(candidate)
        except (FileNotFoundError, NotADirectoryError):
            break
        if not stat.S_ISLNK(status.st_mode):
            resolved = candidate
            continue
        if status.st_uid not in (os.geteuid(), 0):
            return candidate
        target = os.readlink(candidate)
        resolved = "" if target.startswith("/") else resolved
        pending = target.split("/") + pending
    return None


def real_path(path: str) -> Path:
    """The absolute path without links or ``..`` of a path that no user chose."""
    return Path(os.path.realpath(os.path.expanduser(path)))


def is_below(path: Path, parents: Iterable[Path]) -> bool:
    """Whether a path is below one of some others. All must be absolute and without links."""
    # As text: ``Path.parents`` would take 8 ms for the places of all caches.
    text = os.fspath(path)
    return any(text.startswith(f"{parent}/".replace("//", "/")) and text != "/" for parent in parents)
