"""A writer of the store without a key, between the operations of honest pods that sign and trust one key.

``make hammer`` sets ``B10_HOSTILE_STEPS`` to 10,000.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from b10_transfer import OperationStatus, load, save
from b10_transfer.repository.signing import SigningKey
from tests.command import command
from tests.security.pods import make_victim, photograph

STEPS = int(os.environ.get("B10_HOSTILE_STEPS", "400"))
EACH = 20
DEADLINE_S = 20
MOST_MEMORY_BYTES = 400_000_000
KEY, OTHER = SigningKey.generate(), SigningKey.generate()
UNITS = st.integers(0, 5)
ANY = st.integers(0, 10_000)
PLACES = ("packs", "quarantine", "recalled", "leases", "")
BOGUS_IDS = ("000000000000-0000000000000000", "ffffffffffff-ffffffffffffffff", "01a228e00000-0000000000000001")
NAMES = (
    *(f"{pack_id}.tar.zst" for pack_id in BOGUS_IDS),
    *BOGUS_IDS,
    *(f"{pack_id}.pruned" for pack_id in BOGUS_IDS),
    *(f"{pack_id}.{'0' * 16}.{'0' * 128}" for pack_id in BOGUS_IDS),
    "slot-00.00000001",
    "compact.99999999",
    "compact.00000001",
    f"{0:032x}.tmp",
    "id_rsa",
    "a b",
    "-x",
    "x\n",
    "ü",
)


class HostileWriter(RuleBasedStateMachine):
    """``is_destructive`` says whether the attacker may also delete, change and move what is there."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="hostile-", dir="/tmp"))
        self.store = self.folder / "store"
        self.patch = pytest.MonkeyPatch()
        for name in [name for name in os.environ if name.startswith(("B10_", "AWS_", "TRITON_", "TORCHINDUCTOR_"))]:
            self.patch.delenv(name)
        for name, value in {
            "HOME": str(self.folder),
            "B10_STORE": str(self.store),
            "B10_CACHES": "triton",
            "B10_SIGNING_KEY": KEY.private_text(),
            "B10_TRUSTED_KEYS": KEY.public_text(),
            "B10_DEADLINE_SECONDS": str(DEADLINE_S),
            "B10_MAX_PACKS": "3",
            "B10_GRACE_SECONDS": "0",
            "LOCAL_WORK_DIR": "/tmp",
        }.items():
            self.patch.setenv(name, value)
        self.victim = make_victim(self.folder / "victim")
        self.photograph = photograph(self.victim)
        self.saved: dict[str, set[bytes]] = {}
        """Every content that an honest pod has published, by the path of the file."""
        self.acknowledged: set[str] = set()
        self.captured: list[tuple[str, bytes]] = []
        self.pods = 0
        self.is_destructive = False
        self.was_destructive = False

    @initialize(is_destructive=st.booleans())
    def begin(self, is_destructive: bool) -> None:
        self.is_destructive = is_destructive
        assert self.publish(self.new_pod({"FIRST": b"first"})) is OperationStatus.SUCCESS

    def teardown(self) -> None:
        self.patch.undo()
        shutil.rmtree(self.folder)

    # Honest pods

    @rule(units=st.sets(UNITS, min_size=1), content=st.integers(0, 2))
    def pod_saves(self, units: set[int], content: int) -> None:
        status = self.publish(self.new_pod({f"K{unit}": b"%d %d" % (unit, content) for unit in units}))
        assert status is not OperationStatus.ERROR or self.was_destructive

    @rule()
    def pod_loads(self) -> None:
        root = self.new_pod({})
        report = self.within_its_deadline(load)
        found = {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}
        assert all(content in self.saved.get(path, ()) for path, content in found.items()), "an untrusted byte"
        if not self.was_destructive:
            assert report.status is OperationStatus.SUCCESS, report.reason
            assert found.keys() >= self.acknowledged, "an acknowledged unit is lost"

    @rule(arguments=st.sampled_from([("prune", "--yes"), ("verify",), ("ls", "--packs"), ("explain",), ("info",)]))
    def operator_looks_and_cleans_up(self, arguments: tuple[str, ...]) -> None:
        self.within_its_deadline(lambda: self.call(*arguments))

    @rule(choice=ANY)
    def operator_recalls_and_reinstates(self, choice: int) -> None:
        packs = self.files("packs")
        if packs:
            pack_id = packs[choice % len(packs)].name.removesuffix(".tar.zst")
            for subcommand in ("recall", "reinstate"):
                self.within_its_deadline(partial(self.call, subcommand, pack_id))

    # The attacker

    @rule(place=st.sampled_from(PLACES), name=st.sampled_from(NAMES), kind=st.integers(0, 5), choice=ANY)
    def attacker_creates(self, place: str, name: str, kind: int, choice: int) -> None:
        path = self.environment() / place / name if choice % 5 else self.store / ".staging" / name
        if path.parent.is_dir() and not path.parent.is_symlink() and not os.path.lexists(path):
            self.make(path, kind, choice)

    @rule(choice=ANY, name=st.sampled_from(NAMES[:3]))
    def attacker_publishes_without_the_key(self, choice: int, name: str) -> None:
        """A sound pack of this environment, unsigned or signed by another key, or a signed one under another id."""
        content = self.forged(signed=bool(choice % 2)) if choice % 3 or not self.captured else self.captured[0][1]
        path = self.environment() / "packs" / name
        if path.parent.is_dir() and not os.path.lexists(path):
            path.write_bytes(content)

    @rule()
    def attacker_captures(self) -> None:
        self.captured = [(path.name, path.read_bytes()) for path in self.files("packs")][:5] or self.captured

    @rule(choice=ANY)
    def attacker_replays(self, choice: int) -> None:
        if self.captured:
            name, content = self.captured[choice % len(self.captured)]
            path = self.environment() / "packs" / name
            if path.parent.is_dir() and not os.path.lexists(path):
                path.write_bytes(content)

    @rule(choice=ANY)
    def attacker_moves_a_copy_between_namespaces(self, choice: int) -> None:
        if packs := self.files("packs"):
            other = self.store / "v1" / f"other{choice % 3}" / self.environment().name / "packs"
            other.mkdir(parents=True, exist_ok=True)
            shutil.copy(packs[choice % len(packs)], other)

    @precondition(lambda self: self.is_destructive)
    @rule(choice=ANY, how=st.integers(0, 4))
    def attacker_tampers(self, choice: int, how: int) -> None:
        files = [path for path in sorted(self.store.rglob("*")) if path.is_file() and not path.is_symlink()]
        if files:
            self.was_destructive = True
            path = files[choice % len(files)]
            changes: list[Callable[[], object]] = [
                path.unlink,
                lambda: os.truncate(path, choice % 100),
                lambda: os.truncate(path, 1 << 40),
                lambda: path.rename(files[(choice + 1) % len(files)]),
                lambda: os.utime(path, (choice, choice)),
            ]
            changes[how]()

    @precondition(lambda self: self.is_destructive)
    @rule(choice=ANY, is_link=st.booleans())
    def attacker_replaces_a_folder(self, choice: int, is_link: bool) -> None:
        folders = [path for path in sorted(self.store.rglob("*")) if path.is_dir() and not path.is_symlink()]
        if folders:
            self.was_destructive = True
            folder = folders[choice % len(folders)]
            shutil.rmtree(folder)
            if is_link:
                folder.symlink_to(self.victim)

    @precondition(lambda self: self.is_destructive)
    @rule(choice=ANY)
    def attacker_swaps_folders(self, choice: int) -> None:
        folders = [path for path in sorted(self.environment().glob("*")) if path.is_dir() and not path.is_symlink()]
        if len(folders) > 1:
            self.was_destructive = True
            one, other = folders[choice % len(folders)], folders[(choice + 1) % len(folders)]
            one.rename(self.folder / "swap")
            other.rename(one)
            (self.folder / "swap").rename(other)

    @precondition(lambda self: self.is_destructive)
    @rule(choice=ANY, ending=st.sampled_from(["", ".pruned"]))
    def attacker_marks(self, choice: int, ending: str) -> None:
        folder = self.environment() / "quarantine"
        if (packs := self.files("packs")) and not os.path.lexists(folder):
            folder.mkdir()
        if packs and folder.is_dir() and not folder.is_symlink():
            self.was_destructive = True
            path = folder / (packs[choice % len(packs)].name.removesuffix(".tar.zst") + ending)
            if not os.path.lexists(path):
                path.write_text("{}")

    @invariant()
    def nothing_outside_the_store_has_changed(self) -> None:
        assert photograph(self.victim) == self.photograph

    # How

    def new_pod(self, units: dict[str, bytes]) -> Path:
        """The cache of a new pod, with some units in it."""
        self.pods += 1
        root = self.folder / f"pod{self.pods}"
        root.mkdir()
        for unit, content in units.items():
            (root / unit).mkdir()
            (root / unit / "a.so").write_bytes(content)
        self.patch.setenv("TRITON_CACHE_DIR", str(root))
        return root

    def publish(self, root: Path) -> OperationStatus:
        files = {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}
        for path, content in files.items():
            self.saved.setdefault(path, set()).add(content)
        report = self.within_its_deadline(save)
        if report.status is not OperationStatus.ERROR:
            self.acknowledged |= files.keys()
        return OperationStatus(report.status)

    def within_its_deadline(self, operation: Callable[[], Any]) -> Any:
        before, started = resident_bytes(), time.monotonic()
        result = operation()
        assert time.monotonic() - started < DEADLINE_S + 5
        assert resident_bytes() - before < MOST_MEMORY_BYTES
        return result

    def call(self, *arguments: str) -> None:
        answer = command(*arguments)
        assert answer.exit_code in (0, 1, 3), (arguments, answer)

    def environment(self) -> Path:
        """The folder of the pods' environment."""
        found = [path for path in self.store.glob("v1/default/*") if len(path.name) == 32]
        return found[0] if found else self.store / "v1" / "default" / ("a" * 32)

    def files(self, folder: str) -> list[Path]:
        return [path for path in sorted(self.environment().glob(f"{folder}/*")) if path.is_file()]

    def forged(self, *, signed: bool) -> bytes:
        """A sound pack of other content under the names of honest units."""
        folder = self.folder / "forge"
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "cache" / "K0").mkdir(parents=True)
        (folder / "cache" / "K0" / "a.so").write_bytes(b"evil")
        with self.patch.context() as patch:
            patch.setenv("TRITON_CACHE_DIR", str(folder / "cache"))
            patch.delenv("B10_TRUSTED_KEYS")
            patch.setenv("B10_SIGNING_KEY", OTHER.private_text()) if signed else patch.delenv("B10_SIGNING_KEY")
            assert save(store=folder / "store").status is OperationStatus.SUCCESS
        [pack] = folder.glob("store/v1/*/*/packs/*")
        return pack.read_bytes()

    def make(self, path: Path, kind: int, choice: int) -> None:
        if kind == 0:
            os.mkfifo(path)
        elif kind == 1:
            path.symlink_to(self.victim / "id_rsa")
        elif kind == 2:
            path.write_bytes(b"")
            os.truncate(path, 1 << 40)
        else:
            path.write_bytes(b"" if kind == 3 else os.urandom(choice))
        if kind > 2:
            then = time.time() - 10 * 86400 if choice % 2 else time.time() + 10 * 86400
            os.utime(path, (then, then))


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


TestHostileWriter = HostileWriter.TestCase
TestHostileWriter.settings = settings(
    max_examples=max(STEPS // EACH, 1),
    stateful_step_count=EACH,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
if STEPS > 1000:
    TestHostileWriter = pytest.mark.timeout(3600)(TestHostileWriter)
