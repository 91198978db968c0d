"""A program that restores its own caches and then executes commands, one for each line of stdin.

``load [autosave]``, ``save``, ``compile NAME``, ``use NAME``, ``fork`` (the child goes on with the next lines, and the
parent waits for it), ``orphan`` (the same, but the parent ends). It prints each line when it is done. At the end of
stdin it ends.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path

from b10_transfer import load_compile_cache, save_compile_cache


def compile_unit(name: str) -> None:
    folder = Path(os.environ["TRITON_CACHE_DIR"]) / name
    folder.mkdir(parents=True)
    (folder / "kernel.cubin").write_bytes(name.encode() * 100)
    group = {"child_paths": {"kernel.cubin": str(folder / "kernel.cubin")}}
    (folder / "__grp__kernel.json").write_text(json.dumps(group))


def use_unit(name: str) -> None:
    (Path(os.environ["TRITON_CACHE_DIR"]) / name / "kernel.cubin").read_bytes()


def main() -> None:
    logging.basicConfig(level=logging.INFO)
    while words := sys.stdin.readline().split():
        match words:
            case ["load", *options]:
                load_compile_cache(autosave="autosave" in options or None)
            case ["save"]:
                save_compile_cache()
            case ["compile", name]:
                compile_unit(name)
            case ["use", name]:
                use_unit(name)
            case ["fork" | "orphan" as how]:
                if child := os.fork():
                    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) if how == "fork" else 0)
        print(*words, os.getpid(), flush=True)


if __name__ == "__main__":
    main()
