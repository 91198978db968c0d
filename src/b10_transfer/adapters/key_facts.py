"""Paths and numbers of a pod that compilers put into their keys, and that neither a name nor the environment key says.

With other values than on the pod that saved, a compiler does not find what was restored. So a save records them, and
`explain` and reports of use name those that differ.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping

from ..config.reader import EnvReader
from ..environment.interpreter import interpreter

THREADS = "number of threads"
TORCH = "path of torch"


def cuda_home(env: EnvReader) -> Mapping[str, str]:
    """Where compilers look for the CUDA toolkit, as FlashInfer (0.7.4) and DeepGEMM (2.6) find it."""
    compiler = shutil.which("nvcc", path=env.text("PATH"))
    found = os.path.dirname(os.path.dirname(compiler)) if compiler else "/usr/local/cuda"
    return {"CUDA home": env.text("CUDA_HOME") or env.text("CUDA_PATH") or found}


def package(module: str, below: str = "") -> Mapping[str, str]:
    """Where a package of the server's Python is; nothing if it is not installed.

    Args:
        module: Its top-level name.
        below: A package in it.
    """
    folder = interpreter().package_folder(module)
    found = folder and os.path.join(folder, below).rstrip("/")
    return {f"path of {below.rpartition('/')[2] or module}": found} if found and os.path.isdir(found) else {}


def host_code(env: EnvReader) -> Mapping[str, str]:
    """What Inductor's kernels for CPUs depend on.

    They include torch's headers by path. Each is compiled for one number of threads, and before torch 2.13 its key does
    not say so: it runs with that number on a pod that has more.
    """
    first = re.match(r"\d+", env.text("OMP_NUM_THREADS") or "")
    threads = int(first[0]) if first else 0
    return {**package("torch"), THREADS: str(threads or len(os.sched_getaffinity(0)))}
