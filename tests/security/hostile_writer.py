"""A writer of the store without a key, between the operations of honest pods that sign and trust one key.

The state machine knows a store as objects by name. What only a directory has is in ``test_hostile_writer.py``.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
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
from tests.security.pods import make_victim, photograph, scratch

EACH = 20
DEADLINE_S = 20
MOST_MEMORY_BYTES = 400_000_000
KEY, OTHER = SigningKey.generate(), SigningKey.generate()
UNITS = st.integers(0, 5)
ANY = st.integers(0, 10_000)
PLACES = ("packs", "quarantine", "recalled", "used", "leases", "")
BOGUS_IDS = ("000000000000-0000000000000000", "ffffffffffff-ffffffffffffffff", "01a228e00000-0000000000000001")
NAMES = (
    *(f"{pack_id}.tar.zst" for pack_id in BOGUS_IDS),
    *BOGUS_IDS,
    *(f"{pack_id}.pruned" for pack_id in BOGUS_IDS),
    *(f"{pack_id}.suspect" for pack_id in BOGUS_IDS),
    *(f"{pack_id}.{'0' * 16}.{'0' * 128}" for pack_id in BOGUS_IDS),
    "slot-00.00000001",
    "compact.99999999",
    "compact.00000001",
    f"{0:032x}.tmp",
    "environment.json",
    "20200101",
    "99999999",
    "id_rsa",
    "a b",
    "-x",
    "x\n",
    "ü",
)
MOST_COPIED_BYTES = 1 << 20
"""Some files are sparse, and very large."""


class HostileWriter(RuleBasedStateMachine):
    """``is_destructive`` says whether the attacker may also delete, change and move what is there."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(dir=scratch()))
        self.patch = pytest.MonkeyPatch()
        for name in [name for name in os.environ if name.startswith(("B10_", "AWS_", "TRITON_", "TORCHINDUCTOR_"))]:
            self.patch.delenv(name)
        for name, value in {
            "HOME": str(self.folder),
            "B10_STORE": self.make_store(),
            "B10_CACHES": "triton",
            "B10_SIGNING_KEY": KEY.private_text(),
            "B10_TRUSTED_KEYS": KEY.public_text(),
            "B10_DEADLINE_SECONDS": str(DEADLINE_S),
            "B10_MAX_PACKS": "3",
            "B10_GRACE_SECONDS": "0",
            "LOCAL_WORK_DIR": "/tmp",
            **self.variables(),
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

    # The store

    def make_store(self) -> str:
        """Make an empty store; its address."""
        raise NotImplementedError

    def variables(self) -> Mapping[str, str]:
        """What pods need besides, to reach the store."""
        return {}

    def names(self) -> list[str]:
        """The names of all objects."""
        raise NotImplementedError

    def read(self, name: str) -> bytes | None:
        """The content of an object; None if it is too large to be copied."""
        raise NotImplementedError

    def put(self, name: str, content: bytes) -> None:
        """Create an object, or write it anew."""
        raise NotImplementedError

    def delete(self, name: str) -> None:
        """Delete an object."""
        raise NotImplementedError

    def environment(self) -> str:
        """The folder of the pods' environment, below the store."""
        found = (name.split("/")[:3] for name in self.names() if name.startswith("v1/default/"))
        return "/".join(next((parts for parts in found if len(parts[2]) == 32), ["v1", "default", "a" * 32]))

    def packs(self) -> list[str]:
        """The names of the environment's packs, and of what else lies there."""
        folder = f"{self.environment()}/packs/"
        return [name for name in self.names() if name.startswith(folder)]

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
        if packs := self.packs():
            pack_id = packs[choice % len(packs)].rpartition("/")[2].removesuffix(".tar.zst")
            for subcommand in ("recall", "reinstate"):
                self.within_its_deadline(partial(self.call, subcommand, pack_id))

    # The attacker

    @rule(place=st.sampled_from(PLACES), name=st.sampled_from(NAMES), choice=ANY)
    def attacker_creates(self, place: str, name: str, choice: int) -> None:
        path = "/".join(filter(None, (self.environment(), place, name))) if choice % 5 else f".staging/{name}"
        if path not in self.names():
            self.put(path, random.Random(choice).randbytes(choice) if choice % 3 else b"")

    @rule(choice=ANY, name=st.sampled_from(NAMES[:3]))
    def attacker_publishes_without_the_key(self, choice: int, name: str) -> None:
        """A sound pack of this environment, unsigned or signed by another key, or a signed one under another id."""
        content = self.forged(signed=bool(choice % 2)) if choice % 3 or not self.captured else self.captured[0][1]
        self.put_if_absent(f"{self.environment()}/packs/{name}", content)

    @rule()
    def attacker_captures(self) -> None:
        found = [(name, content) for name in self.packs()[:5] if (content := self.read(name)) is not None]
        self.captured = found or self.captured

    @rule(choice=ANY)
    def attacker_replays(self, choice: int) -> None:
        if self.captured:
            self.put_if_absent(*self.captured[choice % len(self.captured)])

    @rule(choice=ANY)
    def attacker_moves_a_copy_between_namespaces(self, choice: int) -> None:
        if packs := self.packs():
            name = packs[choice % len(packs)]
            content = self.read(name)
            if content is not None:
                self.put_if_absent(name.replace("v1/default/", f"v1/other{choice % 3}/"), content)

    @precondition(lambda self: self.is_destructive)
    @rule(choice=ANY, how=st.integers(0, 3))
    def attacker_tampers(self, choice: int, how: int) -> None:
        if names := self.names():
            self.was_destructive = True
            name, other = (names[(choice + more) % len(names)] for more in (0, 1))
            content = self.read(name)
            if how == 0 or content is None:
                self.delete(name)
            elif how == 1:
                self.put(name, content[: choice % 100])
            elif how == 2 and (swapped := self.read(other)) is not None:
                self.put(name, swapped)
                self.put(other, content)
            else:
                self.put(name, content[:-1] + bytes([content[-1] ^ 1]) if content else b"x")

    @precondition(lambda self: self.is_destructive)
    @rule(choice=ANY, ending=st.sampled_from(["", ".pruned", ".suspect"]))
    def attacker_marks(self, choice: int, ending: str) -> None:
        if packs := self.packs():
            self.was_destructive = True
            pack_id = packs[choice % len(packs)].rpartition("/")[2].removesuffix(".tar.zst")
            self.put_if_absent(f"{self.environment()}/quarantine/{pack_id}{ending}", b"{}")

    @invariant()
    def nothing_outside_the_store_has_changed(self) -> None:
        assert photograph(self.victim) == self.photograph

    # How

    def put_if_absent(self, name: str, content: bytes) -> None:
        if name not in self.names():
            self.put(name, content)

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
        Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
        before, started = peak_bytes(), time.monotonic()
        result = operation()
        assert time.monotonic() - started < DEADLINE_S + 5
        assert peak_bytes() - before < MOST_MEMORY_BYTES
        return result

    def call(self, *arguments: str) -> None:
        answer = command(*arguments)
        assert answer.exit_code in (0, 1, 3), (arguments, answer)

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


def peak_bytes() -> int:
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


def steps(count: int) -> settings:
    """Settings under which a machine takes about so many steps."""
    return settings(
        max_examples=max(count // EACH, 1),
        stateful_step_count=EACH,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
