"""The trees that benchmarks save and load: real caches, made once on this machine.

* Triton's cache: matrix products, normalisations and softmaxes for an H100. 300 kernels are 2,424 files and 50 MB, and
  take one to two minutes. They need no GPU.
* Inductor's cache of a transformer of six layers for this machine's CPU. It takes about a minute.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).resolve().parent
DEFAULT_CACHE = Path("~/.cache/b10-transfer-benchmarks").expanduser()
KERNELS_PROGRAM, MODELS_PROGRAM = HERE / "kernels.py", HERE / "models.py"
KERNELS = 300
GROUP = "__grp__"
"""Prefix of the files in which Triton names the other files of a kernel by absolute path."""


def triton_corpus(cache: Path, kernels: int = KERNELS) -> Path:
    """A Triton cache of ``kernels`` kernels and one per cent more, for benchmarks of a later save."""

    def make(folder: Path) -> None:
        count = str(kernels + kernels // 100)
        _run(KERNELS_PROGRAM, count, TRITON_CACHE_DIR=str(folder), HOME=str(folder.parent))

    return _made_once(cache / f"triton-{kernels}-{_identity(KERNELS_PROGRAM, 'triton')}", make)


def transformer_corpus(cache: Path) -> Path:
    """Inductor's cache of a transformer, without lock files and precompiled headers."""

    def make(folder: Path) -> None:
        home = str(folder.parent)
        _run(MODELS_PROGRAM, TORCHINDUCTOR_CACHE_DIR=str(folder), HOME=home, TMPDIR=home)
        for name in ("locks", "precompiled_headers"):
            shutil.rmtree(folder / name, ignore_errors=True)

    return _made_once(cache / f"transformer-{_identity(MODELS_PROGRAM, 'torch')}", make)


def install_triton(corpus: Path, root: Path, keys: Iterable[str] | None = None) -> Path:
    """Copy kernels of a corpus to ``root/triton/0``, where Inductor keeps them on a GPU.

    Sizes, modes and times stay. The absolute paths in the group files are rewritten.

    Args:
        keys: The kernels to copy; None for all.

    Returns:
        ``root``.
    """
    for key in sorted(os.listdir(corpus) if keys is None else keys):
        target = root / "triton" / "0" / key
        target.mkdir(parents=True)
        for file in (corpus / key).iterdir():
            placed = Path(shutil.copy2(file, target))
            if file.name.startswith(GROUP):
                names = json.loads(file.read_bytes())["child_paths"]
                placed.write_text(json.dumps({"child_paths": {name: str(target / name) for name in names}}))
                shutil.copystat(file, placed)
    return root


def install_huge(root: Path, size_bytes: int) -> Path:
    """Write an Inductor cache of one library of random bytes, which do not compress. Returns ``root``."""
    folder = root / "ug"
    folder.mkdir(parents=True)
    source = random.Random(0)
    with (folder / "huge.so").open("wb") as file:
        for start in range(0, size_bytes, 1 << 20):
            file.write(source.randbytes(min(1 << 20, size_bytes - start)))
    return root


def _made_once(target: Path, make: Callable[[Path], None]) -> Path:
    """``target``, filled by ``make`` if it does not exist. An interrupted attempt leaves nothing behind."""
    if target.is_dir():
        return target
    print(f"making {target}", file=sys.stderr, flush=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".making-") as scratch:
        make(Path(scratch) / "cache")
        try:
            (Path(scratch) / "cache").rename(target)
        except OSError:
            if not target.is_dir():  # another process may have made it meanwhile
                raise
    return target


def _identity(script: Path, package: str) -> str:
    """Changes with the version of the compiler and with the script."""
    return f"{version(package)}-{hashlib.sha256(script.read_bytes()).hexdigest()[:8]}"


def _run(script: Path, *arguments: str, **variables: str) -> None:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("TRITON", "TORCH"))}
    subprocess.run([sys.executable, str(script), *arguments], check=True, env={**clean, **variables})
