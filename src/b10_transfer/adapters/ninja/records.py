"""What a build of ninja's was made from: recorded when it is saved, compared when it is restored.

In a pack, ``.ninja_log`` is replaced by a record, in JSON:

============  ========================================================================================================
``version``   of ninja's log
``commands``  of each output
``depends``   for each output, the headers that its compiler reported; as numbers of
              ``inputs`` and, behind those, ``commands``
``inputs``    for each input that ninja did not build, its path, size and SHA-256
``programs``  for each program in a command, the SHA-256 of the files that run
============  ========================================================================================================

Paths in the cache begin with a zero byte instead of the cache's path.
"""

from __future__ import annotations

import json
import os
import shlex
import time
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from json.encoder import encode_basestring_ascii as quoted
from pathlib import Path
from typing import Any

from .digests import FileFacts, facts, program_files
from .files import (
    Dependencies,
    LogEntry,
    command_hash,
    read_dependencies,
    read_log,
    write_dependencies,
    write_log,
)
from .manifest import Edge, edges

LOG, DEPENDENCIES, MANIFEST = ".ninja_log", ".ninja_deps", "build.ninja"
NO_DEPENDENCIES = write_dependencies({})
_ROOT = "\\u0000"
"""In JSON, a zero byte."""
Seen = dict[tuple[str, int], FileFacts]
"""Files that were compared, by place and recorded size."""
_MOST_MANIFEST_BYTES = 4 * 1024 * 1024
_FIRST_NS = 10**9
"""To ninja, a file of an earlier time does not exist."""
_HOST_COMPILER = "-ccbin"


class _Places:
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

    def _facts_of(self, program: str) -> list[FileFacts]:
        if program not in self._programs:
            self._programs[program] = []
            for path in program_files(program, self.folder):
                with suppress(OSError):
                    self._programs[program].append(facts(path))
        return self._programs[program]


@dataclass(frozen=True)
class Record:
    """What a build was made from. Paths are those of this machine."""

    version: int
    commands: Mapping[str, str]
    depends: Mapping[str, Collection[str]]
    inputs: Mapping[str, tuple[int, str]]
    """Size and digest of each file that ninja did not build."""
    programs: Mapping[str, Collection[str]]

    def encode(self, root: Path) -> bytes:
        """The same for any path of the cache."""
        numbers = {path: number for number, path in enumerate([*self.inputs, *self.commands])}
        document = {
            "version": self.version,
            "commands": self.commands,
            "inputs": [[path, *found] for path, found in self.inputs.items()],
            "depends": {output: [numbers[path] for path in paths] for output, paths in self.depends.items()},
            "programs": {name: sorted(found) for name, found in self.programs.items()},
        }
        return json.dumps(document, separators=(",", ":")).replace(_prefix(root), _ROOT).encode()

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
            )
        except (TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError) as error:
            raise ValueError(f"not a record of a build ({type(error).__name__}: {error})") from error


def record(root: Path, folder: str, log: bytes, files: Collection[str]) -> Record:
    """Record what the build in a folder of the cache was made from.

    Args:
        root: The cache.
        folder: The folder, relative to it.
        log: The content of its ``.ninja_log``.
        files: The files of the unit, relative to the cache.

    Raises:
        ValueError: Ninja would build it again, or it is not known what it was made from.
    """
    places = _Places(root, folder)
    version, entries = read_log(log)
    dependencies = _dependencies_in(places.folder)
    built = {output: edge for edge in _edges_in(places.folder) for output in edge.outputs}
    if not built:
        raise ValueError(f"its {MANIFEST} builds nothing")
    inputs: dict[str, FileFacts] = {}
    programs: dict[str, list[str]] = {}
    for output, edge in built.items():
        entry = entries.get(output)
        if entry is None or entry.command_hash != command_hash(version, edge.command):
            raise ValueError(f"{output} was not built by the command in {MANIFEST}")
        made = os.stat(places.of(output))
        reported = dependencies.get(output, Dependencies(made.st_mtime_ns, ()))
        if reported.mtime_ns < made.st_mtime_ns or places.below(output) not in files:
            raise ValueError(f"{output} is not saved with it, or is newer than its dependencies")
        for path in {*edge.inputs, *reported.inputs} - built.keys():
            if path not in inputs:
                inputs[path] = _facts_of_input(places.of(path))
            is_newer = inputs[path].mtime_ns > min(entry.mtime_ns, made.st_mtime_ns)
            # It may have been replaced by an older file, too. (In the cache, a restore writes files in any order.)
            if is_newer or (inputs[path].ctime_ns > made.st_ctime_ns and not places.below(path)):
                raise ValueError(f"{path} has changed since it was built")
        for name in _programs(edge):
            programs[name] = places.digests_of(name)
            if not programs[name] or places.newest_of(name) > made.st_ctime_ns:
                raise ValueError(f"the program {name} is missing or has changed since it was built")
    return Record(
        version=version,
        commands={output: edge.command for output, edge in built.items()},
        depends={output: dependencies[output].inputs for output in built if output in dependencies},
        inputs={path: (found.size, found.sha256) for path, found in sorted(inputs.items())},
        programs=programs,
    )


def fit(root: Path, staged: Path, folder: str, log: bytes, seen: Seen) -> None:
    """Make ninja take a staged build as current, if what it was made from is the same here.

    Args:
        root: The cache that it will be in.
        staged: The folder in which it lies now, at the same relative path.
        folder: Its folder, relative to both.
        log: The record in place of its log.
        seen: Inputs of the builds before; this one's are added. Most builds share their headers.

    Raises:
        ValueError: It is of no use here, or the record is damaged.
        OSError: A file cannot be written.
    """
    if log.startswith(b"#"):
        raise ValueError("it was saved without digests of its sources")
    found = Record.decode(root, log)
    places = _Places(root, folder)
    times_ns = _compared_inputs(found, places, staged, seen)
    for name, digests in found.programs.items():
        if sorted(digests) != sorted(places.digests_of(name)):
            raise ValueError(f"the program {name} is another one here")
    # The time of the build is the earliest that ninja accepts. Then ninja notices every source that is written later.
    here_ns = [time_ns for place, time_ns in times_ns.items() if not place.startswith(f"{staged}/")]
    built_ns = max(here_ns or times_ns.values(), default=_FIRST_NS)
    if built_ns > time.time_ns():
        raise ValueError("one of its sources has a time in the future")
    for place, time_ns in times_ns.items():
        if time_ns > built_ns:  # a source that was restored, too
            os.utime(place, ns=(built_ns, built_ns))
    _make_current(found, places, staged, folder, max(built_ns, _FIRST_NS))


def _compared_inputs(found: Record, places: _Places, staged: Path, seen: Seen) -> dict[str, int]:
    """The places and times of the inputs. Raises ValueError if one has another content here."""
    times_ns: dict[str, int] = {}
    for path, (size, digest) in found.inputs.items():
        place, below = places.of(path), places.below(path)
        if below and not os.path.lexists(place):
            place = os.path.join(staged, below)
        here = seen.get((place, size))
        if here is None:
            try:
                here = seen[place, size] = facts(place, size)
            except OSError as error:
                raise ValueError(f"{path} is missing or cannot be read") from error
        if here.sha256 != digest:
            raise ValueError(f"{path} has another content here")
        times_ns[place] = here.mtime_ns
    return times_ns


def _make_current(found: Record, places: _Places, staged: Path, folder: str, built_ns: int) -> None:
    """Write ninja's files for a build of one time, and set the time of what it built."""
    for output in found.commands:
        below = places.below(output)
        place = os.path.join(staged, below)
        if not below.startswith(f"{folder}/") or not os.path.isfile(place):
            raise ValueError(f"{output} is not part of it")
        os.utime(place, ns=(built_ns, built_ns))
    entries = {
        output: LogEntry(built_ns, command_hash(found.version, command)) for output, command in found.commands.items()
    }
    dependencies = {output: Dependencies(built_ns, tuple(paths)) for output, paths in found.depends.items()}
    place = os.path.join(staged, folder)
    _replace(os.path.join(place, DEPENDENCIES), write_dependencies(dependencies), built_ns)
    _replace(os.path.join(place, LOG), write_log(found.version, entries), built_ns)


def _replace(path: str, data: bytes, built_ns: int) -> None:
    """Give a staged file another content. It keeps its time, so that a save finds it as it was restored."""
    try:
        before = os.stat(path)
    except FileNotFoundError:
        return  # the build has no such file
    os.unlink(path)  # its owner may not be allowed to write to it
    with open(path, "xb") as file:
        file.write(data)
        os.fchmod(file.fileno(), before.st_mode & 0o777)
    time_ns = max(before.st_mtime_ns, built_ns)
    os.utime(path, ns=(time_ns, time_ns))


def _edges_in(there: str) -> Iterable[Edge]:
    try:
        with open(os.path.join(there, MANIFEST), encoding="utf-8") as file:
            return edges(file.read(_MOST_MANIFEST_BYTES))
    except OSError as error:
        raise ValueError(f"its {MANIFEST} cannot be read: {error}") from error


def _dependencies_in(there: str) -> Mapping[str, Dependencies]:
    try:
        with open(os.path.join(there, DEPENDENCIES), "rb") as file:
            return read_dependencies(file.read())
    except FileNotFoundError:
        return {}


def _facts_of_input(path: str) -> FileFacts:
    try:
        return facts(path)
    except OSError as error:
        raise ValueError(f"{path} cannot be read") from error


def _programs(edge: Edge) -> Iterable[str]:
    """The programs that a command starts: its first words, and the compiler that nvcc is given."""
    words = shlex.split(edge.command)
    ends = {*edge.inputs, *edge.outputs}
    for word in words:
        if word.startswith("-") or word in ends:
            break
        yield word
    for word, following in pairwise(words):
        if word == _HOST_COMPILER:
            yield following


def _prefix(root: Path) -> str:
    """How JSON begins the paths of files in the cache."""
    return quoted(f"{root}/")[1:-1]


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!a:.80} is not a text")
    return value
