"""Settings: the only place that reads and checks environment variables.

``VARIABLES`` documents them, :meth:`Config.from_environment` reads them. A value that breaks its rule raises
:class:`ConfigurationError` before anything is touched. A number above its cap is lowered to the cap, with a warning.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import ConfigurationError
from . import store as store_location
from .extra import EXTRA_CACHES, extra_caches
from .reader import EnvReader, Variable, is_below, parse_seconds, real_path, temporary_directory
from .store import BucketUrl, PluginUrl
from .variables import VARIABLES

__all__ = [
    "VARIABLES",
    "BucketUrl",
    "CacheSelection",
    "Config",
    "PluginUrl",
    "Variable",
    "read_autosave",
    "read_deadline",
    "read_instant",
    "read_wait",
]

MB = 1024 * 1024
_MOST_GROUP = 200


@dataclass(frozen=True)
class CacheSelection:
    """Which caches are saved and restored: the named ones, or all but the named ones."""

    named: frozenset[str] = frozenset()
    excluded: bool = True
    """Whether the names are those to leave out."""

    def __contains__(self, name: str) -> bool:
        return (name in self.named) != self.excluded

    @classmethod
    def parse(cls, variable: str, text: str) -> CacheSelection:
        """Parse ``all``, ``inductor,triton`` or ``-cuda,-flashinfer``.

        Raises:
            ConfigurationError: The text is none of these.
        """
        names = [name.strip() for name in text.split(",")]
        if names == ["all"]:
            return cls()
        excluded = [name.startswith("-") for name in names]
        if any(excluded) != all(excluded) or not all(re.fullmatch(r"-?[a-z][a-z0-9_]*", name) for name in names):
            rule = "it must be all, a list of caches to include (a,b), or a list to exclude (-a,-b)"
            raise ConfigurationError(variable, text, rule)
        return cls(frozenset(name.removeprefix("-") for name in names), excluded[0])


@dataclass(frozen=True)
class Config:
    """Checked settings of one operation. Sizes are in bytes, times in seconds."""

    store: Path | BucketUrl | PluginUrl
    store_parents_may_be_made: bool
    """Whether the first save creates missing parents of the store. Only below ``/cache/model``, a known mount, and for
    the store in ``~/.cache``."""
    node_cache: Path | None
    """A cache of packs on the node."""
    expects_mount: bool
    """Whether the store is at a place where a shared volume is expected."""
    require_mount: bool
    """Whether a store directory must be on a mounted volume."""
    namespace: str
    merge: bool
    work_dir: Path
    max_pack_bytes: int
    max_restore_bytes: int
    max_files: int
    max_packs: int
    """A save merges the packs of an environment if it has more; 0 for never."""
    grace_s: int
    max_concurrent_saves: int
    lock_timeout_s: int
    incomplete_timeout_s: int
    locks: bool
    signing_key: str | None = field(repr=False)
    trusted_keys: str | None
    read_only: bool
    shared_roots: bool
    group: str
    """What the processes that must load the same packs have in common; empty if there is no group."""
    restore_rest: str
    """When units are restored that warm starts did not use: ``before`` the load returns, ``after`` that, or ``never``.
    In a group it is ``before``: processes that differ would wait for each other."""
    siblings: bool
    """Whether a load that finds nothing else restores GPU code of pods with another CPU."""
    caches: CacheSelection
    """Which compilers' caches are saved and restored."""
    extra_caches: Mapping[str, str]
    """Directories that an operator adds, by name."""
    reader: EnvReader = field(repr=False, compare=False)
    """For the adapters, which have variables of their own."""

    @classmethod
    def from_environment(
        cls,
        environ: Mapping[str, str] | None = None,
        *,
        namespace: str | None = None,
        store: str | os.PathLike[str] | None = None,
        merge: bool | None = None,
        group: str | None = None,
    ) -> Config:
        """Read and check every setting.

        Call it under a deadline: it resolves paths, and a file system may hang.

        Args:
            environ: The variables. Default: those of this process.
            namespace: Overrides ``B10_NAMESPACE``.
            store: Overrides ``B10_STORE``.
            merge: Overrides ``B10_MERGE``.
            group: Overrides ``B10_GROUP``.

        Returns:
            The checked settings.

        Raises:
            ConfigurationError: A value breaks its rule. The message names the variable, the value and the rule.
        """
        env = EnvReader(os.environ if environ is None else environ)
        store_dir, parents_may_be_made = store_location.locate(env, store)
        group_name = _group(env, group)
        return cls(
            store=store_dir,
            store_parents_may_be_made=parents_may_be_made,
            node_cache=env.absolute_path("B10_NODE_CACHE"),
            expects_mount=store_location.expects_mount(env, store_dir),
            require_mount=env.flag("B10_REQUIRE_MOUNT", default=False, protects=True),
            namespace=_namespace(env, namespace),
            merge=env.flag("B10_MERGE", default=False) if merge is None else merge,
            work_dir=_work_dir(env),
            max_pack_bytes=env.capped("MAX_CACHE_SIZE_MB", 1024, "MAX_CACHE_SIZE_CAP_MB", 1024) * MB,
            max_restore_bytes=env.whole_number("B10_MAX_RESTORE_MB", 8192, minimum=1) * MB,
            max_files=env.whole_number("B10_MAX_FILES", 200_000, minimum=1),
            max_packs=env.whole_number("B10_MAX_PACKS", 32, minimum=0),
            grace_s=env.whole_number("B10_GRACE_SECONDS", 3600, minimum=0),
            max_concurrent_saves=env.capped("MAX_CONCURRENT_SAVES", 50, "MAX_CONCURRENT_SAVES_CAP", 100),
            lock_timeout_s=env.capped("CLEANUP_LOCK_TIMEOUT_SECONDS", 30, "LOCK_TIMEOUT_CAP_SECONDS", 3600, minimum=0),
            incomplete_timeout_s=env.capped(
                "CLEANUP_INCOMPLETE_TIMEOUT_SECONDS", 60, "INCOMPLETE_TIMEOUT_CAP_SECONDS", 7200, minimum=0
            ),
            signing_key=env.protecting_text("B10_SIGNING_KEY"),
            trusted_keys=env.protecting_text("B10_TRUSTED_KEYS"),
            read_only=env.flag("B10_READ_ONLY", default=False, protects=True),
            shared_roots=env.flag("B10_SHARED_ROOTS", default=False),
            group=group_name,
            restore_rest="before" if group_name else _restore_rest(env),
            siblings=env.flag("B10_SIBLINGS", default=True),
            locks=env.flag("B10_LOCKS", default=True),
            caches=CacheSelection.parse("B10_CACHES", env.text("B10_CACHES") or "all"),
            extra_caches=extra_caches(env.text(EXTRA_CACHES)),
            reader=env,
        )


def is_namespace(text: str) -> bool:
    """Whether a text can be the name of a namespace."""
    return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", text) is not None


def _namespace(env: EnvReader, override: str | None) -> str:
    if override is not None:
        return check_namespace(override)
    return check_namespace(env.text("B10_NAMESPACE") or "default", "B10_NAMESPACE")


def check_namespace(text: str, name: str = "namespace") -> str:
    """Return a namespace. Raises ConfigurationError if the text cannot be one; ``name`` is that of its setting."""
    if not is_namespace(text):
        rule = "it must be 1 to 100 letters, digits, '.', '_' or '-', the first a letter or digit"
        raise ConfigurationError(name, text, rule)
    return text


def _group(env: EnvReader, override: str | None) -> str:
    group = override if override is not None else env.text("B10_GROUP") or ""
    if len(group) > _MOST_GROUP or not group.isprintable():
        name = "B10_GROUP" if override is None else "group"
        raise ConfigurationError(name, group[:_MOST_GROUP], f"it must be at most {_MOST_GROUP} printable characters")
    return group


def _restore_rest(env: EnvReader) -> str:
    text = env.text("B10_RESTORE_REST") or "before"
    if text not in ("after", "before", "never"):
        raise ConfigurationError("B10_RESTORE_REST", text, "it must be after, before or never")
    return text


def read_wait(override: float | None = None, environ: Mapping[str, str] | None = None) -> float:
    """Read how long a load may wait for another replica to compile.

    Args:
        override: Seconds, instead of ``B10_WAIT_FOR_COMPILE_SECONDS``.
        environ: The variables. Default: those of this process.

    Returns:
        Seconds; 0 if it may not wait.

    Raises:
        ConfigurationError: The value is not a number of seconds, 0 or at most 86400.
    """
    if override is not None:
        return 0.0 if override == 0 else parse_seconds("wait_for_compile_s", str(override))
    return EnvReader(os.environ if environ is None else environ).seconds_or_zero("B10_WAIT_FOR_COMPILE_SECONDS")


def read_instant(override: bool | None = None, environ: Mapping[str, str] | None = None) -> bool:
    """Read whether instant starts are on.

    Args:
        override: Overrides ``B10_INSTANT``.
        environ: The variables. Default: those of this process.

    Raises:
        ConfigurationError: The value is neither 0 nor 1.
    """
    return _read_switch("B10_INSTANT", override, environ)


def read_autosave(override: bool | None = None, environ: Mapping[str, str] | None = None) -> bool:
    """Read whether a separate process saves what a program compiles.

    Args:
        override: Overrides ``B10_AUTOSAVE``.
        environ: The variables. Default: those of this process.

    Raises:
        ConfigurationError: The value is neither 0 nor 1.
    """
    return _read_switch("B10_AUTOSAVE", override, environ)


def _read_switch(name: str, override: bool | None, environ: Mapping[str, str] | None) -> bool:
    if override is not None:
        return override
    return EnvReader(os.environ if environ is None else environ).flag(name, default=False)


def read_deadline(override: float | None = None, environ: Mapping[str, str] | None = None) -> float:
    """Read how long an operation may take.

    It touches no file system, so that it can run before there is a deadline.

    Args:
        override: Seconds, instead of ``B10_DEADLINE_SECONDS``.
        environ: The variables. Default: those of this process.

    Returns:
        Seconds, above 0.

    Raises:
        ConfigurationError: The value is not a number of seconds above 0 and at most 86400.
    """
    if override is not None:
        return parse_seconds("deadline_s", str(override))
    return EnvReader(os.environ if environ is None else environ).seconds("B10_DEADLINE_SECONDS", 60)


def _work_dir(env: EnvReader) -> Path:
    name = "LOCAL_WORK_DIR"
    path = env.path(name)
    if path is None:
        default = Path("/app")
        return default if os.access(default, os.W_OK | os.X_OK) else Path(temporary_directory())
    allowed = [real_path("/app"), real_path("/tmp"), real_path("/cache")]
    if path not in allowed and not is_below(path, allowed):
        raise ConfigurationError(name, str(env.text(name)), f"it must be in /app/, /tmp/ or /cache/, but is {path}")
    return path
