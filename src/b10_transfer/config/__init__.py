"""Configuration: the one place where environment variables are read, checked and explained.

``VARIABLES`` is the documentation (docs/configuration.md is generated from it); :meth:`Config.from_environment` is
the reader. A value that breaks its rule raises :class:`ConfigurationError` and nothing is touched; a number above its
cap is clamped with a warning.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import ConfigurationError
from . import store as store_location
from .reader import EnvReader, Variable, is_below, parse_seconds, real_path, temporary_directory
from .store import BucketUrl, PluginUrl

__all__ = [
    "VARIABLES",
    "BucketUrl",
    "CacheSelection",
    "Config",
    "PluginUrl",
    "Variable",
    "read_deadline",
    "read_instant",
    "read_wait",
]

MB = 1024 * 1024

VARIABLES: tuple[Variable, ...] = (
    Variable(
        "B10_STORE",
        "unset",
        "a directory or a `file://` URL, whose parent must exist; or `s3://bucket/prefix`, `gs://…`, `az://…`; or the "
        "URL of a store that another package adds ([extending.md](extending.md))",
        "Where packs live. Overrides `B10FS_CACHE_DIR`. Buckets need `pip install 'b10-transfer[cloud]'`; credentials, "
        "region and endpoint come from the provider's usual variables.",
    ),
    Variable(
        "B10FS_CACHE_DIR",
        "`/cache/model/compile_cache`; without `/cache/model`, `~/.cache/b10-transfer/store` (not shared)",
        "a directory; its parent must exist, unless it lies under `/cache/model`",
        "Where packs live.",
    ),
    Variable(
        "B10_NODE_CACHE",
        "unset",
        "a directory on a local file system",
        "A directory of the node (a hostPath volume) in front of the store: a node fetches each pack once, however "
        "many pods it runs. It need not be trusted: the store's own digests decide.",
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
        "B10_WAIT_FOR_COMPILE_SECONDS",
        "`0`",
        "a number of seconds, at most 86400",
        "How long a load waits, when nothing is saved yet, for another replica that compiles already: one compiles, "
        "the others load what it saves. With `0` nobody waits. Comes on top of the deadline.",
    ),
    Variable(
        "B10_MERGE",
        "`0`",
        "`0` or `1`",
        "Whether a load adds the units that are missing locally instead of skipping when artifacts are there already.",
    ),
    Variable(
        "B10_INSTANT",
        "`0`",
        "`0` or `1`",
        "Whether a program that calls `load` and `save` skips Dynamo's tracing as well ([instant.md](instant.md)). "
        "Its load then imports torch.",
    ),
    Variable(
        "B10_CACHES",
        "`all`",
        "`all`, or names of caches (below) with commas between them, either all with a minus before them or none",
        "Which caches are saved and restored: `inductor,triton` is these two, `-cuda` all but that one.",
    ),
    Variable(
        "B10_SIGNING_KEY",
        "unset",
        "a file, or `b10-private:…` itself (`b10-compile-cache keygen` makes one)",
        "Signs what is published. For the pods that save, and for nobody else. Set but empty is an error: a pod whose "
        "secret is missing would publish unsigned packs.",
    ),
    Variable(
        "B10_TRUSTED_KEYS",
        "unset",
        "files or `b10-public:…` keys, separated by commas or blanks; several while keys are being changed",
        "A load ignores packs and recalls that none of these keys has signed. Unset, every sound pack is used. Set but "
        "empty is an error: a manifest whose own variable is missing must not switch verification off.",
    ),
    Variable(
        "B10_READ_ONLY",
        "`0`",
        "`0` or `1`",
        "With `1` nothing is ever written to the store, not even a lock: a save is SKIPPED. Set but empty is an error.",
    ),
    Variable(
        "B10_SHARED_ROOTS",
        "`0`",
        "`0` or `1`",
        "Whether caches are used that belong to another user, or that every user of the machine could have written to. "
        "Compilers run what lies there.",
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
        "Largest single pack. A larger save becomes several packs; a load ignores a larger pack.",
    ),
    Variable(
        "B10_MAX_RESTORE_MB",
        "`8192`",
        "a whole number of MiB, at least 1",
        "Most room that one load takes on local disks, 4 KiB for each file and folder included. If "
        "packs hold more together, a load takes the newest.",
    ),
    Variable(
        "B10_MAX_FILES",
        "`200000`",
        "a whole number, at least 1",
        "Most files in one pack. A save of more becomes several packs; a load takes the indexes of some 350,000 files, "
        "and more in proportion if this is higher. The memory of a load grows with it: 400 MB at most by default. Set "
        "it alike in all pods.",
    ),
    Variable(
        "B10_MAX_PACKS",
        "`32`",
        "a whole number; `0` for no limit",
        "When one environment has more packs than this, a save merges them: each costs every load a request.",
    ),
    Variable(
        "B10_GRACE_SECONDS",
        "`3600`",
        "a whole number of seconds",
        "How long packs that were merged or pruned stay before they are deleted. Longer than the longest "
        "`B10_DEADLINE_SECONDS` of any pod, so that nobody loses what it is reading.",
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
class CacheSelection:
    """Which caches are taken: those that are named, or all but those that are named with a minus."""

    named: frozenset[str] = frozenset()
    excluded: bool = True
    """Whether the names are left out, rather than the only ones taken."""

    def __contains__(self, name: str) -> bool:
        return (name in self.named) != self.excluded

    @classmethod
    def parse(cls, variable: str, text: str) -> CacheSelection:
        """Read ``all``, ``inductor,triton`` or ``-cuda,-flashinfer``. Raises :class:`ConfigurationError`."""
        names = [name.strip() for name in text.split(",")]
        if names == ["all"]:
            return cls()
        excluded = [name.startswith("-") for name in names]
        if any(excluded) != all(excluded) or not all(re.fullmatch(r"-?[a-z][a-z0-9_]*", name) for name in names):
            rule = "it must be all, or names of caches with commas between them, either all with a minus or none"
            raise ConfigurationError(variable, text, rule)
        return cls(frozenset(name.removeprefix("-") for name in names), excluded[0])


@dataclass(frozen=True)
class Config:
    """Checked settings of one operation. Sizes are in bytes, times in seconds."""

    store: Path | BucketUrl | PluginUrl
    store_parents_may_be_made: bool
    """Whether missing parents of the store are made: only below a mount that is known to be one."""
    node_cache: Path | None
    """A directory of the node in front of the store."""
    namespace: str
    merge: bool
    work_dir: Path
    max_pack_bytes: int
    max_restore_bytes: int
    max_files: int
    max_packs: int
    """More of them in one environment are merged; 0 for never."""
    grace_s: int
    max_concurrent_saves: int
    lock_timeout_s: int
    incomplete_timeout_s: int
    locks: bool
    signing_key: str | None = field(repr=False)
    trusted_keys: str | None
    read_only: bool
    shared_roots: bool
    caches: CacheSelection
    """Which compilers' caches are taken."""
    reader: EnvReader = field(repr=False, compare=False)
    """For the adapters, each of which has variables of its own."""

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
        env = EnvReader(os.environ if environ is None else environ)
        store_dir, parents_may_be_made = store_location.locate(env, store)
        return cls(
            store=store_dir,
            store_parents_may_be_made=parents_may_be_made,
            node_cache=env.absolute_path("B10_NODE_CACHE"),
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
            locks=env.flag("B10_LOCKS", default=True),
            caches=CacheSelection.parse("B10_CACHES", env.text("B10_CACHES") or "all"),
            reader=env,
        )


def is_namespace(text: str) -> bool:
    """Whether a namespace may be called so."""
    return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", text) is not None


def _namespace(env: EnvReader, override: str | None) -> str:
    namespace = override if override is not None else env.text("B10_NAMESPACE") or "default"
    if not is_namespace(namespace):
        name = "B10_NAMESPACE" if override is None else "namespace"
        raise ConfigurationError(
            name,
            namespace,
            "it must be 1 to 100 letters, digits, '.', '_' or '-', the first a letter or digit",
        )
    return namespace


def read_wait(override: float | None = None, environ: Mapping[str, str] | None = None) -> float:
    """Seconds that a load may wait for another replica to compile."""
    if override is not None:
        return 0.0 if override == 0 else parse_seconds("wait_for_compile_s", str(override))
    return EnvReader(os.environ if environ is None else environ).seconds_or_zero("B10_WAIT_FOR_COMPILE_SECONDS")


def read_instant(override: bool | None = None, environ: Mapping[str, str] | None = None) -> bool:
    """Whether instant starts were asked for. Raises ConfigurationError."""
    if override is not None:
        return override
    return EnvReader(os.environ if environ is None else environ).flag("B10_INSTANT", default=False)


def read_deadline(override: float | None = None, environ: Mapping[str, str] | None = None) -> float:
    """Seconds an operation may take. Touches no file system, so that it can be read before anything may hang."""
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
        raise ConfigurationError(name, str(env.text(name)), f"it must lie in /app/, /tmp/ or /cache/, but is {path}")
    return path
