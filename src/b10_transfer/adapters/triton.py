"""Triton's cache: one folder for each kernel, named by its key.

Layout (Triton 3.0 to 3.9, ``triton/runtime/cache.py``): ``<key>/<name>.{source,ttir,ttgir,llir,ptx,cubin,json}`` and
``<key>/__grp__<name>.json``, which names the others **by absolute path** and is written last. Triton takes a kernel
for cached only if the group file is there and every path in it exists, so a folder that was copied to another place
never hits. The group file therefore travels with bare file names and gets the local paths back on restore.
Helpers (launchers, driver utilities) are folders that hold a single ``.so`` and no group. Triton's autotuner keeps its
results in ``<key>/<function>.autotune.json``.

A kernel does not depend on the host's CPU, a helper does: Triton builds it with ``-O3`` and without ``-march``
(``triton/runtime/build.py``, Triton 3.9), but with the compiler that ``CC`` or ``knobs.build.impl`` names. Compilers of
some distributions use instructions by default that other CPUs lack, and a library does not say which it uses. It is
also linked to symbols of one C library.

Names of kernels are free, so a file counts only beside the others of its kernel: ``config.json`` alone is none.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection
from functools import lru_cache
from json.encoder import encode_basestring_ascii as quoted
from pathlib import Path

from ..config.reader import EnvReader, Variable, resolve
from .base import Adapter, Unit
from .layout import Layout, folder_shape

_GROUP = "__grp__"
KERNEL = r"[A-Z0-9]{1,64}|[A-Za-z0-9_-]{43}|[0-9a-f]{64}"
"""A kernel's key, a SHA-256: in base 32 without padding; in Triton 3.2 in base 64 for URLs; before in hexadecimal."""
_INTERMEDIATE = (
    ".source",
    ".ttir",
    ".ttgir",
    ".llir",
    ".llvm",
    ".ptx",
    ".amdgcn",
    ".spv",
    ".cubin",
    ".hsaco",
)
"""Stages of one compilation: a folder with any of these is finished by its group file."""


_KEY_LENGTH = 43
"""Of the shortest of them."""
_TUNED = ".autotune.json"
KERNEL_FILE = rf".+(?:{'|'.join(map(re.escape, (*_INTERMEDIATE, '.json', '.so')))})"

_MOST_KEPT_BYTES = 4096
"""Larger group files are not remembered: there are none, but who knows what a store holds."""


class TritonAdapter(Adapter):
    """``TRITON_CACHE_DIR`` or ``~/.triton/cache``."""

    name = "triton"
    title = "Triton's kernels outside Inductor"
    units = "a kernel's folder"
    variables = (
        Variable(
            "TRITON_CACHE_DIR",
            "`~/.triton/cache` (below `TRITON_HOME` if that is set)",
            "an absolute path",
            "Triton's own cache directory, where kernels outside Inductor are kept.",
        ),
    )

    layout = Layout(folder_shape(KERNEL, KERNEL_FILE), left_here=(rf"(?:{KERNEL})/[^/]+\.sass",))

    def locate(self, env: EnvReader) -> Path:
        # Source: triton/knobs.py, ``cache_knobs`` (Triton 3.9): TRITON_HOME stands for the home directory.
        home = env.text("TRITON_HOME") or "~"
        return env.absolute_path("TRITON_CACHE_DIR") or resolve("TRITON_HOME", os.path.join(home, ".triton", "cache"))

    def written(self, unit: Unit, files: Collection[str], *, is_mixed: bool = False) -> Collection[str]:
        names = [file.rpartition("/")[2] for file in files]
        kernels = {name[len(_GROUP) : -len(".json")] for name in names if name.startswith(_GROUP)}
        kernels.update(name.rpartition(".")[0] for name in names if name.endswith(_INTERMEDIATE))
        if not kernels:
            helpers = [file for file in files if file.endswith((".so", _TUNED))]
            # A helper's folder holds nothing else; where another file lies in it, only the length of a key tells.
            is_pure = not is_mixed and len(helpers) == len(files)
            return helpers if is_pure or len(unit.path.rpartition("/")[2]) >= _KEY_LENGTH else ()
        return [
            file
            for file, name in zip(files, names, strict=True)
            if name.removeprefix(_GROUP).rpartition(".")[0] in kernels or name.endswith((".so", _TUNED))
        ]

    def is_complete(self, root: Path, unit: Unit, files: Collection[str]) -> bool:
        has_group = any(self.is_rewritten(file) for file in files)
        return bool(files) and (has_group or not any(file.endswith(_INTERMEDIATE) for file in files))

    def depends_on_host(self, unit: Unit, files: Collection[str]) -> bool:
        return any(file.endswith(".so") for file in files)

    def may_follow(self, unit: Unit, files: Collection[str]) -> bool:
        return True

    def is_rewritten(self, path: str) -> bool:
        return path.endswith(".json") and path.rpartition("/")[2].startswith(_GROUP)

    def to_portable(self, root: Path, path: str, data: bytes, files: Collection[str]) -> bytes:
        folder = path.rpartition("/")[0]
        names = {child: where.rpartition("/")[2] for child, where in _child_paths(data).items()}
        if missing := [name for name in names.values() if f"{folder}/{name}" not in files]:
            raise ValueError(f"{path} names {missing[0]}, which is not beside it")
        return _group({quoted(child): quoted(name) for child, name in names.items()}).encode()

    def to_local(self, root: Path, path: str, data: bytes) -> bytes:
        folder = f"{root}/{path}".rpartition("/")[0]
        # Of hundreds of kernels most groups are alike, and taking one apart takes longer than all the rest.
        pieces = _around_folder(data) if len(data) <= _MOST_KEPT_BYTES else _around_folder.__wrapped__(data)
        return quoted(f"{folder}/")[1:-1].encode().join(pieces)


def _child_paths(data: bytes) -> dict[str, str]:
    """What a group file says; ValueError if it says anything else than Triton writes."""
    try:
        group = json.loads(data.decode())
    except RecursionError as error:
        raise ValueError("not a Triton group file") from error
    if not isinstance(group, dict) or group.keys() != {"child_paths"} or not isinstance(group["child_paths"], dict):
        raise ValueError("not a Triton group file")
    paths = group["child_paths"]
    if set(map(type, paths.values())) != {str}:  # nor is one a group that names nothing
        raise ValueError("not a Triton group file")
    return paths


def _group(paths: dict[str, str]) -> str:
    """A group file of children's names and their paths, both in JSON."""
    # As json.dumps writes it, which takes three times as long, and there are hundreds.
    return f'{{"child_paths": {{{", ".join(map("{}: {}".format, paths, paths.values()))}}}}}'


@lru_cache(maxsize=128)
def _around_folder(portable: bytes) -> tuple[bytes, ...]:
    """A portable group file without the places where its folder's path goes. Raises ValueError if it is not sound."""
    names = _child_paths(portable)
    if "/" in "".join(names.values()) or not {"", ".", ".."}.isdisjoint(names.values()):
        raise ValueError("a Triton group file names files outside its folder")
    marked = {quoted(child): f'"\0{quoted(name)[1:]}' for child, name in names.items()}  # no JSON holds that character
    return tuple(_group(marked).encode().split(b"\0"))
