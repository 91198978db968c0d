"""The trees that benchmarks save and load: real caches, made once on this machine.

* Triton's cache: matrix products, normalisations and softmaxes for an H100. 300 kernels are 2,424 files and 50 MB, and
  take one to two minutes. They need no GPU.
* Inductor's cache of a transformer of six layers for this machine's CPU. It takes about a minute.

As a program this makes a Triton cache in OUT, a new folder, for a GPU of your choice:

    pip install triton
    python benchmarks/corpus.py --kernels 300 --target sm_90 OUT

``TRITON_CACHE_DIR=OUT`` uses it: one folder for each kernel, with 8 files and 160 kB. ``--target`` takes sm_NN for
NVIDIA (sm_80 A100, sm_90 H100, sm_100 B200) and gfxNNN for AMD (gfx942 MI300X). Equal numbers, targets and versions of
Triton give equal kernels. Without OUT, the program makes both trees for the benchmarks and prints their paths.
"""

from __future__ import annotations

import argparse
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
    path = cache / f"triton-{kernels}-{_identity(KERNELS_PROGRAM, 'triton')}"
    return _made_once(path, lambda folder: compile_kernels(folder, kernels + kernels // 100))


def compile_kernels(folder: Path, kernels: int, target: str = "sm_90", jobs: int = 0) -> None:
    """Compile kernels for a GPU into a Triton cache in ``folder``.

    Args:
        jobs: parallel compilers; 0 for one for each core.

    Raises:
        CalledProcessError: the compiler failed.
    """
    arguments = [str(kernels), "--target", target, "--jobs", str(jobs or os.cpu_count() or 1)]
    _run(KERNELS_PROGRAM, *arguments, TRITON_CACHE_DIR=str(folder), HOME=str(folder.parent))


def transformer_corpus(cache: Path) -> Path:
    """Inductor's cache of a transformer, without lock files and precompiled headers."""

    def make(folder: Path) -> None:
        home = str(folder.parent)
        _run(MODELS_PROGRAM, TORCHINDUCTOR_CACHE_DIR=str(folder), HOME=home, TMPDIR=home)
        for name in ("locks", "precompiled_headers"):
            shutil.rmtree(folder / name, ignore_errors=True)

    return _made_once(cache / f"transformer-{_identity(MODELS_PROGRAM, 'torch')}", make)


def install_triton(corpus: Path, root: Path, keys: Iterable[str] | None = None, copies: int = 1) -> Path:
    """Copy kernels of a corpus to ``root/triton/0``, where Inductor keeps them on a GPU.

    Sizes, modes and times stay. The absolute paths in the group files are rewritten.

    Args:
        keys: the kernels to copy; None for all.
        copies: copies of each kernel. Each further copy has other names, and its bytes are permuted: no copy shares a
            string with another, and all compress equally well. Such copies are no valid kernels.

    Returns:
        ``root``.
    """
    keys = sorted(os.listdir(corpus) if keys is None else keys)
    for copy in range(copies):
        for key in keys:
            _install_kernel(corpus / key, root / "triton" / "0", copy)
    return root


def _install_kernel(source: Path, folder: Path, copy: int) -> None:
    key = source.name if copy == 0 else hashlib.sha256(f"{source.name} {copy}".encode()).hexdigest()[:52].upper()
    target = folder / key
    target.mkdir(parents=True)
    permutation = bytes(random.Random(copy).sample(range(256), 256) if copy else range(256))
    for file in source.iterdir():
        placed = target / _renamed(file.name, copy)
        if file.name.startswith(GROUP):
            names = [_renamed(name, copy) for name in json.loads(file.read_bytes())["child_paths"]]
            placed.write_text(json.dumps({"child_paths": {name: str(target / name) for name in names}}))
        else:
            placed.write_bytes(file.read_bytes().translate(permutation))
        shutil.copystat(file, placed)


def _renamed(name: str, copy: int) -> str:
    stem, dot, kind = name.partition(".")
    return name if copy == 0 else f"{stem}_{copy}{dot}{kind}"


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


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", nargs="?", type=Path, metavar="OUT", help="make a Triton cache here, in a new folder")
    parser.add_argument("--kernels", type=int, default=KERNELS, help="Triton kernels (%(default)s)")
    parser.add_argument("--target", default="sm_90", help="with OUT: the GPU (%(default)s)")
    parser.add_argument("--jobs", type=int, default=0, help="with OUT: parallel compilers (one for each core)")
    parser.add_argument("--corpus", type=Path, default=DEFAULT_CACHE, help="folder of the trees (%(default)s)")
    options = parser.parse_args()
    if not options.out:
        print(triton_corpus(options.corpus, options.kernels), transformer_corpus(options.corpus), sep="\n")
        return 0
    out = options.out.absolute()
    if out.exists() and any(out.iterdir()):
        print(f"{out} is not empty: name a new folder", file=sys.stderr)
        return 2
    try:
        compile_kernels(out, options.kernels, options.target, options.jobs)
    except subprocess.CalledProcessError as error:
        return error.returncode
    sizes = [path.stat().st_size for path in out.rglob("*") if path.is_file()]
    print(f"{out}: {options.kernels} kernels for {options.target}, {len(sizes):,} files, {sum(sizes) / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
