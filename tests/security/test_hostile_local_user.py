"""Another user of the machine, who creates, links, swaps and locks where everybody can: ``/tmp``.

A state machine interleaves that user's steps with a victim's compilations, saves and loads, also in the middle of them.
Nothing of his is published or restored over, no file outside the caches changes, and no operation fails in a way that
is not foreseen.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from b10_transfer import OperationStatus, load, save
from b10_transfer.errors import CacheError
from b10_transfer.local import files, placing, restore, staging
from b10_transfer.local.ownership import User, is_private
from b10_transfer.local.rights import rights_of
from b10_transfer.notices import notices
from tests.security.pods import scratch

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
ATTACKER = User(54321, 54321)
EVIL, GOOD = b"EVIL" * 10, b"GOOD" * 10
KEY, OTHER_KEY = "A" * 52, "B" * 52
INDUCTOR, TRITON = "torchinductor_victim", "victim/cache"
"""Caches in the folder that every user can write to, as ``<tmp>/torchinductor_<user>`` and ``<tmp>/<user>/…`` are."""
GRAPH = "fxgraph/ab/fab" + "a" * 49
ARTIFACTS = [
    f"{TRITON}/{KEY}/launcher.so",
    f"{TRITON}/{KEY}/evil.so",
    f"aside/{KEY}/launcher.so",
    f"aside/cache/{KEY}/launcher.so",
    f"{INDUCTOR}/ab/cabevil.py",
    f"{INDUCTOR}/{GRAPH}/graph",
    f".{INDUCTOR}.b10-staging-00/ab/cabevil.py",
]
CACHES = ["victim", TRITON, INDUCTOR]
LOCKS = [f".{INDUCTOR}.b10-lock", f"{INDUCTOR}/.b10-lock", "victim/.cache.b10-lock", f"{TRITON}/.b10-lock"]
PLACES = [*CACHES, *LOCKS, "aside", "aside/cache", f"{TRITON}/{KEY}", f"{INDUCTOR}/ab"]
Attack = tuple[str, str, str]
attacks: st.SearchStrategy[Attack] = st.one_of(
    st.tuples(st.just("file"), st.sampled_from(ARTIFACTS), st.just("")),
    st.tuples(st.just("exchange"), st.sampled_from(CACHES), st.sampled_from(["aside", "aside/cache"])),
    st.tuples(st.just("lock"), st.sampled_from(LOCKS), st.just("")),
    st.tuples(
        st.sampled_from(["link", "link", "folder", "hard link", "rename", "open up", "pipe", "remove"]),
        st.sampled_from([*PLACES, *ARTIFACTS]),
        st.sampled_from([*PLACES, "SECRET", "PRIVATE"]),
    ),
)


class HostileLocalUser(RuleBasedStateMachine):
    """One attacker and one victim, with a store that only the victim uses."""

    def __init__(self) -> None:
        super().__init__()
        self.base = Path(tempfile.mkdtemp(dir=scratch()))
        self.base.chmod(0o755)
        self.shared = self.base / "shared"
        self.shared.mkdir()
        self.shared.chmod(0o1777)
        self.secret, self.private = self.base / "secret", self.base / "private"
        for folder in (self.secret, self.private, self.base / "home", self.base / "work", self.base / "fresh"):
            folder.mkdir()
        self.secret.chmod(0o700)
        (self.secret / "token").write_bytes(b"SECRET")
        self.held: list[int] = []
        self.waited_for: list[object] = []
        self.pending: list[Attack] = []
        self.patch = pytest.MonkeyPatch()
        self.point_at(self.shared, INDUCTOR, TRITON)
        for name, value in {
            "HOME": self.base / "home",
            "LOCAL_WORK_DIR": self.base / "work",
            "B10_STORE": self.base / "store",
            "B10_CACHES": "inductor,triton",
            "B10_DEADLINE_SECONDS": "2",
        }.items():
            self.patch.setenv(name, str(value))
        self.patch.delenv("B10_SHARED_ROOTS", raising=False)
        # Where an operation has looked at something and is about to use it.
        for owner, name in (
            (files.RootScan, "_entered"),
            (placing, "_place_unit"),
            (placing, "_become_root"),
            (restore, "place"),
            (restore, "stage"),
        ):
            self.patch.setattr(owner, name, self.interrupted(getattr(owner, name)))
        self.patch.setattr(staging.logger, "warning", lambda *arguments: self.waited_for.append(arguments))
        notices.forget()

    def point_at(self, folder: Path, inductor: str, triton: str) -> None:
        self.patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(folder / inductor))
        self.patch.setenv("TRITON_CACHE_DIR", str(folder / triton))

    def interrupted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def attacked(*arguments: Any) -> Any:
            while self.pending:
                self.attack(self.pending.pop())
            return function(*arguments)

        return attacked

    # The attacker

    def attack(self, step: Attack) -> None:
        what, at, to = step
        place = self.shared / at
        target = {"SECRET": self.secret, "PRIVATE": self.private}.get(to, self.shared / to)
        with rights_of(ATTACKER), suppress(OSError):
            if not place.parent.is_dir():
                place.parent.mkdir(parents=True)
            self.steps(what, place, target)

    def steps(self, what: str, place: Path, target: Path) -> None:
        if what == "folder":
            place.mkdir()
        elif what == "file":
            descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK | os.O_NOFOLLOW, 0o666)
            os.write(descriptor, EVIL)
            os.close(descriptor)
        elif what == "link":
            place.symlink_to(target)
        elif what == "hard link":
            os.link(target, place, follow_symlinks=False)
        elif what == "rename":
            place.rename(target)
        elif what == "exchange":
            aside = self.shared / "exchanged"
            place.rename(aside)
            target.rename(place)
            aside.rename(target)
        elif what == "open up":
            place.chmod(0o777)
        elif what == "pipe":
            os.mkfifo(place)
        elif what == "remove":
            shutil.rmtree(place) if place.is_dir() and not place.is_symlink() else place.unlink()
        else:
            descriptor = os.open(place, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.held.append(descriptor)

    @rule(step=attacks)
    def attack_between(self, step: Attack) -> None:
        self.attack(step)

    @rule(steps=st.lists(attacks, min_size=1, max_size=4))
    def attack_during_the_next_operation(self, steps: list[Attack]) -> None:
        self.pending = steps

    # The victim

    @rule(key=st.sampled_from([KEY, OTHER_KEY]), is_careless=st.booleans())
    def compile(self, key: str, is_careless: bool) -> None:
        """Write artifacts where the victim's caches are its own; a careless compiler lets every user write beside."""
        for path in (self.shared / TRITON / key / "launcher.so", self.shared / INDUCTOR / GRAPH / "entry"):
            with suppress(OSError):
                if is_private(path.parent):
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.unlink(missing_ok=True)
                    path.write_bytes(GOOD)
                    path.parent.chmod(0o777 if is_careless else 0o755)

    @rule(path=st.sampled_from(ARTIFACTS))
    def compile_where_the_attacker_may_write(self, path: str) -> None:
        self.compile(KEY, is_careless=True)
        self.attack(("file", path, ""))

    @rule(path=st.sampled_from(ARTIFACTS))
    def be_preceded_by_the_attacker(self, path: str) -> None:
        self.lose_caches()
        self.attack(("file", path, ""))
        self.save()

    @rule()
    def lose_caches(self) -> None:
        for cache in (INDUCTOR, "victim"):
            shutil.rmtree(self.shared / cache, ignore_errors=True)

    @rule()
    def save(self) -> None:
        report = save()
        assert report.error is None or isinstance(report.error, CacheError), report
        assert not self.waited_for
        if report.status is OperationStatus.SUCCESS:
            self.check_store()

    @rule(merge=st.booleans())
    def load(self, merge: bool) -> None:
        report = load(merge=merge)
        assert report.error is None or isinstance(report.error, CacheError), report
        assert not self.waited_for

    def check_store(self) -> None:
        """A fresh pod gets nothing of the attacker's."""
        pending, self.pending = self.pending, []
        fresh = Path(tempfile.mkdtemp(dir=self.base / "fresh"))
        self.point_at(fresh, "inductor", "triton")
        self.patch.setenv("HOME", str(fresh))
        assert load().status is OperationStatus.SUCCESS
        restored = [path for path in fresh.rglob("*") if path.is_file() and not path.name.endswith(".b10-lock")]
        assert restored
        assert all(path.read_bytes() == GOOD for path in restored), restored
        self.point_at(self.shared, INDUCTOR, TRITON)
        self.patch.setenv("HOME", str(self.base / "home"))
        self.pending = pending

    @invariant()
    def nothing_outside_the_caches_changes(self) -> None:
        assert [path.name for path in self.secret.iterdir()] == ["token"]
        assert (self.secret / "token").read_bytes() == b"SECRET"
        assert not list(self.private.iterdir())

    @invariant()
    def victims_files_hold_nothing_of_the_attackers(self) -> None:
        for path in self.shared.rglob("*"):
            with suppress(FileNotFoundError):
                status = path.lstat()
                if stat.S_ISREG(status.st_mode) and status.st_uid == 0:
                    assert EVIL not in path.read_bytes(), path

    @precondition(lambda self: self.held)
    @rule()
    def unlock(self) -> None:
        os.close(self.held.pop())

    def teardown(self) -> None:
        self.patch.undo()
        for descriptor in self.held:
            os.close(descriptor)
        shutil.rmtree(self.base, ignore_errors=True)


HostileLocalUser.TestCase.settings = settings(max_examples=30, stateful_step_count=25)
test_hostile_local_user = HostileLocalUser.TestCase
