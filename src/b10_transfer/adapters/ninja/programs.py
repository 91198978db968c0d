"""The programs that a command starts, and the files that run for them."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence

from .digests import read_regular
from .manifest import Edge

VARIABLES = (
    "CCC_OVERRIDE_OPTIONS",
    "CL",
    "COMPILER_PATH",
    "CPATH",
    "CPLUS_INCLUDE_PATH",
    "C_INCLUDE_PATH",
    "GCC_EXEC_PREFIX",
    "HIPCC_COMPILE_FLAGS_APPEND",
    "HIPCC_LINK_FLAGS_APPEND",
    "HIP_CLANG_PATH",
    "LIBRARY_PATH",
    "NVCC_APPEND_FLAGS",
    "NVCC_CCBIN",
    "NVCC_PREPEND_FLAGS",
)
"""Variables that compilers read themselves, so that no command shows them."""
_LARGEST_SCRIPT_BYTES = 64 * 1024
_DEEPEST = 8
"""Scripts that start scripts."""
_PATH = re.compile(rb"/[\w.+/-]+")
_COMPILER = re.compile(
    rb"(?<![\w./+-])((?:[\w.]+-)*(?:gcc|g\+\+|cc|c\+\+|clang|clang\+\+|nvcc|hipcc|ccache|sccache|distcc|icecc)(?:-[\d.]+)?)"
    rb"(?![\w./+-])"
)
"""A compiler or a program that starts one, by its bare name."""
_HOST_COMPILER = ("-ccbin", "--compiler-bindir")
_SHELLS = {"sh", "bash", "dash", "ash", "ksh", "zsh"}


def programs_of(edge: Edge, words: Sequence[str], environ: Mapping[str, str]) -> Iterator[str]:
    """The programs that a command starts: its first words, and the compiler that nvcc starts.

    Raises:
        ValueError: A shell starts them, so they are not known.
    """
    ends = {*edge.inputs, *edge.outputs}
    first = []
    for word in words:
        if word.startswith("-") or word in ends:
            break
        first.append(word)
    names = {name.rpartition("/")[2] for name in first}
    if names & _SHELLS:
        raise ValueError(f"a shell starts its compiler: {shlex.join(words)!a:.80}")
    yield from first
    if "nvcc" in names:
        yield from _host_compilers(words, environ)


def _host_compilers(words: Sequence[str], environ: Mapping[str, str]) -> Iterable[str]:
    chosen = [environ["NVCC_CCBIN"]] if environ.get("NVCC_CCBIN") else []
    for word, following in zip(words, [*words[1:], ""], strict=True):
        name, equals, value = word.partition("=")
        if name in _HOST_COMPILER:
            chosen = [value if equals else following]
    names = chosen or ["gcc"]
    return [f"{name}/gcc" if os.path.isdir(name) else name for name in names]


def program_files(name: str, folder: str) -> list[str]:
    """The files that run if a process in ``folder`` starts a program.

    All programs of this name on the PATH count, because ccache, for example, starts the next one. The files that a
    script names by absolute path count, too, and so do the compilers that it names.
    """
    found: dict[str, None] = {}
    for place in _places_of(name if "/" not in name else os.path.join(folder, name)):
        if os.access(place, os.X_OK):
            _add(place, found, _DEEPEST)
    return list(found)


def _places_of(name: str) -> Iterator[str]:
    """Where a program may be. A compiler at an absolute path may start the next one of its name, too."""
    last = name.rpartition("/")[2]
    if last != name:
        yield name
    if last == name or _COMPILER.fullmatch(os.fsencode(last)):
        yield from (os.path.join(part, last) for part in os.environ.get("PATH", os.defpath).split(os.pathsep) if part)


def _add(place: str, found: dict[str, None], deepest: int) -> None:
    """Add a file, and those that it starts if it is a script."""
    path = os.path.realpath(place)
    if path in found or not os.path.isfile(path):
        return
    found[path] = None
    if deepest:
        for name in _started_by(path):
            for other in _places_of(name):
                _add(other, found, deepest - 1)


def _started_by(path: str) -> list[str]:
    """The files and compilers that a script names; none for another file."""
    try:
        if os.path.getsize(path) > _LARGEST_SCRIPT_BYTES:
            return []
        text = read_regular(path, _LARGEST_SCRIPT_BYTES)
    except OSError:
        return []
    if not text.startswith(b"#!"):
        return []
    return sorted({os.fsdecode(name) for name in (*_PATH.findall(text), *_COMPILER.findall(text))})
