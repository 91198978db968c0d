"""The environment variables of loads and saves. docs/configuration.md is generated from this table."""

from __future__ import annotations

from .reader import Variable

VARIABLES: tuple[Variable, ...] = (
    Variable(
        "B10_STORE",
        "unset",
        "a directory or a `file://` URL, whose parent must exist; or `s3://bucket/prefix`, `gs://…`, `az://…`; or the "
        "URL of a store that another package adds ([extending.md](extending.md))",
        "The store. Overrides `B10FS_CACHE_DIR`. A bucket needs `pip install 'b10-transfer[cloud]'`; credentials, "
        "region and endpoint come from the provider's usual variables ([object-stores.md](object-stores.md)).",
    ),
    Variable(
        "B10FS_CACHE_DIR",
        "`/cache/model/compile_cache`; without `/cache/model`, `~/.cache/b10-transfer/store` (not shared)",
        "a directory; its parent must exist, unless it is under `/cache/model`",
        "The store, if `B10_STORE` is not set.",
    ),
    Variable(
        "B10_NODE_CACHE",
        "unset",
        "a directory on a local file system",
        "A cache of packs on the node (a hostPath volume). A node then fetches each pack once for all its pods. It "
        "need not be trusted: a load checks its bytes against digests that come from the store itself.",
    ),
    Variable(
        "B10_NAMESPACE",
        "`default`",
        "at most 100 letters, digits, `.`, `_` or `-`; the first is a letter or a digit",
        "Separates workloads in one store.",
    ),
    Variable(
        "B10_DEADLINE_SECONDS",
        "`60`",
        "a positive number of seconds",
        "The time limit of a load or a save, even if a mount hangs. A pack of the largest size (1 GiB) takes 60 s at "
        "18 MB/s, which a busy NFS mount exceeds. Compiling often takes about as long, so a longer limit seldom pays.",
    ),
    Variable(
        "B10_WAIT_FOR_COMPILE_SECONDS",
        "`0`",
        "a number of seconds, at most 86400",
        "If the store has nothing yet: how long a load waits for another replica that is compiling. One replica "
        "compiles, the others load what it saves. Processes of one group (`B10_GROUP`), job (torchrun, `MASTER_ADDR`, "
        "Slurm) or pod (Kubernetes) do not wait for each other. With `0` no load waits. The wait is added to the "
        "deadline.",
    ),
    Variable(
        "B10_MERGE",
        "`0`",
        "`0` or `1`",
        "With `1` a load adds missing units to a cache that already has artifacts. With `0` it leaves "
        "such a cache alone.",
    ),
    Variable(
        "B10_GROUP",
        "unset",
        "at most 200 printable characters",
        "What the processes of one job have in common, for example the id of the job. They load the same packs, or "
        "none of them loads any ([guarantees.md](guarantees.md#groups)). A restarted job needs another value.",
    ),
    Variable(
        "B10_RESTORE_REST",
        "`before`",
        "`before`, `after` or `never`",
        "When a load restores the units that earlier warm starts did not use: before it returns, after that in a "
        "thread with low priority, or never ([guarantees.md](guarantees.md#units-that-starts-use)). In a group "
        "everything is restored before.",
    ),
    Variable(
        "B10_SIBLINGS",
        "`1`",
        "`0` or `1`",
        "With `1` a load that finds nothing for its environment restores GPU kernels and tuning from environments "
        "that differ only in the CPU's features or the C library. The rest is compiled, and the next save publishes "
        "everything. With `0` such a start is cold.",
    ),
    Variable(
        "B10_AUTOSAVE",
        "`0`",
        "`0` or `1`",
        "With `1` a load in a program also starts a small process that saves whatever the program compiles later "
        "([autosave.md](autosave.md)). The commands ignore it.",
    ),
    Variable(
        "B10_INSTANT",
        "`0`",
        "`0` or `1`",
        "With `1` a program that calls `load` and `save` also skips tracing ([instant.md](instant.md)). Its load then "
        "imports torch.",
    ),
    Variable(
        "B10_PYTHON",
        "the Python that runs this package; for `run`, the server's",
        "a Python interpreter",
        "The Python whose torch and Triton are in the key. Set it if `b10-compile-cache` is installed apart from the "
        "server, with pipx or `uv tool`. `run` finds the server's Python itself. The command in the background looks "
        "for `vllm` and `sglang` on the PATH.",
    ),
    Variable(
        "B10_CACHES",
        "`all`",
        "`all`, or names of caches (below), separated by commas: either a list to include or a list to exclude "
        "(`-name`), not both",
        "Which caches are saved and restored. `inductor,triton`: only these two. `-cuda`: all but that one.",
    ),
    Variable(
        "B10_EXTRA_CACHES",
        "unset",
        "`name=/path`, or several of these separated by commas; a name has at most 20 lower-case letters, digits and "
        "`_`, a path is absolute",
        "Other directories to save and restore ([below](#extra-caches)). Set it on every pod that saves or loads them.",
    ),
    Variable(
        "B10_SIGNING_KEY",
        "unset",
        "a file, or `b10-private:…` itself (`b10-compile-cache keygen` makes one)",
        "The private key that signs packs and recalls. Give it only to pods that save. Set but empty is an error, "
        "because a pod whose secret is missing would publish unsigned packs.",
    ),
    Variable(
        "B10_TRUSTED_KEYS",
        "unset",
        "files or `b10-public:…` keys, separated by commas or blanks",
        "A load ignores packs and recalls that none of these keys signed. If it is not set, a load uses every sound "
        "pack. Set but empty is an error, because a manifest that lacks a value must not turn verification off. Trust "
        "the old and the new key while you change keys.",
    ),
    Variable(
        "B10_REQUIRE_MOUNT",
        "`0`",
        "`0` or `1`",
        "With `1` a load and a save fail with ERROR if the store is a directory on the container's own disk, where no "
        "other pod can see it. With `0` they warn of this below `/cache/model`, and in Kubernetes anywhere but in a "
        "home or a directory for temporary files. Set but empty is an error.",
    ),
    Variable(
        "B10_READ_ONLY",
        "`0`",
        "`0` or `1`",
        "With `1` this pod writes nothing to the store, not even a lock, and a save is SKIPPED. Set but empty is an "
        "error.",
    ),
    Variable(
        "B10_SHARED_ROOTS",
        "`0`",
        "`0` or `1`",
        "With `0` a cache is refused if it belongs to another user or is world-writable: compilers run the code in it. "
        "With `1` it is used.",
    ),
    Variable(
        "LOCAL_WORK_DIR",
        "`/app`; the temporary directory if `/app` is missing or not writable",
        "a folder in `/app/`, `/tmp/` or `/cache/`, after links and `..` are resolved",
        "Where a save builds a pack before it publishes it.",
    ),
    Variable(
        "MAX_CACHE_SIZE_MB",
        "`1024`, capped by `MAX_CACHE_SIZE_CAP_MB` (`1024`)",
        "a whole number of MiB, at least 1",
        "The largest size of one pack. A larger save becomes several packs. A load ignores a larger pack.",
    ),
    Variable(
        "B10_MAX_RESTORE_MB",
        "`8192`",
        "a whole number of MiB, at least 1",
        "The most disk space that one load may use, with 4 KiB for each file and folder. If the packs hold more, the "
        "load takes the newest.",
    ),
    Variable(
        "B10_MAX_FILES",
        "`200000`",
        "a whole number, at least 1",
        "The most files in one pack. A larger save becomes several packs. By default a load takes the indexes of about "
        "350,000 files and uses at most 400 MB of memory; both grow with this value. Set the same value in all pods.",
    ),
    Variable(
        "B10_MAX_PACKS",
        "`32`",
        "a whole number; `0` for no limit",
        "If an environment has more packs than this, a save merges them, because each pack costs every load a request.",
    ),
    Variable(
        "B10_GRACE_SECONDS",
        "`3600`",
        "a whole number of seconds",
        "The grace period: how long merged and pruned packs stay before they are deleted. Make it longer than the "
        "longest `B10_DEADLINE_SECONDS` of any pod, so that no load loses a pack that it is reading.",
    ),
    Variable(
        "MAX_CONCURRENT_SAVES",
        "`50`, capped by `MAX_CONCURRENT_SAVES_CAP` (`100`)",
        "a whole number, at least 1",
        "How many saves write to one store at once. The others wait within their deadline.",
    ),
    Variable(
        "CLEANUP_LOCK_TIMEOUT_SECONDS",
        "`30`, capped by `LOCK_TIMEOUT_CAP_SECONDS` (`3600`)",
        "a whole number of seconds",
        "The age at which a dead replica's lock expires. A live holder renews its lock.",
    ),
    Variable(
        "CLEANUP_INCOMPLETE_TIMEOUT_SECONDS",
        "`60`, capped by `INCOMPLETE_TIMEOUT_CAP_SECONDS` (`7200`)",
        "a whole number of seconds",
        "The age at which an abandoned staging file is removed. A file that still grows is kept.",
    ),
    Variable(
        "B10_LOCKS",
        "`1`",
        "`0` or `1`",
        "With `0` no locks and leases are used. They only save work: without them, ranks and replicas may do the same "
        "work twice.",
    ),
)
