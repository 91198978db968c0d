"""The target ``commands``: a directory with any content, and every command that looks at a store or changes one."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from zstandard import ZstdCompressor

from b10_transfer.pack import trailer
from tests.command import command

ID = "018bcfe56800-0123456789abcdef"
_ENVIRONMENT = "ENVIRONMENT"
"""In :data:`PLACES`, the id of this pod's environment."""
PLACES = (
    f"v1/default/{_ENVIRONMENT}/packs",
    f"v1/default/{'a' * 32}/packs",
    f"v1/default/{_ENVIRONMENT}/quarantine",
    f"v1/default/{_ENVIRONMENT}/recalled",
    f"v1/default/{_ENVIRONMENT}/used",
    f"v1/default/{_ENVIRONMENT}/leases",
    f"v1/default/{_ENVIRONMENT}",
    f"v1/default/{'a' * 32}",
    f"v1/other/{'b' * 32}/packs",
    f"v1/other/{'b' * 32}",
    "v1/default",
    "v1/.leases",
    "v1",
    ".staging",
    "",
)
NAMES = (
    f"{ID}.tar.zst",
    "ffffffffffff-ffffffffffffffff.tar.zst",
    "000000000000-0000000000000000.tar.zst",
    ID,
    f"{ID}.pruned",
    f"{ID}.{'0' * 16}.{'0' * 128}",
    "environment.json",
    "20200101",
    "slot-00.00000001",
    "compact.99999999",
    f"{0:032x}.tmp",
    f"{0:032x}.now",
    "v1,x.claim",
    "packs",
    "v1",
    "default",
    "id_rsa",
)
_FILE, _FOLDER, _LINK, _FIFO, _HOLE, _OLD, _FUTURE = range(7)
COMMANDS: tuple[tuple[str, ...], ...] = (
    ("ls", "--packs"),
    ("ls", "--json"),
    ("verify",),
    ("info",),
    ("explain",),
    ("load",),
    ("export", "OUT"),
    ("prune", "--older-than", "1d", "--keep", "1", "--yes"),
    ("recall", "--since", "2020-01-01"),
    ("reinstate", ID),
    ("save",),
    ("clear", "--store", "--all-environments", "--yes"),
)


def commands(data: bytes) -> None:
    """Every command ends with one of its exit codes, whatever a store holds; ``command`` raises what one raises."""
    with _pod() as folder:
        build(data, folder / "store")
        for arguments in COMMANDS:
            answer = command(*(str(folder / "out.tar") if word == "OUT" else word for word in arguments))
            assert answer.exit_code in (0, 1, 3), (arguments, answer)
            assert "\x1b" not in answer.stdout + answer.stderr, (arguments, answer)


def entry(place: int, name: int, kind: int, content: bytes) -> bytes:
    """One entry of an input: where, how it is called, what it is, and what it holds."""
    return bytes((place, name, kind)) + len(content).to_bytes(2, "big") + content


def build(data: bytes, store: Path) -> None:
    """Make the directory that an input describes."""
    environment = _environment_id()
    while len(data) >= 5:
        place, name, kind = data[:3]
        size = int.from_bytes(data[3:5], "big")
        content, data = data[5 : 5 + size], data[5 + size :]
        where = PLACES[place % len(PLACES)].replace(_ENVIRONMENT, environment)
        path = store / where / NAMES[name % len(NAMES)]
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _make(path, kind % 7, content)
        except OSError:  # something else is there
            continue


def inputs() -> list[bytes]:
    """Stores of each kind of content."""
    from . import seeds  # imports this module's importers

    hostile = [
        b"",
        b"null",
        b'{"parts": {"\\ud800": "x"}}',
        b'{"id": 1, "parts": [' + b"[" * 2000,
        b'{"parts": {"torch": "\\u001b]0;pwned\\u0007\\nFAKE"}}',
        b"\xff\xfe" * 100,
        hostile_pack({"\ud800": "x"}),
        hostile_pack({"torch": "\x1b]0;pwned\x07\nFAKE", "device": "\u202e" * 100}),
        hostile_pack({"torch": "9" * 5000}),
        *(data for data in seeds.packs()[:6] if len(data) < 60_000),
    ]
    places = ((0, 0), (1, 0), (1, 1), (2, 3), (3, 3), (5, 6), (6, 6), (7, 2))
    contents = [b"".join(entry(*place, _FILE, content) for place in places) for content in hostile]
    kinds = [b"".join(entry(place, name, kind, b"x") for place, name in places) for kind in range(7)]
    folders = [b"".join(entry(place, name, kind, b"/") for place, name in _FOLDERS) for kind in (_FILE, _LINK, _FIFO)]
    return [*contents, *kinds, *folders]


_FOLDERS = ((5, 12), (9, 12), (12, 12), (13, 13), (11, 14))


def hostile_pack(parts: dict[str, str]) -> bytes:
    """A pack that is sound but for its parts, in the folder of an environment that has no description."""
    index = {
        "format": 1,
        "namespace": "default",
        "environment": {"id": "a" * 32, "parts": parts, "recorded": {}},
        "roots": ["inductor"],
        "units": [
            {
                "name": "inductor/zz/q",
                "kind": "stem",
                "members": [["inductor/zz/q.py", 0, 420, 0, 0, hashlib.sha256(b"").hexdigest()]],
            }
        ],
    }
    frame = ZstdCompressor().compress(bytes(10240))
    index["frames"] = [[len(frame), 10240, hashlib.sha256(frame).hexdigest()]]
    return frame + trailer.encode(json.dumps(index).encode(), len(frame))


def _make(path: Path, kind: int, content: bytes) -> None:
    if kind == _FOLDER:
        path.mkdir()
    elif kind == _LINK:
        path.symlink_to("/" if not content else os.fsdecode(content.replace(b"\0", b"")) or "/")
    elif kind == _FIFO:
        os.mkfifo(path)
    else:
        path.write_bytes(content)
    if kind == _HOLE:
        os.truncate(path, 1 << 40)
    elif kind == _OLD:
        os.utime(path, (-(2.0**33), -(2.0**33)))
    elif kind == _FUTURE:
        os.utime(path, (2.0**40, 2.0**40))


def _environment_id() -> str:
    from b10_transfer.environment import detect

    return detect().id


@contextmanager
def _pod() -> Iterator[Path]:
    """A folder of its own for a pod: its home, its caches, a store."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
    before = dict(os.environ)
    level = logging.root.manager.disable
    logging.disable()
    try:
        for name in [name for name in os.environ if name.startswith(("B10", "TORCH", "TRITON", "VLLM", "AWS"))]:
            del os.environ[name]
        (folder / "triton" / "KEY").mkdir(parents=True)
        (folder / "triton" / "KEY" / "a.so").write_bytes(b"code")
        os.environ |= {
            "HOME": str(folder),
            "B10_STORE": str(folder / "store"),
            "B10_CACHES": "triton",
            "TRITON_CACHE_DIR": str(folder / "triton"),
            "B10_DEADLINE_SECONDS": "10",
        }
        yield folder
    finally:
        logging.disable(level)
        os.environ.clear()
        os.environ |= before
        shutil.rmtree(folder)
