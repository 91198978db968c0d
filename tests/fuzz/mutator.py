"""Changes to packs that get past digests: the same for the same seed, with no engine needed.

Random bytes hardly ever pass the first SHA-256. So a pack is taken apart, one part of it is changed, and it is put
together again with digests that are right; only sometimes are its bytes changed as they lie.
"""

from __future__ import annotations

import copy
import json
import random
import struct
from collections.abc import Callable
from typing import Any

from b10_transfer.pack import trailer
from b10_transfer.pack.zstd import pack_frame

from .anatomy import Anatomy

MOST_BYTES = 64 * 1024
SEPARATOR = b"\xff\0"
"""Between the index and the extension in an input of the target ``signature``."""

_UNIT = ["inductor/zz/new.py", 0, 0o644, 0, 0, "0" * 64]
_VALUES: list[Any] = [
    *(None, True, False, [], {}, [[]], [None], {"": ""}),
    *(0, 1, -1, 0.5, 1e308, float("nan"), 2**31, 2**53, 2**62, 2**62 + 1, 2**63, 2**64, 10**400),
    *(8 << 20, (8 << 20) + 1, 0o777, 0o4755),
    *("", ".", "..", "/", "\\", "\0", "\n", "\u00e9", "\ud800", "x" * 300, "a/" * 600, "0" * 64, "F" * 64),
    *("/etc/passwd", "a/../../b", "triton/../../../b", "inductor/aa/", "inductor/ey/key", "triton/KERNEL"),
    *("triton/KERNEL/k.cubin/x", ".b10-lock", "tmp.pid_1_x", "folder", "stem", "inductor", "triton"),
    _UNIT,
    {"name": "inductor/zz/new", "kind": "stem", "members": [_UNIT]},
    {"name": "triton/NEW", "kind": "folder", "members": [["triton/NEW/k", 1, 0o644, 0, 0, "0" * 64]]},
]
_SKIPPABLE = struct.Struct("<II")
_FRAMES: list[bytes] = [
    b"",
    b"\x28\xb5\x2f\xfd",
    bytes.fromhex("28b52ffd00") + b"\x58\x01\x00\x00",  # no content size, window of 2 KiB
    bytes.fromhex("28b52ffd00") + b"\xf8\x01\x00\x00",  # a window of terabytes
    bytes.fromhex("28b52ffd01") + b"\x58\x07\x01\x00\x00",  # a dictionary that nobody has
    bytes.fromhex("28b52ffde0") + b"\xff" * 8 + b"\x01\x00\x00",  # a content of 2^64 bytes
    bytes.fromhex("28b52ffd64") + b"\x00\x01" + b"\x02\x00\x00" * 40,  # blocks that never end
    bytes.fromhex("25b52ffd") + bytes(9),  # a format of long ago
    bytes.fromhex("37a430ec") + bytes(20),  # a dictionary
]
_ZEROS = [pack_frame(bytes(size)) for size in (0, 1, 4096, 8 << 20, (8 << 20) + 1)]

Mutate = Callable[[bytes, random.Random], bytes]


def mutate(data: bytes, rng: random.Random, mutate_bytes: Mutate | None = None) -> bytes:
    """Another input out of this one, of at most MOST_BYTES. ``mutate_bytes`` is the engine's own way with bytes."""
    change_bytes = mutate_bytes or _mutate_bytes
    anatomy = Anatomy.of(data)
    if anatomy is None or rng.random() < 0.1:
        return change_bytes(data, rng)[:MOST_BYTES]
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        change = rng.choices(
            (_change_document, _change_text, _change_frame, _change_framing, _change_extension),
            weights=(10, 3, 4, 2, 2),
        )[0]
        change(anatomy, rng, change_bytes)
    result = anatomy.pack()
    if rng.random() < 0.1:
        result = _change_footer(result, rng)
    return result if len(result) <= MOST_BYTES else data


def crossed(one: bytes, other: bytes, rng: random.Random) -> bytes:
    """Parts of two packs in one: the index of this, the frames, units or signatures of that."""
    mine, theirs = Anatomy.of(one), Anatomy.of(other)
    if mine is None or theirs is None:
        return one
    part = rng.randrange(4)
    if part == 0:
        mine.extension = theirs.extension
    elif part == 1:
        mine.index, mine.extension = theirs.index, theirs.extension
    elif part == 2 and isinstance(mine.document.get("units"), list) and isinstance(theirs.document.get("units"), list):
        mine.document["units"] = mine.document["units"] + theirs.document["units"]
        mine.rewrite_index()
    else:
        mine.frames, mine.document["frames"] = theirs.frames, theirs.document.get("frames")
        mine.rewrite_index()
    result = mine.pack()
    return result if len(result) <= MOST_BYTES else one


def mutate_signature(data: bytes, rng: random.Random, mutate_bytes: Mutate | None = None) -> bytes:
    """Another input of the target ``signature``: an index or an extension that is changed."""
    change_bytes = mutate_bytes or _mutate_bytes
    index, separator, extension = data.partition(SEPARATOR)
    if rng.random() < 0.2:
        return change_bytes(index, rng) + separator + extension
    anatomy = Anatomy([], b"", {}, extension)
    _change_extension(anatomy, rng, change_bytes)
    return index + SEPARATOR + anatomy.extension


def _mutate_bytes(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        at = rng.randrange(len(changed) + 1)
        action = rng.randrange(4)
        if action == 0 and at < len(changed):
            changed[at] ^= 1 << rng.randrange(8)
        elif action == 1:
            del changed[at : at + rng.randrange(1, 65)]
        elif action == 2:
            changed[at:at] = rng.randbytes(rng.randrange(1, 17))
        else:
            start = rng.randrange(len(changed) + 1)
            changed[at:at] = changed[start : start + rng.randrange(1, 65)]
    return bytes(changed)


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every place of a document, as a container and the key of what it holds there."""
    found: list[tuple[Any, Any]] = []
    pending = [value]
    while pending:
        container = pending.pop()
        for key in list(container) if isinstance(container, dict) else range(len(container)):
            found.append((container, key))
            if isinstance(container[key], dict | list):
                pending.append(container[key])
    return found


def _change_document(anatomy: Anatomy, rng: random.Random, _change_bytes: Mutate) -> None:
    places = _places(anatomy.document)
    if not places:
        return
    container, key = rng.choice(places)
    action = rng.randrange(6)
    if action == 0:
        del container[key]
    elif action == 1:
        container[key] = copy.deepcopy(rng.choice(_VALUES))
    elif action == 2 and isinstance(container, list):
        container.insert(key, copy.deepcopy(container[key]))
    elif action == 3:
        other, other_key = rng.choice(places)
        container[key] = copy.deepcopy(other[other_key])
    else:
        container[key] = _neighbour(container[key], rng)
    anatomy.rewrite_index()


def _neighbour(value: Any, rng: random.Random) -> Any:
    """A value that is nearly this one."""
    if isinstance(value, bool) or not isinstance(value, str | int | list):
        return copy.deepcopy(rng.choice(_VALUES))
    if isinstance(value, int):
        return rng.choice((value + 1, value - 1, -value, value * 2, value + rng.randrange(1 << 20), value << 32))
    if isinstance(value, list):
        return rng.sample(value, len(value))
    at = rng.randrange(len(value) + 1)
    inserted = rng.choice(("/", "..", "/../", ".", " ", "\\", "\0", "A", ".py", "/x", ".b10-x", ".tmp", "\u2044"))
    return rng.choice((value[:at] + inserted + value[at:], value[:at], value[at:], value.swapcase(), value * 2))


def _change_text(anatomy: Anatomy, rng: random.Random, change_bytes: Mutate) -> None:
    if rng.random() < 0.1:
        nesting = rng.choice(("[", '{"a":'))
        anatomy.index = (nesting * rng.choice((10, 1000, 100_000))).encode()
    else:
        anatomy.index = change_bytes(anatomy.index, rng)


def _change_frame(anatomy: Anatomy, rng: random.Random, change_bytes: Mutate) -> None:
    """Other packed bytes, and an index that says so."""
    if not anatomy.frames:
        anatomy.frames.append(b"")
    at = rng.randrange(len(anatomy.frames))
    frame = anatomy.frames[at]
    skippable = _SKIPPABLE.pack(0x184D2A50 + rng.randrange(16), 4) + b"skip"
    anatomy.frames[at] = rng.choice(
        (
            lambda: change_bytes(frame, rng),
            lambda: skippable + frame,
            lambda: frame + skippable,
            lambda: skippable,
            lambda: _SKIPPABLE.pack(0x184D2A5B, rng.choice((0, 1 << 31, (1 << 32) - 1))) + frame,
            lambda: frame + frame,
            lambda: frame[: rng.randrange(len(frame) + 1)],
            lambda: rng.choice(_FRAMES) + rng.choice((b"", frame)),
            lambda: rng.choice(_ZEROS),
        )
    )()
    if isinstance(anatomy.document.get("frames"), list):
        anatomy.describe_frames()
        anatomy.rewrite_index()


def _change_framing(anatomy: Anatomy, rng: random.Random, _change_bytes: Mutate) -> None:
    """The same stream, or nearly, cut in other places."""
    stream = anatomy.stream()
    if stream is None:
        return
    if rng.random() < 0.3:
        stream = rng.choice((stream[:-1], stream + bytes(512), stream[::-1], bytes(1 << 20)))
    cuts = sorted(rng.randrange(len(stream) + 1) for _ in range(rng.randrange(6)))
    anatomy.reframe([stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)])
    anatomy.rewrite_index()


def _change_extension(anatomy: Anatomy, rng: random.Random, change_bytes: Mutate) -> None:
    try:
        document = json.loads(anatomy.extension or b'{"signatures":{}}')
        places = _places(document) if isinstance(document, dict | list) else []
    except (ValueError, RecursionError):
        places = []
    if places and rng.random() < 0.7:
        container, key = rng.choice(places)
        container[key] = rng.choice((_neighbour(container[key], rng), copy.deepcopy(rng.choice(_VALUES))))
        anatomy.extension = json.dumps(document).encode("utf-8", "replace")
    else:
        anatomy.extension = rng.choice((b"", b"[" * 20_000, change_bytes(anatomy.extension or b"{}", rng)))


def _change_footer(pack: bytes, rng: random.Random) -> bytes:
    """One field of the footer: sizes, formats, the digest, the magic."""
    start, length = rng.choice(((0, 8), (8, 8), (16, 4), (20, 4), (24, 32), (56, 8), (64, 8)))
    at = len(pack) - trailer.FOOTER_BYTES + start
    old = int.from_bytes(pack[at : at + length], "little")
    new = rng.choice((0, 1, old + 1, old - 1, old * 2, 64 << 20, (64 << 20) + 1, 1 << 31, (1 << (8 * length)) - 1))
    return pack[:at] + (new % (1 << (8 * length))).to_bytes(length, "little") + pack[at + length :]
