"""The formats of ninja's log (``.ninja_log``, versions 5 to 7) and of its dependencies (``.ninja_deps``, version 4).

Sources: ninja 1.11 to 1.13, ``src/build_log.cc``, ``src/deps_log.cc``. A log names the commands by a hash:
MurmurHash64A up to version 6, and rapidhash from version 7 on.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import NamedTuple

_LOG_HEADER = "# ninja log v"
_DEPS_HEADER = b"# ninjadeps\n" + struct.pack("<i", 4)
_IS_DEPS = 1 << 31
_MOST_RECORD_BYTES = (1 << 19) - 1
_MASK = (1 << 64) - 1
_RAPID = (0x2D358DCCAA6C78A5, 0x8BB84B93962EACC9, 0x4B33A62ED433D4A3)
_RAPID_SEED = 0xBDD89AA982704029
_MURMUR = 0xC6A4A7935BD1E995
_MURMUR_SEED = 0xDECAFBADDECAFBAD


class LogEntry(NamedTuple):
    """The last build of an output."""

    mtime_ns: int
    command_hash: int


class Dependencies(NamedTuple):
    """The headers of an output, as its compiler reported them."""

    mtime_ns: int
    inputs: tuple[str, ...]


def read_log(data: bytes) -> tuple[int, dict[str, LogEntry]]:
    """The version of a log, and the last entry of each output. Raises ValueError if it is not one of ninja's."""
    header, *lines = data.decode().splitlines()
    version = header.removeprefix(_LOG_HEADER)
    if not header.startswith(_LOG_HEADER) or version not in ("5", "6", "7"):
        raise ValueError(f"its log begins with {header!a:.40}")
    entries = {}
    for line in lines:
        _start, _end, mtime_ns, output, command_hash = line.split("\t")
        entries[output] = LogEntry(int(mtime_ns), int(command_hash, 16))
    return int(version), entries


def write_log(version: int, entries: Mapping[str, LogEntry]) -> bytes:
    """A log with one entry for each output."""
    lines = [f"0\t0\t{entry.mtime_ns}\t{output}\t{entry.command_hash:x}\n" for output, entry in entries.items()]
    return "".join((f"{_LOG_HEADER}{version}\n", *lines)).encode()


def read_dependencies(data: bytes) -> dict[str, Dependencies]:
    """The last dependencies of each output. Raises ValueError if it is not a file of ninja's."""
    if not data.startswith(_DEPS_HEADER):
        raise ValueError(f"its dependencies begin with {data[:16]!r}")
    paths: list[str] = []
    found: dict[str, Dependencies] = {}
    at = len(_DEPS_HEADER)
    while at < len(data):
        try:
            (size,) = struct.unpack_from("<I", data, at)
            record = data[at + 4 : at + 4 + (size & ~_IS_DEPS)]
            at += 4 + (size & ~_IS_DEPS)
            if at > len(data):
                raise IndexError
            if size & _IS_DEPS:
                output, mtime_ns = struct.unpack_from("<iQ", record)
                ids = struct.unpack_from(f"<{(len(record) - 12) // 4}i", record, 12)
                found[paths[output]] = Dependencies(mtime_ns, tuple(paths[number] for number in ids))
            else:
                (check,) = struct.unpack_from("<I", record, len(record) - 4)
                if check != ~len(paths) & 0xFFFFFFFF:
                    raise ValueError("its dependencies are damaged")
                paths.append(record[:-4].rstrip(b"\0").decode())
        except (struct.error, IndexError) as error:
            raise ValueError("its dependencies end in the middle of a record") from error
    return found


def write_dependencies(dependencies: Mapping[str, Dependencies]) -> bytes:
    """The file for some outputs. Raises ValueError if a path or a list is longer than ninja reads."""
    ids: dict[str, int] = {}
    parts = [_DEPS_HEADER]

    for output, (mtime_ns, inputs) in dependencies.items():
        for path in dict.fromkeys((output, *inputs)):
            if path not in ids:
                name = path.encode()
                name += b"\0" * (-len(name) % 4)
                size, check = _record_size(len(name) + 4), ~len(ids) & 0xFFFFFFFF
                parts.append(struct.pack("<I", size) + name + struct.pack("<I", check))
                ids[path] = len(ids)
        numbers = [ids[output], *map(ids.__getitem__, inputs)]
        header = _record_size(12 + 4 * len(inputs)) | _IS_DEPS
        parts.append(struct.pack(f"<IiQ{len(inputs)}i", header, numbers[0], mtime_ns, *numbers[1:]))
    return b"".join(parts)


def _record_size(size: int) -> int:
    if size > _MOST_RECORD_BYTES:
        raise ValueError(f"a record of its dependencies has {size} bytes")
    return size


def command_hash(version: int, command: str) -> int:
    """The hash of a command in a log of some version."""
    return (rapid_hash if version >= 7 else murmur_hash)(command.encode())


def murmur_hash(data: bytes) -> int:
    """MurmurHash64A with ninja's seed."""
    found = (_MURMUR_SEED ^ len(data) * _MURMUR) & _MASK
    end = len(data) & ~7
    for (word,) in struct.iter_unpack("<Q", data[:end]):
        word = word * _MURMUR & _MASK
        word = (word ^ word >> 47) * _MURMUR & _MASK
        found = (found ^ word) * _MURMUR & _MASK
    if rest := data[end:]:
        found = (found ^ int.from_bytes(rest, "little")) * _MURMUR & _MASK
    found = (found ^ found >> 47) * _MURMUR & _MASK
    return found ^ found >> 47


def rapid_hash(data: bytes) -> int:
    """The first version of rapidhash, with its default seed."""
    size = len(data)
    seed = _RAPID_SEED ^ _mixed(_RAPID_SEED ^ _RAPID[0], _RAPID[1]) ^ size
    if size <= 16:
        first, last = _ends(data)
    else:
        seed = _rapid_body(seed, data)
        first, last = struct.unpack_from("<QQ", data, size - 16)
    product = (first ^ _RAPID[1]) * (last ^ seed)
    return _mixed(product & _MASK ^ _RAPID[0] ^ size, product >> 64 ^ _RAPID[1])


def _rapid_body(seed: int, data: bytes) -> int:
    """The state before the last 16 of more than 16 bytes."""
    at, left = 0, len(data)
    if left > 48:
        lanes = [seed, seed, seed]
        while left >= 48:
            words = struct.unpack_from("<6Q", data, at)
            for lane in range(3):
                lanes[lane] = _mixed(words[2 * lane] ^ _RAPID[lane], words[2 * lane + 1] ^ lanes[lane])
            at, left = at + 48, left - 48
        seed = lanes[0] ^ lanes[1] ^ lanes[2]
    if left > 16:
        first, second = struct.unpack_from("<QQ", data, at)
        seed = _mixed(first ^ _RAPID[2], second ^ seed ^ _RAPID[1])
        if left > 32:
            first, second = struct.unpack_from("<QQ", data, at + 16)
            seed = _mixed(first ^ _RAPID[2], second ^ seed)
    return seed


def _ends(data: bytes) -> tuple[int, int]:
    """Two words of at most 16 bytes."""
    size = len(data)
    if size >= 4:
        between = (size & 24) >> (size >> 3)

        def word(at: int) -> int:
            return int.from_bytes(data[at : at + 4], "little")

        return word(0) << 32 | word(size - 4), word(between) << 32 | word(size - 4 - between)
    return (data[0] << 56 | data[size >> 1] << 32 | data[-1], 0) if data else (0, 0)


def _mixed(one: int, other: int) -> int:
    product = one * other
    return product & _MASK ^ product >> 64
