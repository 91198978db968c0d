"""The inputs that fuzzing begins with: sound packs of every shape, and a few that are sound but unusual."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable

from b10_transfer.concurrency.deadline import Deadline
from b10_transfer.pack import Content, PackWriter, SourceFile, trailer

from . import targets
from .anatomy import Anatomy
from .mutator import SEPARATOR

_MTIME_NS = 1_700_000_000_123_456_789
_GROUP = b'{"child_paths": {"k.cubin": "k.cubin", "k.json": "k.json"}}'
_UNITS: list[dict[str, dict[str, bytes]]] = [
    {"inductor/ey/key.": {"py": b"def call(): ...", "so": b"\x7fELF" * 30, "empty": b""}},
    {"triton/KERNEL/": {"k.cubin": b"\x7fELF binary", "k.json": b"{}", "__grp__k.json": _GROUP}},
    {
        "inductor/fxgraph/ke/fkey/": {"graph": b"a graph" * 100, "other": b""},
        "inductor/aotautograd/akey/": {"entry": b"an entry" * 100},
        "inductor/ke/ckey.": {"main.cpp": b"int main() {}", "main.so": bytes(range(256))},
        "triton/ONE/": {"a.so": b"1" * 5000},
    },
    {"vllm/torch_compile_cache/0a1b2c3d4e/": {"rank_0_0/backbone/artifact": b"vllm"}},
]


def packs() -> list[bytes]:
    """Sound packs, unsigned and signed, in one frame and in several, and one that was merged."""
    found = []
    for units in _UNITS:
        sound = _write(units)
        found += [sound, _signed(sound), _reframed(sound)]
    return [*found, _write(_UNITS[2], origin="018bcfe56700-0123456789abcdef")]


def signatures() -> list[bytes]:
    """Inputs of the target ``signature``: a signed index, one without a signature, one signed by nobody."""
    found = []
    for pack in packs():
        anatomy = Anatomy.of(pack)
        assert anatomy is not None
        footer = trailer.decode_footer("", pack[-trailer.FOOTER_BYTES :], len(pack))
        start = len(pack) - footer.trailer_bytes + 8
        found.append(pack[start : start + footer.index_packed_bytes] + SEPARATOR + anatomy.extension)
    return found


def settings() -> list[bytes]:
    """Inputs of the target ``settings``: each variable with a few values."""
    values = ["", "0", "-1", "soon", "/tmp/x", "~/x", "~nobody/x", "file:///tmp/x", "s3://a/b", "file://[", "a,-b"]
    return [bytes([number]) + value.encode() for number in range(40) for value in values]


def _write(units: dict[str, dict[str, bytes]], origin: str = "") -> bytes:
    out = io.BytesIO()
    with PackWriter(out, targets.LIMITS, Deadline("seed", 60)) as writer:
        for prefix, files in units.items():
            sources = [
                SourceFile(prefix + name, len(data), 0o644, _MTIME_NS, _opened(data)) for name, data in files.items()
            ]
            writer.add_unit(prefix[:-1], "folder" if prefix.endswith("/") else "stem", sources, origin=origin)
        writer.finish(targets.NAMESPACE, targets.ENVIRONMENT)
    return out.getvalue()


def _opened(data: bytes) -> Callable[[SourceFile], Content]:
    return lambda _: io.BytesIO(data)


def _signed(pack: bytes) -> bytes:
    out = io.BytesIO(pack)
    targets.KEY.sign(out, targets.ID)
    anatomy = Anatomy.of(out.getvalue())
    assert anatomy is not None
    footer = trailer.decode_footer("", pack[-trailer.FOOTER_BYTES :], len(pack))
    start = len(pack) - footer.trailer_bytes + 8
    targets.signed_indexes.add(hashlib.sha256(pack[start : start + footer.index_packed_bytes]).hexdigest())
    return out.getvalue()


def _reframed(pack: bytes) -> bytes:
    anatomy = Anatomy.of(pack)
    assert anatomy is not None
    stream = anatomy.stream()
    assert stream is not None
    anatomy.reframe([stream[start : start + 700] for start in range(0, len(stream), 700)])
    anatomy.rewrite_index()
    return anatomy.pack()
