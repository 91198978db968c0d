"""Make a restored build current for ninja, if it was made from the same as here."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from .digests import FileFacts, facts
from .files import Dependencies, LogEntry, command_hash, write_dependencies, write_log
from .includes import Reader
from .records import (
    DEPENDENCIES,
    LOG,
    MOST_INPUT_BYTES,
    Places,
    Record,
    environ_of_compilers,
    without_dots,
)

_FIRST_NS = 10**9
"""To ninja, a file of an earlier time does not exist."""


class Compared:
    """What the restore of one cache has read so far. Most builds share their headers.

    Args:
        root: The cache.
        staged: The folder in which the builds lie now, at the same relative paths.
    """

    def __init__(self, root: Path, staged: Path) -> None:
        places = Places(root, "")
        self.files: dict[tuple[str, int], FileFacts] = {}
        """By place and recorded size."""
        self.reader = Reader(lambda path: _place_in(path, places, staged), places.portable)


def fit(root: Path, staged: Path, folder: str, log: bytes, compared: Compared, check: Callable[[], None]) -> None:
    """Make ninja take a staged build as current, if what it was made from is the same here.

    Args:
        root: The cache that it will be in.
        staged: The folder in which it lies now, at the same relative path.
        folder: Its folder, relative to both.
        log: The record in place of its log.
        compared: What was read for the builds before; this one's files are added.
        check: Called before each input is read. What it raises ends this.

    Raises:
        ValueError: It is of no use here, or the record is damaged.
        OSError: A file cannot be written.
    """
    if log.startswith(b"#"):
        raise ValueError("it was saved without digests of its sources")
    found = Record.decode(root, log)
    places = Places(root, folder)
    environ = environ_of_compilers()
    _compare_environ(found, environ)
    times_ns = _compared_inputs(found, places, staged, compared, check)
    _compare_commands(found, places, compared.reader, environ, check)
    # The time of the build is the earliest that ninja accepts. Then ninja notices every source that is written later.
    here_ns = [time_ns for place, time_ns in times_ns.items() if not place.startswith(f"{staged}/")]
    built_ns = max(here_ns or times_ns.values(), default=_FIRST_NS)
    if built_ns > time.time_ns():
        raise ValueError("one of its sources has a time in the future")
    for place in times_ns:
        # A source that was restored, too. Another build may have made it older already.
        if place.startswith(f"{staged}/") and os.stat(place).st_mtime_ns > built_ns:
            os.utime(place, ns=(built_ns, built_ns))
    _make_current(found, places, staged, folder, max(built_ns, _FIRST_NS))


def _compare_environ(found: Record, environ: Mapping[str, str]) -> None:
    """Raise ValueError if compilers read other variables here."""
    for name in sorted(found.environ.keys() | environ.keys()):
        if found.environ.get(name, "") != environ.get(name, ""):
            there, here = found.environ.get(name, "not set"), environ.get(name, "not set")
            raise ValueError(f"{name} was {there} where it was built, and is {here} here")


def _compare_commands(
    found: Record, places: Places, reader: Reader, environ: Mapping[str, str], check: Callable[[], None]
) -> None:
    """Raise ValueError if a command starts another program here, or finds headers or libraries elsewhere."""
    for name, digests in found.programs.items():
        check()
        if sorted(digests) != sorted(places.digests_of(name)):
            raise ValueError(f"the program {name} is another one here")
    for output, command in found.commands.items():
        check()
        if reader.found_by(_words(command), places.folder, environ).lookups != found.lookups.get(output):
            raise ValueError(f"the command of {output} finds headers or libraries at other paths here")


def _words(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError as error:
        raise ValueError(f"not a command: {error}") from error


def _place_in(path: str, places: Places, staged: Path) -> str:
    """Where the content of a file is now: in the cache, or still staged."""
    below = places.below(path)
    return os.path.join(staged, below) if below and not os.path.lexists(path) else path


def _compared_inputs(
    found: Record, places: Places, staged: Path, compared: Compared, check: Callable[[], None]
) -> dict[str, int]:
    """The places and times of the inputs. Raises ValueError if one has another content here."""
    if sum(size for size, _ in found.inputs.values()) > MOST_INPUT_BYTES:
        raise ValueError("its inputs are larger than those of any compiler")
    times_ns: dict[str, int] = {}
    for path, (size, digest) in found.inputs.items():
        check()
        place = without_dots(_place_in(places.of(path), places, staged))
        here = compared.files.get((place, size))
        if here is None:
            try:
                here = compared.files[place, size] = facts(place, size)
            except OSError as error:
                raise ValueError(f"its source {path} is missing or cannot be read") from error
        if here.size != size or here.sha256 != digest:
            raise ValueError(f"its source {path} has another content here")
        times_ns[place] = here.mtime_ns
    return times_ns


def _make_current(found: Record, places: Places, staged: Path, folder: str, built_ns: int) -> None:
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
