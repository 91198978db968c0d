"""The caches that are measured: real ones, made once on this machine and kept outside the repository.

* Triton's: matrix products and normalisations compiled for an H100. No GPU is needed. 300 kernels make 2,424 files of
  50 MB in one to two minutes.
* Inductor's: a transformer of six layers, compiled for this machine's CPU. About a minute.

Run as a program, this makes both and says where they are. With OUT it makes a Triton cache there instead, for whatever
you want to measure: real kernels for a GPU of your choice, on a machine without one. It needs Triton and nothing else:

    pip install triton
    python benchmarks/corpus.py --kernels 300 --target sm_90 OUT

OUT is then what TRITON_CACHE_DIR names: a folder for each kernel, with its sources in every stage, its binary and its
metadata (8 files, some 160 kB together). --target takes sm_NN for NVIDIA (sm_80 A100, sm_90 H100, sm_100 B200) and
gfxNNN for AMD (gfx942 MI300X). The same number, target and version of Triton make the same kernels.
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
KERNELS_PROGRAM = HERE / "kernels.py"
KERNELS = 300
_GROUP = "__grp__"


def triton_corpus(cache: Path, kernels: int = KERNELS) -> Path:
    """A Triton cache of ``kernels`` kernels and one per cent more, which stand for what a replica compiles later."""

    def make(folder: Path) -> None:
        compile_kernels(folder, kernels + kernels // 100)

    return _made_once(triton_corpus_path(cache, kernels), make)


def triton_corpus_path(cache: Path, kernels: int) -> Path:
    """Where :func:`triton_corpus` keeps it, be it made or not."""
    return cache / f"triton-{kernels}-{_identity(KERNELS_PROGRAM, 'triton')}"


def compile_kernels(folder: Path, kernels: int, target: str = "sm_90", jobs: int = 0) -> None:
    """Compile so many kernels for a GPU into a Triton cache in ``folder``. Raises CalledProcessError.

    ``jobs`` compilers work at once; 0 means one for each core.
    """
    jobs = jobs or os.cpu_count() or 1
    arguments = [str(kernels), "--target", target, "--jobs", str(jobs)]
    _run(KERNELS_PROGRAM, *arguments, TRITON_CACHE_DIR=str(folder), HOME=str(folder.parent))


def transformer_corpus(cache: Path) -> Path:
    """Inductor's cache of a transformer, without the lock files and precompiled headers that nobody needs again."""
    script = HERE / "transformer.py"

    def make(folder: Path) -> None:
        _run(script, TORCHINDUCTOR_CACHE_DIR=str(folder), HOME=str(folder.parent), TMPDIR=str(folder.parent))
        for name in ("locks", "precompiled_headers"):
            shutil.rmtree(folder / name, ignore_errors=True)

    return _made_once(cache / f"transformer-{_identity(script, 'torch')}", make)


def install_triton(corpus: Path, root: Path, keys: Iterable[str] | None = None, copies: int = 1) -> Path:
    """Lay kernels of a corpus out as Inductor does on a GPU, below ``root/triton/0``; all of them unless ``keys``.

    Their group files name the files beside them by absolute path, so those are rewritten; sizes, modes and times stay.

    With ``copies`` above 1 every kernel is laid out so many times, each copy under another key and another name, and
    with the bytes of its files substituted by a permutation of the copy's own. So no copy has a string in common with
    another (a pack cannot store them once), while each compresses as well as the original does. They are no valid
    kernels any more: good for measuring how cost grows, and for nothing else.
    """
    keys = sorted(keys or os.listdir(corpus))
    for copy in range(copies):
        for key in keys:
            _install_kernel(corpus / key, root / "triton" / "0", copy)
    return root


def _install_kernel(source: Path, folder: Path, copy: int) -> None:
    key = source.name if copy == 0 else hashlib.sha256(f"{source.name} {copy}".encode()).hexdigest()[:52].upper()
    target = folder / key
    target.mkdir(parents=True)
    permutation = _permutation(copy)
    for file in source.iterdir():
        placed = target / _renamed(file.name, copy)
        if file.name.startswith(_GROUP):
            names = [_renamed(name, copy) for name in json.loads(file.read_bytes())["child_paths"]]
            placed.write_text(json.dumps({"child_paths": {name: str(target / name) for name in names}}))
        else:
            placed.write_bytes(file.read_bytes().translate(permutation))
        shutil.copystat(file, placed)


def _renamed(name: str, copy: int) -> str:
    stem, dot, kind = name.partition(".")
    return name if copy == 0 else f"{stem}_{copy}{dot}{kind}"


def _permutation(copy: int) -> bytes:
    values = list(range(256))
    if copy:
        random.Random(copy).shuffle(values)
    return bytes(values)


def install_transformer(corpus: Path, root: Path) -> Path:
    """A copy of the transformer's cache; sizes, modes and times stay."""
    shutil.copytree(corpus, root, dirs_exist_ok=True)
    return root


def install_huge(root: Path, size_bytes: int) -> Path:
    """An Inductor cache that holds nothing but one library of ``size_bytes`` random bytes, which do not compress."""
    folder = root / "hu"
    folder.mkdir(parents=True)
    source = random.Random(0)
    with (folder / "huge.so").open("wb") as file:
        for start in range(0, size_bytes, 1 << 20):
            file.write(source.randbytes(min(1 << 20, size_bytes - start)))
    return root


def _made_once(target: Path, make: Callable[[Path], None]) -> Path:
    """``target``, which ``make`` fills if it is not there yet; an interrupted attempt leaves nothing behind."""
    if target.is_dir():
        return target
    print(f"making {target}", file=sys.stderr, flush=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".making-") as scratch:
        made = Path(scratch) / "cache"
        make(made)
        try:
            made.rename(target)
        except OSError:
            if not target.is_dir():  # otherwise somebody else has made it meanwhile
                raise
    return target


def _identity(script: Path, package: str) -> str:
    """Another compiler or another script makes another corpus."""
    return f"{version(package)}-{hashlib.sha256(script.read_bytes()).hexdigest()[:8]}"


def _run(script: Path, *arguments: str, **variables: str) -> None:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("TRITON", "TORCH"))}
    subprocess.run([sys.executable, str(script), *arguments], check=True, env={**clean, **variables})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser)
    parser.add_argument("out", nargs="?", type=Path, metavar="OUT", help="make a Triton cache here, a new folder")
    parser.add_argument("--target", default="sm_90", help="with OUT: compile for this GPU (%(default)s)")
    parser.add_argument("--jobs", type=int, default=0, help="with OUT: compilers at once (one for each core)")
    options = parser.parse_args()
    if options.out:
        return _make_for_anyone(options.out.absolute(), options)
    print(triton_corpus(options.corpus, options.kernels))
    print(transformer_corpus(options.corpus))
    return 0


def _make_for_anyone(out: Path, options: argparse.Namespace) -> int:
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


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options that say which corpus: ``corpus`` and ``kernels``."""
    parser.add_argument(
        "--corpus", type=Path, default=DEFAULT_CACHE, help="where the caches to measure are kept (%(default)s)"
    )
    parser.add_argument("--kernels", type=int, default=KERNELS, help="Triton kernels (%(default)s)")


if __name__ == "__main__":
    sys.exit(main())
