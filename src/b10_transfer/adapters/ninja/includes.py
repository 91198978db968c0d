"""The files that a command reads although ninja does not know them, found without running a compiler.

Ninja compares the inputs that it is given and the headers that a compiler reports. With ``-MMD`` no header below
``-isystem`` is reported, and no compiler reports a header that it would find first if it existed. Linkers report
nothing. So a save and a load follow the ``#include`` lines of the sources through the folders that the command and the
environment name, whatever ``#if`` surrounds them, and look for static libraries. If each name leads to the same path,
and the files there have the same content, the command gives the same.

Headers of torch, Python and CUDA are not read: their versions are in the environment key.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from .digests import read_regular

_INCLUDE = re.compile(
    rb"""^[ \t]*\#[ \t]*(?:include|include_next|import|embed)[ \t]*(?:"([^"\n]+)"|<([^>\n]+)>)"""
    rb"""|__has_(?:include(?:_next)?|embed)[ \t]*\([ \t]*(?:"([^"\n]+)"|<([^>\n]+)>)"""
    rb"""|\.incbin[ \t]+\\?"([^"\\\n]+)""",
    re.MULTILINE,
)
"""Names in quotes, or in angle brackets, of files that a source reads."""
_SOURCE = re.compile(r".+\.(?:c|cc|cpp|cxx|C|cu|cuh|h|hpp|hip|sycl|S|s|m|mm)", re.ASCII)
_SHARED = re.compile(r".+\.so(?:\.\d+)*", re.ASCII)
_FOLDERS = {
    "-iquote": "quote",
    "-I": "include",
    "--include-path": "include",
    "-isystem": "system",
    "--system-include": "system",
    "-idirafter": "after",
}
"""Options that name a folder of headers, joined with it or before it, and when a compiler searches it."""
_FILES = ("-include", "-imacros", "--pre-include")
"""Options that name a header to read first."""
_KEYED = ("ATen/ATen.h", "torch/torch.h", "Python.h", "cuda_runtime_api.h", "hip/hip_version.h")
"""A folder with one of these belongs to torch, Python or a toolkit."""
_MOST_FILES = 20_000
_MOST_BYTES = 16 * 1024 * 1024
"""A larger file is not searched for ``#include`` lines."""

Places = Callable[[str], str]
"""The place of a file by its absolute path: a staged file is elsewhere."""


class Found(NamedTuple):
    """What a command reads beyond its inputs."""

    files: Collection[str]
    """Their content decides."""
    lookups: str
    """A digest of the paths that all names lead to."""


class _Search(NamedTuple):
    """The folders in which a command looks for headers, in this order."""

    quote: tuple[str, ...]
    angle: tuple[str, ...]


class Reader:
    """Finds what commands read. Remembers the files that it has read.

    Args:
        place_of: Where the content of a file is.
        portable: A path without this machine's path of the cache.
    """

    def __init__(self, place_of: Places, portable: Callable[[str], str]) -> None:
        self._place_of = place_of
        self._portable = portable
        self._names: dict[str, Sequence[tuple[str, bool]]] = {}
        self._is_file: dict[str, bool] = {}
        self._is_keyed: dict[str, bool] = {}

    def found_by(self, words: Sequence[str], folder: str, environ: Mapping[str, str]) -> Found:
        """What a command reads that starts in a folder.

        Raises:
            ValueError: It reads more files than any compiler, or its arguments are in another file.
        """
        for word in words:
            if word.startswith("@") and self._exists(_absolute(folder, word[1:])):
                raise ValueError(f"some of its arguments are in the file {word[1:]}")
        files = {_absolute(folder, name): None for name in _named(words)}
        files = {path: None for path in files if self._exists(path) and not _SHARED.fullmatch(path)}
        lookups: dict[tuple[str, str], str] = {}
        headers = self._headers(words, folder, environ, lookups)
        libraries = self._libraries(words, folder, environ, lookups)
        text = "\n".join(sorted("\t".join(map(self._portable, (*key, path))) for key, path in lookups.items()))
        digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
        return Found({**files, **headers, **libraries}.keys(), digest)

    def _headers(
        self, words: Sequence[str], folder: str, environ: Mapping[str, str], lookups: dict[tuple[str, str], str]
    ) -> dict[str, None]:
        search = _search_of(words, folder, environ)
        for searched in (*search.quote, *search.angle):
            # Packages at another path give another command, which ninja would run again.
            lookups["-I", searched] = searched if os.path.isdir(searched) else ""
        first = [word for word in words if _SOURCE.fullmatch(word) and not word.startswith("-")]
        pending = [path for path in (_absolute(folder, word) for word in first) if self._exists(path)]
        found: dict[str, None] = {}
        while pending:
            path = pending.pop()
            here = path.rpartition("/")[0]
            for name, is_quoted in self._included(path):
                key = (here if is_quoted else "", name)
                if key in lookups:
                    continue
                lookups[key], is_keyed = self._resolved(name, here if is_quoted else None, search)
                header = lookups[key]
                if header and not is_keyed and header not in found:
                    found[header] = None
                    pending.append(header)
            if len(lookups) > _MOST_FILES:
                raise ValueError(f"its sources include more than {_MOST_FILES} files")
        return found

    def _resolved(self, name: str, here: str | None, search: _Search) -> tuple[str, bool]:
        """The path that a name leads to, and whether its folder is in the key; an empty path for the compiler's own."""
        if name.startswith("/"):
            return (name if self._exists(name) else ""), False
        for folder in search.angle if here is None else (here, *search.quote, *search.angle):
            if self._exists(path := f"{folder}/{name}"):
                return path, folder != here and self._belongs_to_key(folder)
        return "", False

    def _libraries(
        self, words: Sequence[str], folder: str, environ: Mapping[str, str], lookups: dict[tuple[str, str], str]
    ) -> dict[str, None]:
        """Static libraries become part of the output. Of others only the path is looked up."""
        folders = [_absolute(folder, name) for name in _values(words, "-L")]
        folders += [_absolute(folder, name) for name in environ.get("LIBRARY_PATH", "").split(os.pathsep) if name]
        found: dict[str, None] = {}
        for name in _values(words, "-l"):
            names = (name[1:],) if name.startswith(":") else (f"lib{name}.so", f"lib{name}.a")
            places = (f"{part}/{file}" for part in folders for file in names)
            path = next(filter(self._exists, places), "")
            lookups["-l", name] = path
            if path.endswith((".a", ".o")):
                found[path] = None
        return found

    def _included(self, path: str) -> Sequence[tuple[str, bool]]:
        if path not in self._names:
            try:
                data = read_regular(self._place_of(path), _MOST_BYTES)
            except OSError:  # its digest says so
                data = b""
            self._names[path] = [
                (os.fsdecode(next(filter(None, groups))), any((groups[0], groups[2], groups[4])))
                for groups in (match.groups() for match in _INCLUDE.finditer(data))
            ]
        return self._names[path]

    def _exists(self, path: str) -> bool:
        if path not in self._is_file:
            self._is_file[path] = "\0" not in path and os.path.isfile(self._place_of(path))
        return self._is_file[path]

    def _belongs_to_key(self, folder: str) -> bool:
        if folder not in self._is_keyed:
            self._is_keyed[folder] = any(self._exists(f"{folder}/{marker}") for marker in _KEYED)
        return self._is_keyed[folder]


def _search_of(words: Sequence[str], folder: str, environ: Mapping[str, str]) -> _Search:
    found: dict[str, list[str]] = {"quote": [], "include": [], "system": [], "after": []}
    for option, kind in _FOLDERS.items():
        found[kind] += [_absolute(folder, name) for name in _values(words, option)]
    for variable, kind in (("CPATH", "include"), ("C_INCLUDE_PATH", "system"), ("CPLUS_INCLUDE_PATH", "system")):
        if text := environ.get(variable):
            found[kind] += [_absolute(folder, name or ".") for name in text.split(os.pathsep)]
    return _Search(tuple(found["quote"]), (*found["include"], *found["system"], *found["after"]))


def _values(words: Sequence[str], option: str) -> Iterator[str]:
    """The values of an option: joined with it, behind ``=``, or the next word."""
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word == option:
            yield following
        elif word.startswith(option):
            yield word[len(option) :].removeprefix("=")


def _named(words: Sequence[str]) -> Iterator[str]:
    """The words, and their parts, that may name a file that the command reads."""
    written = {following for word, following in pairwise(words) if word in ("-o", "-MF")}
    for word in words:
        if word not in written:
            yield from (part for part in re.split(r"[,=]", word) if part and not part.startswith("-"))
    for option in _FILES:
        yield from _values(words, option)


def _absolute(folder: str, path: str) -> str:
    return path if path.startswith("/") else f"{folder}/{path}"
