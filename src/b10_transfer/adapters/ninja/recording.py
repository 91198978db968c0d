"""Record what a build was made from, when it is saved."""

from __future__ import annotations

import os
import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from .digests import FileFacts, facts, links_changed_ns, read_regular
from .files import Dependencies, LogEntry, command_hash, read_dependencies, read_log, write_dependencies
from .includes import Reader
from .manifest import Edge, edges
from .programs import programs_of
from .records import (
    DEPENDENCIES,
    MANIFEST,
    MOST_INPUT_BYTES,
    Places,
    Record,
    environ_of_compilers,
    without_dots,
)

NO_DEPENDENCIES = write_dependencies({})
_NOTHING_REPORTED = Dependencies(0, ())
_MOST_MANIFEST_BYTES = 4 * 1024 * 1024
_MOST_DEPENDENCIES_BYTES = 64 * 1024 * 1024


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
    version, entries = read_log(log)
    build = _Build(Places(root, folder), entries)
    if not build.edges:
        raise ValueError(f"its {MANIFEST} builds nothing")
    for output, edge in build.edges.items():
        if output not in entries or entries[output].command_hash != command_hash(version, edge.command):
            raise ValueError(f"{output} was not built by the command in {MANIFEST}")
        if build.places.below(output) not in files:
            raise ValueError(f"{output} is not saved with it")
        build.read(output)
    build.check()
    return Record(
        version=version,
        commands={output: edge.command for output, edge in build.edges.items()},
        depends={output: build.reported[output].inputs for output in build.edges if output in build.reported},
        inputs={path: (found.size, found.sha256) for path, found in sorted(build.inputs.items())},
        programs=build.digests,
        lookups=build.lookups,
        environ=build.environ,
    )


class _Build:
    """A build in a folder, and what it was made from as far as that was read."""

    def __init__(self, places: Places, entries: Mapping[str, LogEntry]) -> None:
        self.places, self._entries = places, entries
        self.edges = {output: edge for edge in _edges_in(places.folder) for output in edge.outputs}
        self.reported = _dependencies_in(places.folder)
        self.environ = environ_of_compilers()
        self.inputs: dict[str, FileFacts] = {}
        """Files that ninja did not build."""
        self.lookups: dict[str, str] = {}
        self.digests: dict[str, list[str]] = {}
        """Of the files of each program."""
        self._programs: dict[str, Sequence[str]] = {}
        self._reads: dict[str, Collection[str]] = {}
        """The inputs of each output, built ones too."""
        self._reader = Reader(lambda path: path, places.portable)

    def read(self, output: str) -> None:
        """Read the inputs and programs of an output."""
        edge, of = self.edges[output], self.places.of
        words = shlex.split(edge.command)
        found = self._reader.found_by(words, self.places.folder, self.environ)
        self.lookups[output] = found.lookups
        self._programs[output] = list(programs_of(edge, words, self.environ))
        for name in self._programs[output]:
            self.digests[name] = self.places.digests_of(name)
        known = {of(path) for path in (*edge.inputs, *edge.outputs, *self._programs[output])}
        others = {path for path in found.files if without_dots(path) not in known}
        self._reads[output] = {*edge.inputs, *self.reported.get(output, _NOTHING_REPORTED).inputs, *others}
        for path in self._reads[output]:
            if path not in self.inputs and path not in self.edges:
                self.inputs[path] = _facts_of_input(of(path))

    def check(self) -> None:
        """Raise ValueError if ninja would build it again, or if an input may have changed since it was built."""
        if sum(found.size for found in self.inputs.values()) > MOST_INPUT_BYTES:
            raise ValueError("its inputs are larger than those of any compiler")
        times_ns = {found.mtime_ns for found in self.inputs.values()}
        for output, edge in self.edges.items():
            made = os.stat(self.places.of(output))
            if edge.reports_headers and self.reported.get(output, _NOTHING_REPORTED).mtime_ns < made.st_mtime_ns:
                raise ValueError(f"{output} is newer than its dependencies")
            # The time of a file says when it was built here. A restore gives it the time of an input.
            is_restored = made.st_mtime_ns in times_ns
            until_ns = made.st_ctime_ns if is_restored else made.st_mtime_ns
            self._check_inputs(output, min(self._entries[output].mtime_ns, made.st_mtime_ns), until_ns)
            for name in self._programs[output]:
                if not self.digests[name] or self.places.newest_of(name) > until_ns:
                    raise ValueError(f"the program {name} is missing or has changed since {output} was built")

    def _check_inputs(self, output: str, before_ns: int, until_ns: int) -> None:
        for path in self._reads[output]:
            place = self.places.of(path)
            if path in self.edges:
                if os.stat(place).st_mtime_ns > before_ns:
                    raise ValueError(f"{output} is older than {path}: its build was interrupted")
                continue
            # It may have been replaced by an older file, too. (In the cache, a restore writes files in any order.)
            changed_ns = max(self.inputs[path].ctime_ns, links_changed_ns(place))
            if self.inputs[path].mtime_ns > before_ns or (changed_ns > until_ns and not self.places.below(path)):
                raise ValueError(f"{path} has changed since {output} was built")


def _edges_in(there: str) -> Iterable[Edge]:
    try:
        text = read_regular(os.path.join(there, MANIFEST), _MOST_MANIFEST_BYTES, follow=False).decode()
    except OSError as error:
        raise ValueError(f"its {MANIFEST} cannot be read: {error}") from error
    return edges(text)


def _dependencies_in(there: str) -> Mapping[str, Dependencies]:
    try:
        data = read_regular(os.path.join(there, DEPENDENCIES), _MOST_DEPENDENCIES_BYTES, follow=False)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ValueError(f"its {DEPENDENCIES} cannot be read: {error}") from error
    return read_dependencies(data)


def _facts_of_input(path: str) -> FileFacts:
    try:
        return facts(path)
    except OSError as error:
        raise ValueError(f"{path} cannot be read") from error
