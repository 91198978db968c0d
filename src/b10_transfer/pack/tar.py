"""Tar headers, so that ``tar --zstd -xf`` reads a pack. Our own reader goes by the index and skips them."""

from __future__ import annotations

from functools import lru_cache
from zlib import adler32

BLOCK = 512
_MOST = 8**11 - 1
"""The largest number in a plain header's eleven octal digits."""
END = bytes(2 * BLOCK)
"""Two zero blocks end an archive."""


_SECOND_NS = 10**9
_TEN_DIGITS = 10**9
"""The first time in seconds that has so many, in 2001; eleven come in 2286."""
_PADDINGS = [bytes(size) for size in range(BLOCK)]


def padding(size: int) -> bytes:
    """The padding of the last block of ``size`` bytes."""
    return _PADDINGS[-size % BLOCK]


def header(path: str, size: int, mode: int, mtime_ns: int) -> bytes:
    """The headers of a regular file: a POSIX.1-2001 (pax) one for the exact time, then a plain one.

    Python's tarfile takes many times as long, which thousands of files would notice.
    """
    name = path.encode()
    seconds, nanoseconds = divmod(mtime_ns, _SECOND_NS)
    if _TEN_DIGITS <= seconds <= _MOST and size <= _MOST and len(name) <= 100:  # nearly always, and in half the time
        time = b"30 mtime=%d.%09d\n" % (seconds, nanoseconds)
        return _pax_block(len(time)) + time.ljust(BLOCK, b"\0") + _block(name, size, mode, seconds, b"0")
    return _any_header(path, size, mode, mtime_ns)


def _any_header(path: str, size: int, mode: int, mtime_ns: int) -> bytes:
    """The same for a long path, a huge file, or a time that is not of these centuries."""
    seconds, nanoseconds = divmod(abs(mtime_ns), _SECOND_NS)
    sign = "-" if mtime_ns < 0 else ""
    records = _record("mtime", f"{sign}{seconds}.{nanoseconds:09d}")
    name = path.encode()
    if len(name) > 100:
        records += _record("path", path)
    if size > _MOST:
        records += _record("size", str(size))
    return b"%b%b%b%b" % (
        _pax_block(len(records)),
        records,
        padding(len(records)),
        _block(name[:100], min(size, _MOST), mode, 0 if sign else min(seconds, _MOST), b"0"),
    )


def _record(key: str, value: str) -> bytes:
    """``<length> <key>=<value>\\n``, in ASCII, where the length counts its own digits."""
    rest = len(key) + len(value) + 3
    length = rest + 2  # none is so short that one digit would do
    while length != rest + len(str(length)):
        length += 1
    return f"{length} {key}={value}\n".encode()


_NOBODY = b"0000000\0" * 2
"""Owner and group 0: the user who restores a file owns it."""
_TAIL = bytes(100) + b"ustar\00000" + bytes(64) + b"0000000\0" + b"0000000\0" + bytes(167)
"""The fields behind a header's type: no link, the magic, owner and group 0, no device, no prefix."""
_TAIL_SUM = sum(_TAIL) + 8 * ord(" ")
"""Its part of the checksum, which is taken over the whole header with blanks in place of the checksum itself."""


@lru_cache(maxsize=64)
def _pax_block(size: int) -> bytes:
    """The header of a pax header. Readers ignore its name, so one serves all files."""
    return _block(b"PaxHeaders", size, 0o644, 0, b"x")


def _sum(data: bytes) -> int:
    """The sum of less than 250 bytes: the lower half of an Adler-32, which takes a tenth of the time of ``sum``."""
    return (adler32(data) & 0xFFFF) - 1


@lru_cache(maxsize=256)
def _octal(number: int, digits: int) -> bytes:
    """A field of a header. Most files of a save have one of few modes and times."""
    return b"%0*o\0" % (digits, number)


def _block(name: bytes, size: int, mode: int, mtime: int, kind: bytes) -> bytes:
    """One ustar header."""
    start = b"%b%b%b%011o\0%b" % (name.ljust(100, b"\0"), _octal(mode, 7), _NOBODY, size, _octal(mtime, 11))
    return b"%b%06o\0 %b%b" % (start, _sum(start + kind) + _TAIL_SUM, kind, _TAIL)
