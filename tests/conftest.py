"""What several tests share.

``isolated_env`` keeps a test away from this machine's real caches and store; ``fill`` and ``read_tree`` write and read
whole trees of files; ``packs`` builds small packs and reads them back. The last three depend on no test and hold no
state, so that Hypothesis may use them for many examples.
"""

from __future__ import annotations

import io
import os
import signal
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from b10_transfer import config
from b10_transfer.adapters import ADAPTERS
from b10_transfer.concurrency.deadline import Deadline
from b10_transfer.config import store as store_location
from b10_transfer.environment import Environment
from b10_transfer.notices import notices
from b10_transfer.pack import Index, Limits, Member, PackReader, PackWriter, SourceFile
from b10_transfer.pack.trailer import FOOTER_BYTES, decode_footer, decode_index, encode
from b10_transfer.repository.repository import Repository
from b10_transfer.stores.base import Store
from b10_transfer.testing.memory import MemoryStore

# The same examples every time, so that a test run means the same everywhere; `--hypothesis-profile=explore` looks
# for new ones. No test is timed.
settings.register_profile(
    "project", max_examples=50, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("explore", max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("project")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--store-on",
        action="append",
        default=[],
        metavar="FOLDER",
        help="have tests keep directory stores below this folder, a mount say; given twice, they run on both",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    folders = metafunc.config.getoption("--store-on")
    if folders and "store_place" in metafunc.fixturenames:
        metafunc.parametrize("store_place", folders, indirect=True, ids=os.path.basename)


Files = Mapping[str, bytes]
FillTree = Callable[[Path, Files], None]
ReadTree = Callable[[Path], dict[str, bytes]]


@pytest.fixture
def store_place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """An empty folder for a test's directory stores: where ``--store-on`` says, or with everything else of the test."""
    if not hasattr(request, "param"):
        yield tmp_path
        return
    # On NFS a file that a process which was left behind has open keeps its folder from being removed.
    with tempfile.TemporaryDirectory(dir=request.param, prefix="test-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def pytest_configure() -> None:
    """Have signals mean what they mean on a terminal, also where the tests run in the background or under nohup."""
    for number in (signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


@dataclass(frozen=True)
class IsolatedEnv:
    """Where a test's home, store, work directory and caches are. Only ``home`` and ``work`` exist at first."""

    home: Path
    store: Path
    work: Path
    inductor: Path
    triton: Path

    def fill(self, root: Path, files: Files) -> None:
        """Write files, by their paths below ``root``."""
        fill_tree(root, files)


@pytest.fixture
def isolated_env(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, store_place: Path) -> IsolatedEnv:
    """Every variable that this package reads, pointed below ``tmp_path`` and ``store_place`` or unset."""
    for variable in [*config.VARIABLES, *(variable for adapter in ADAPTERS for variable in adapter.variables)]:
        monkeypatch.delenv(variable.name, raising=False)
    for name in ("MAX_CACHE_SIZE_CAP_MB", "MAX_CONCURRENT_SAVES_CAP", "LOCK_TIMEOUT_CAP_SECONDS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("INCOMPLETE_TIMEOUT_CAP_SECONDS", raising=False)
    monkeypatch.delenv("TRITON_HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    tmp_path = tmp_path.resolve()
    home = tmp_path / "home"
    # Below ~/.cache, which is allowed wherever TMPDIR points.
    isolated = IsolatedEnv(
        home=home,
        store=store_place.resolve() / "store",
        work=tmp_path / "work" if Path("/tmp").resolve() in tmp_path.parents else Path("/tmp"),
        inductor=home / ".cache" / "inductor",
        triton=home / ".triton" / "cache",
    )
    isolated.home.mkdir()
    isolated.work.mkdir(exist_ok=True)
    monkeypatch.setenv("HOME", str(isolated.home))
    # Inductor keeps some things below its default directory, which follows this.
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setattr(tempfile, "tempdir", None)
    # This machine may have a shared volume where one is expected.
    monkeypatch.setattr(store_location, "MOUNT", tmp_path / "no" / "mount")
    monkeypatch.setenv("B10_STORE", str(isolated.store))
    monkeypatch.setenv("LOCAL_WORK_DIR", str(isolated.work))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(isolated.inductor))
    monkeypatch.setenv("TRITON_CACHE_DIR", str(isolated.triton))
    return isolated


@pytest.fixture(autouse=True)
def every_notice_is_new() -> Iterator[None]:
    """A message that is logged once in a process is logged once in each test."""
    notices.forget()
    yield


def fill_tree(root: Path, files: Files) -> None:
    """Write files, by their paths below ``root``; folders are made as needed."""
    for path, data in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)


def read_tree_of(root: Path) -> dict[str, bytes]:
    """The regular files below ``root``, by their paths; empty if there is no ``root``."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if stat.S_ISREG(path.lstat().st_mode)
    }


@pytest.fixture(scope="session")
def fill() -> FillTree:
    """``fill(root, {path: content})`` writes files."""
    return fill_tree


@pytest.fixture(scope="session")
def read_tree() -> ReadTree:
    """``read_tree(root)`` is ``{path: content}`` of the regular files below a folder."""
    return read_tree_of


@pytest.fixture
def deadline() -> Deadline:
    """A deadline that no sound test reaches."""
    return Deadline("test", 60)


class Packs:
    """Builds packs, and reads them as a repository does."""

    environment = Environment({"torch": "2.13.0+cpu", "machine": "x86_64"}, {"hostname": "here"})
    namespace = "default"
    limits = Limits.for_packs_of(64 * 1024 * 1024)

    def write(self, units: Mapping[str, Files], mode: int = 0o644, mtime_ns: int = 1_700_000_000_123_456_789) -> bytes:
        """A pack of units: ``{"triton/KEY/": {"a.cubin": b"…"}}`` is a folder, ``{"inductor/ey/key.": {"py": b"…"}}``
        a stem. A unit's key and a file's key together are the file's path."""
        kinds = {"/": "folder", ".": "stem"}
        return self.write_units(
            {
                (prefix[:-1], kinds[prefix[-1]]): {prefix + suffix: data for suffix, data in files.items()}
                for prefix, files in units.items()
            },
            mode,
            mtime_ns,
        )

    def write_units(
        self, units: Mapping[tuple[str, str], Files], mode: int = 0o644, mtime_ns: int = 1_700_000_000_123_456_789
    ) -> bytes:
        """A pack of units, by name and kind, with files by their paths in packs."""
        out = io.BytesIO()
        with PackWriter(out, self.limits, Deadline("write", 60)) as writer:
            for (name, kind), files in units.items():
                sources = [_source(path, data, mode, mtime_ns) for path, data in files.items()]
                writer.add_unit(name, kind, sources)
            writer.finish(self.namespace, self.environment)
        return out.getvalue()

    def repository(self, store: Store | None = None) -> Repository:
        """A repository of this environment in a store, by default a new one in memory."""
        return Repository(store or MemoryStore(), self.namespace, self.environment, self.limits, Deadline("read", 60))

    def index_of(self, pack: bytes) -> bytes:
        """The index of a sound pack, as JSON."""
        footer = decode_footer("sound", pack[-FOOTER_BYTES:], len(pack))
        return bytes(decode_index("sound", footer, pack[-footer.trailer_bytes :]))

    def with_index(self, pack: bytes, index: bytes) -> bytes:
        """A pack with the frames of ``pack`` and another index, whose digest is right."""
        footer = decode_footer("sound", pack[-FOOTER_BYTES:], len(pack))
        frames = pack[: -footer.trailer_bytes]
        return frames + encode(index, len(frames))

    def read(self, repository: Repository) -> dict[str, bytes]:
        """All files of a repository's union, by their paths in packs. Raises PackError for a pack that turns out to be
        damaged only now; one that is visibly damaged is ignored."""
        found: dict[str, bytes] = {}
        union = repository.union()
        for pack, unit in union.units.values():
            with repository.opened(pack) as reader:
                found |= self.contents(reader, pack.index, unit.members)
        return found

    def contents(self, reader: PackReader, index: Index, members: Iterable[Member]) -> dict[str, bytes]:
        """The content of some members, put together from their pieces."""
        found: dict[str, bytes] = {}
        for piece in reader.read_members(index, members):
            found[piece.member.path] = found.get(piece.member.path, b"") + bytes(piece.data)
        return found


def _source(path: str, data: bytes, mode: int, mtime_ns: int) -> SourceFile:
    return SourceFile(path, len(data), mode, mtime_ns, lambda _: io.BytesIO(data))


@pytest.fixture(scope="session")
def packs() -> Packs:
    """Small packs: see :class:`Packs`."""
    return Packs()
