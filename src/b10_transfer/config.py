"""Configuration: the one place where environment variables are read, checked and explained.

``VARIABLES`` is the documentation (docs/configuration.md is generated from it); :meth:`Config.from_environment` is
the reader. A value that breaks its rule raises :class:`ConfigurationError` and nothing is touched; a number above its
cap is clamped with a warning.
"""

from __future__ import annotations

import getpass
import logging
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .errors import ConfigurationError

logger = logging.getLogger(__name__)

MOUNT = Path("/cache/model")
"""Where a shared volume is expected when no store is configured."""

MB = 1024 * 1024


@dataclass(frozen=True)
class Variable:
    """One environment variable, as documented."""

    name: str
    default: str
    rule: str
    meaning: str


VARIABLES: tuple[Variable, ...] = (
    Variable(
        "TORCHINDUCTOR_CACHE_DIR",
        "`<temporary directory>/torchinductor_<username>`, as torch computes it",
        "a folder under `/tmp/`, `/cache/` or `~/.cache` (or torch's own default), links and `..` resolved",
        "Inductor's cache directory: what is saved from, and restored to.",
    ),
    Variable(
        "TRITON_CACHE_DIR",
        "`~/.triton/cache` (below `TRITON_HOME` if that is set)",
        "an absolute path",
        "Triton's own cache directory, where kernels outside Inductor are kept.",
    ),
    Variable(
        "B10_STORE",
        "unset",
        "a directory, or a `file://` URL; its parent must exist",
        "Where packs live. Overrides `B10FS_CACHE_DIR`.",
    ),
    Variable(
        "B10FS_CACHE_DIR",
        "`/cache/model/compile_cache`; without `/cache/model`, `~/.cache/b10-transfer/store` (not shared)",
        "a directory; its parent must exist, unless it lies under `/cache/model`",
        "Where packs live.",
    ),
    Variable(
        "B10_NAMESPACE",
        "`default`",
        "letters, digits, `.`, `_`, `-`, not beginning with a sign; at most 100",
        "Separates workloads in one store.",
    ),
    Variable(
        "B10_DEADLINE_SECONDS",
        "`60`",
        "a positive number of seconds",
        "Bounds a load or a save, hung mounts included. A full-size archive (1 GiB) needs 18 MB/s to arrive in 60 s, "
        "slower than a busy NFS mount; a compilation worth caching costs about as long, so waiting longer seldom pays.",
    ),
    Variable(
        "B10_MERGE",
        "`0`",
        "`0` or `1`",
        "Whether a load adds the units that are missing locally instead of skipping when artifacts are there already.",
    ),
    Variable(
        "LOCAL_WORK_DIR",
        "`/app`; the temporary directory if `/app` is missing or not writable",
        "a folder in `/app/`, `/tmp/` or `/cache/`, links and `..` resolved",
        "Where a pack is built before it is published.",
    ),
    Variable(
        "MAX_CACHE_SIZE_MB",
        "`1024`, capped by `MAX_CACHE_SIZE_CAP_MB` (`1024`)",
        "a whole number of MiB, at least 1",
        "Largest single archive. A larger save is an error; a larger pack is not loaded.",
    ),
    Variable(
        "MAX_CONCURRENT_SAVES",
        "`50`, capped by `MAX_CONCURRENT_SAVES_CAP` (`100`)",
        "a whole number, at least 1",
        "Savers at work on one store at once; the rest wait within their deadline.",
    ),
    Variable(
        "CLEANUP_LOCK_TIMEOUT_SECONDS",
        "`30`, capped by `LOCK_TIMEOUT_CAP_SECONDS` (`3600`)",
        "a whole number of seconds",
        "Age at which a dead replica's lock is broken. A live holder renews its own.",
    ),
    Variable(
        "CLEANUP_INCOMPLETE_TIMEOUT_SECONDS",
        "`60`, capped by `INCOMPLETE_TIMEOUT_CAP_SECONDS` (`7200`)",
        "a whole number of seconds",
        "Age at which an abandoned staging file is removed. One that is still growing is not.",
    ),
    Variable(
        "B10_LOCKS",
        "`1`",
        "`0` or `1`",
        "Locks and leases, which only save work: with `0` ranks and replicas may do the same work twice, no more.",
    ),
)


@dataclass(frozen=True)
class Config:
    """Checked settings of one operation. Sizes are in bytes, times in seconds."""

    inductor_dir: Path
    inductor_default_dir: Path
    """Where Inductor keeps what it does not keep in ``inductor_dir``."""
    triton_dir: Path
    store: Path
    store_parents_may_be_made: bool
    """Whether missing parents of the store are made: only below a mount that is known to be one."""
    namespace: str
    merge: bool
    work_dir: Path
    max_pack_bytes: int
    max_concurrent_saves: int
    lock_timeout_s: int
    incomplete_timeout_s: int
    locks: bool

    @classmethod
    def from_environment(
        cls,
        environ: Mapping[str, str] | None = None,
        *,
        namespace: str | None = None,
        store: str | os.PathLike[str] | None = None,
        merge: bool | None = None,
    ) -> Config:
        """Read and check every setting; keyword arguments override their variables.

        Paths are resolved, which touches file systems that may hang: call it under a deadline.

        Raises :class:`ConfigurationError` naming the variable, its value and the rule it breaks.
        """
        env = _Reader(os.environ if environ is None else environ)
        store_dir, parents_may_be_made = _store(env, store)
        return cls(
            inductor_dir=_inductor_dir(env),
            inductor_default_dir=_real(str(default_inductor_dir())),
            triton_dir=_triton_dir(env),
            store=store_dir,
            store_parents_may_be_made=parents_may_be_made,
            namespace=_namespace(env, namespace),
            merge=env.flag("B10_MERGE", default=False) if merge is None else merge,
            work_dir=_work_dir(env),
            max_pack_bytes=env.capped("MAX_CACHE_SIZE_MB", 1024, "MAX_CACHE_SIZE_CAP_MB", 1024) * MB,
            max_concurrent_saves=env.capped("MAX_CONCURRENT_SAVES", 50, "MAX_CONCURRENT_SAVES_CAP", 100),
            lock_timeout_s=env.capped("CLEANUP_LOCK_TIMEOUT_SECONDS", 30, "LOCK_TIMEOUT_CAP_SECONDS", 3600, minimum=0),
            incomplete_timeout_s=env.capped(
                "CLEANUP_INCOMPLETE_TIMEOUT_SECONDS", 60, "INCOMPLETE_TIMEOUT_CAP_SECONDS", 7200, minimum=0
            ),
            locks=env.flag("B10_LOCKS", default=True),
        )


class _Reader:
    """Typed access to environment variables. An empty value counts as unset."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def text(self, name: str) -> str | None:
        return self._environ.get(name) or None

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

    def flag(self, name: str, *, default: bool) -> bool:
        text = self.text(name)
        if text is None:
            return default
        if text not in ("0", "1"):
            raise ConfigurationError(name, text, "it must be 0 or 1")
        return text == "1"

    def path(self, name: str) -> Path | None:
        """An absolute path without links or ``..``, or None if the variable is unset."""
        text = self.text(name)
        return None if text is None else _resolve(name, text)


def _resolve(name: str, text: str) -> Path:
    if "\0" in text:
        raise ConfigurationError(name, text, "it must not hold a NUL character")
    try:
        return Path(os.path.realpath(os.path.expanduser(text)))
    except OSError as error:
        raise ConfigurationError(name, text, f"its links cannot be resolved ({error})") from error


def _real(path: str) -> Path:
    return Path(os.path.realpath(os.path.expanduser(path)))


def _is_below(path: Path, parents: list[Path]) -> bool:
    return any(parent in path.parents for parent in parents)


def default_inductor_dir() -> Path:
    """Where torch keeps Inductor's cache when nothing is configured.

    Source: ``torch/_inductor/runtime/cache_dir_utils.py``, ``default_cache_dir`` (torch 2.13).
    """
    try:
        username = getpass.getuser()
    except (KeyError, ModuleNotFoundError, OSError):
        # A random UID without a passwd entry, as OpenShift gives.
        username = f"uid_{os.getuid()}"
    return Path(tempfile.gettempdir()) / ("torchinductor_" + re.sub(r'[\\/:*?"<>|]', "_", username))


def _inductor_dir(env: _Reader) -> Path:
    name = "TORCHINDUCTOR_CACHE_DIR"
    default = _real(str(default_inductor_dir()))
    path = env.path(name)
    # torch sets the variable to its default once it has compiled: that default is fine wherever TMPDIR points.
    if path is None or path == default:
        return default
    if not _is_below(path, [_real("/tmp"), _real("/cache"), _real("~/.cache")]):
        raise ConfigurationError(
            name, str(env.text(name)), f"it must be a folder under /tmp/, /cache/ or ~/.cache, but is {path}"
        )
    return path


def _triton_dir(env: _Reader) -> Path:
    # Source: triton/knobs.py, ``cache_knobs`` (Triton 3.9): TRITON_HOME stands for the home directory.
    name = "TRITON_CACHE_DIR"
    text = env.text(name)
    if text is not None and not os.path.isabs(os.path.expanduser(text)):
        raise ConfigurationError(name, text, "it must be an absolute path")
    home = env.text("TRITON_HOME") or "~"
    return env.path(name) or _resolve("TRITON_HOME", os.path.join(home, ".triton", "cache"))


def _store(env: _Reader, override: str | os.PathLike[str] | None) -> tuple[Path, bool]:
    """The store's path, made absolute without looking at it: its mount may hang."""
    if override is not None:
        path = _store_path("store", os.fspath(override))
    elif (text := env.text("B10_STORE")) is not None:
        path = _store_path("B10_STORE", text)
    elif (text := env.text("B10FS_CACHE_DIR")) is not None:
        path = _store_path("B10FS_CACHE_DIR", text)
    elif _has_mount():
        path = MOUNT / "compile_cache"
    else:
        return _embedded_store(), True
    return path, MOUNT in path.parents


def _store_path(name: str, text: str) -> Path:
    path = _path_of_url(name, text) if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text) else text
    if not path or "\0" in path:
        raise ConfigurationError(name, text, "it must be a directory or a file:// URL")
    return Path(os.path.abspath(os.path.expanduser(path)))


def _path_of_url(name: str, text: str) -> str:
    from urllib.parse import unquote, urlsplit  # takes 3 ms, and hardly anybody needs it

    try:
        url = urlsplit(text)
    except ValueError as error:
        raise ConfigurationError(name, text, f"it is not a URL ({error})") from error
    if url.scheme != "file":
        raise ConfigurationError(
            name, text, f"{url.scheme}:// stores are not supported, use a directory or a file:// URL"
        )
    if url.netloc not in ("", "localhost"):
        raise ConfigurationError(name, text, "a file:// URL must not name a host (three slashes: file:///mnt/store)")
    if url.query or url.fragment or text.endswith(("?", "#")):
        raise ConfigurationError(name, text, "'?' and '#' mean nothing here; in a folder's name write %3F and %23")
    return unquote(url.path)


def _has_mount() -> bool:
    """Whether there is a shared volume where one is expected. Listing its parent does not touch the volume itself."""
    try:
        return MOUNT.name in os.listdir(MOUNT.parent)
    except OSError:
        return False


_embedded_store_was_announced = False


def _embedded_store() -> Path:
    global _embedded_store_was_announced
    path = _real("~/.cache") / "b10-transfer" / "store"
    if not _embedded_store_was_announced:
        _embedded_store_was_announced = True
        logger.info(
            "no store is configured and %s does not exist: using %s, which is not shared between machines "
            "(set B10_STORE to a directory on a shared volume)",
            MOUNT,
            path,
        )
    return path


def _namespace(env: _Reader, override: str | None) -> str:
    namespace = override if override is not None else env.text("B10_NAMESPACE") or "default"
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", namespace):
        name = "B10_NAMESPACE" if override is None else "namespace"
        raise ConfigurationError(
            name,
            namespace,
            "it must be 1 to 100 letters, digits, '.', '_' or '-', the first a letter or digit",
        )
    return namespace


def read_deadline(override: float | None = None, environ: Mapping[str, str] | None = None) -> float:
    """Seconds an operation may take. Touches no file system, so that it can be read before anything may hang."""
    rule = "it must be a number of seconds above 0 and at most 86400"
    if override is not None:
        name, text = "deadline_s", str(override)
    else:
        name = "B10_DEADLINE_SECONDS"
        text = _Reader(os.environ if environ is None else environ).text(name) or "60"
    try:
        seconds = float(text)
    except ValueError as error:
        raise ConfigurationError(name, text, rule) from error
    if not 0 < seconds <= 86400:  # also refuses NaN
        raise ConfigurationError(name, text, rule)
    return seconds


def _work_dir(env: _Reader) -> Path:
    name = "LOCAL_WORK_DIR"
    path = env.path(name)
    if path is None:
        default = Path("/app")
        return default if os.access(default, os.W_OK | os.X_OK) else Path(tempfile.gettempdir())
    allowed = [_real("/app"), _real("/tmp"), _real("/cache")]
    if path not in allowed and not _is_below(path, allowed):
        raise ConfigurationError(name, str(env.text(name)), f"it must lie in /app/, /tmp/ or /cache/, but is {path}")
    return path
