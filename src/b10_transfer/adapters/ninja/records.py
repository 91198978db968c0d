"""What a build of ninja's was made from: recorded when it is saved, compared when it is restored.

In a pack, ``.ninja_log`` is replaced by a record, in JSON:

============  ========================================================================================================
``version``   of ninja's log
``commands``  of each output
``depends``   for each output, the headers that its compiler reported; as numbers of
              ``inputs`` and, behind those, ``commands``
``inputs``    for each input that ninja did not build, its path, size and SHA-256
``programs``  for each program in a command, the SHA-256 of the files that run
``lookups``   for each output, a digest of the paths to which the names of headers and libraries lead (:mod:`.includes`)
``environ``   the variables that compilers read themselves
============  ========================================================================================================

Paths in the cache begin with a zero byte instead of the cache's path.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from json.encoder import encode_basestring_ascii as quoted
from pathlib import Path
from typing import Any

from .digests import FileFacts, facts
from .programs import VARIABLES, program_files

LOG, DEPENDENCIES, MANIFEST = ".ninja_log", ".ninja_deps", "build.ninja"
MOST_INPUT_BYTES = 1024 * 1024 * 1024
"""Of the inputs of one build together."""
_ROOT = "\\u0000"
"""In JSON, a zero byte."""
_DOTS = re.compile(r"/(?:\.?/)+")
"""Parts of a path that lead nowhere."""
_BEFORE_PATH = r"(?:(?<![\w./+-])|(?<=-I)|(?<=-L)|(?<=-isystem)|(?<=-iquote))"
"""Where a path begins in a command."""


@dataclass(frozen=True)
class Record:
    """What a build was made from. Paths are those of this machine."""

    version: int
    commands: Mapping[str, str]
    depends: Mapping[str, Collection[str]]
    inputs: Mapping[str, tuple[int, str]]
    """Size and digest of each file that ninja did not build."""
    programs: Mapping[str, Collection[str]]
    lookups: Mapping[str, str]
    """For each output, a digest of the paths to which names in its sources and its command lead."""
    environ: Mapping[str, str]
    """Variables that compilers read themselves."""

    def encode(self, root: Path) -> bytes:
        """The same for any path of the cache. Raises ValueError if a text looks like such a path."""
        numbers = {path: number for number, path in enumerate([*self.inputs, *self.commands])}
        document = {
            "version": self.version,
            "commands": self.commands,
            "inputs": [[path, *found] for path, found in self.inputs.items()],
            "depends": {output: [numbers[path] for path in paths] for output, paths in self.depends.items()},
            "programs": {name: sorted(found) for name, found in self.programs.items()},
            "lookups": self.lookups,
            "environ": self.environ,
        }
        text = json.dumps(document, separators=(",", ":"))
        if _ROOT in text:
            raise ValueError("one of its commands holds a zero byte")
        return re.sub(_BEFORE_PATH + re.escape(_prefix(root)), lambda _: _ROOT, text).encode()

    @classmethod
    def decode(cls, root: Path, data: bytes) -> Record:
        """Read a record. Raises ValueError if it is not as :meth:`encode` makes it."""
        try:
            document = json.loads(data.decode().replace(_ROOT, _prefix(root)))
            inputs = {_text(path): (int(size), _text(digest)) for path, size, digest in document["inputs"]}
            commands = {output: _text(command) for output, command in document["commands"].items()}
            paths = [*inputs, *commands]
            return cls(
                version=int(document["version"]),
                commands=commands,
                depends={
                    output: [paths[number] for number in numbers] for output, numbers in document["depends"].items()
                },
                inputs=inputs,
                programs={name: list(map(_text, found)) for name, found in document["programs"].items()},
                lookups={output: _text(digest) for output, digest in document["lookups"].items()},
                environ={name: _text(value) for name, value in document["environ"].items()},
            )
        except (TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError) as error:
            raise ValueError(f"not a record of a build ({type(error).__name__}: {error})") from error


class Places:
    """Where the files are that ninja names, in a build of one folder."""

    def __init__(self, root: Path, folder: str) -> None:
        self.folder = os.path.join(root, folder)
        self._prefix = f"{root}/"
        self._real: dict[str, str] = {}
        self._programs: dict[str, list[FileFacts]] = {}

    def of(self, path: str) -> str:
        """The absolute path of a file."""
        return path if path.startswith("/") else f"{self.folder}/{path}"

    def below(self, path: str) -> str:
        """The path of a file relative to the cache; empty if it is not in it."""
        folder, _, name = self.of(path).rpartition("/")
        if folder not in self._real:  # headers share their folders
            self._real[folder] = os.path.realpath(folder)
        real = f"{self._real[folder]}/{name}"
        return real[len(self._prefix) :] if real.startswith(self._prefix) else ""

    def digests_of(self, program: str) -> list[str]:
        """Digests of the files that run for a program."""
        return [found.sha256 for found in self._facts_of(program)]

    def newest_of(self, program: str) -> int:
        """When the latest of these files was changed, in nanoseconds since the epoch."""
        return max(found.ctime_ns for found in self._facts_of(program))

    def portable(self, path: str) -> str:
        """A path as it is for any path of the cache."""
        return f"\0{path[len(self._prefix) :]}" if path.startswith(self._prefix) else path

    def _facts_of(self, program: str) -> list[FileFacts]:
        """Raises ValueError if one of the files cannot be read."""
        if program not in self._programs:
            try:
                self._programs[program] = [facts(path) for path in program_files(program, self.folder)]
            except OSError as error:
                raise ValueError(f"the program {program} cannot be read: {error}") from error
        return self._programs[program]


def environ_of_compilers() -> dict[str, str]:
    """The variables that compilers read themselves, as far as they are set."""
    return {name: value for name in VARIABLES if (value := os.environ.get(name, ""))}


def without_dots(path: str) -> str:
    """A path without parts that lead nowhere."""
    return _DOTS.sub("/", path)


def _prefix(root: Path) -> str:
    """How JSON begins the paths of files in the cache."""
    return quoted(f"{root}/")[1:-1]


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!a:.80} is not a text")
    return value
