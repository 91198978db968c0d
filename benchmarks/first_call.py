"""The first call of a compiled model in a fresh process: cold, and after each program's restore.

A transformer and a convolutional network are compiled for this machine's CPU in one process, which is the cold start.
What that leaves is saved by every program, and each restores it for a fresh process with an empty cache directory. A
start that missed torch's caches, or whose output differs, has no figures. Takes some seven minutes.
"""

from __future__ import annotations

import getpass
import json
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs as a script

from benchmarks import session
from benchmarks.measure import OperationFailed, Program, extent
from benchmarks.programs import Absent, Commands, Contender, Package, contenders
from benchmarks.session import Session

REPLICA = Path(__file__).resolve().with_name("replica.py")
MODELS = ("transformer", "conv net")
MEGA = "mega-cache"
COLD = "cold"
OURS = "b10-transfer"
TOLERANCE = 1e-5
_MEGA_ROUNDS = 2
"""As slow as a cold start."""
PHASES = (
    "interpreter, exit",
    "imports",
    "restore",
    "tracing",
    "look-ups",
    "kernels loaded",
    "C++ compiled",
    "first run",
    "rest",
)
_NOTES = """\
The cold start compiles; the others find what it left. All run in one environment, the published package by having its
folder put before ours, and with torch's default layout: the cache is `torchinductor_<user>` in `TMPDIR`, precompiled
C++ headers within. “From exec to done” is a whole process: interpreter, imports, restore, building the model and its
first call; for `tar` and `cp`, the command that restores comes on top. The mega-cache is part of torch and holds no
compiled C++, so on a CPU every kernel is built again. How a warm start divides is measured in runs of its own, by
torch's own events and the interpreter's imports, each moment counted once."""


@dataclass
class Starts:
    """All starts of one model."""

    the: Session
    model: str
    folder: Path

    def __post_init__(self) -> None:
        self.values: dict[tuple[str, str], list[float]] = defaultdict(list)
        self.absent: dict[str, str] = {}
        self.programs: list[Contender] = []
        for program in contenders(self.the.peer, self.the.folder):
            if isinstance(program, Absent):
                self.absent[program.name] = program.why
            else:
                self.programs.append(program)
        self.mega = self.folder / "mega"
        self.output = self.folder / "output.pt"

    def cold(self, rounds: int) -> Path:
        """Compile in empty directories; the last one."""
        for number in range(rounds):
            root = self.root(f"cold{number}")
            told, wall = self.start(root, "--mega", str(self.mega))
            if sum(told["hits"]):
                raise OperationFailed(f"{self.model}: the cold start was not cold: {told['hits']} hits")
            self.note(COLD, "first call", told["first_call_seconds"])
            self.note(COLD, "process", wall)
            self.note(MEGA, "save", told["mega_save_seconds"])
            print(f"{self.model}, cold: {told['first_call_seconds']:.2f} s", file=sys.stderr)
        self.note(MEGA, "stored", self.mega.stat().st_size / 1e6)
        return root

    def save(self, tree: Path) -> None:
        """Have every program save what the cold start left."""
        for program in self.programs:
            store = self.store(program)
            series = f"{self.model} save {program.name}"
            try:
                program.save(self.the.bench, series, tree, store)
            except OperationFailed as failure:
                self.absent[program.name] = str(failure)
                continue
            self.note(program.name, "save", self.the.bench.series[series].seconds)
            self.note(program.name, "stored", extent(store).bytes / 1e6)

    def warm(self, number: int) -> None:
        """One start after each program's restore."""
        for program in self.programs:
            self._guarded(program.name, lambda program=program: self._after(program, number))  # type: ignore[misc]
        if number < _MEGA_ROUNDS:
            self._guarded(MEGA, partial(self._after_mega, number))

    def phases(self, number: int) -> None:
        """One start after our restore, divided into its activities."""
        package = self.programs[0]
        told, wall = self.start(
            self.root(f"phases{number}"), "--restore", "b10_transfer", "--phases", environ=self.environ(package)
        )
        self._check(told)
        named = {phase: float(told["phases"].get(phase, 0.0)) for phase in PHASES}
        named["interpreter, exit"] = wall - sum(told["phases"].values())
        for phase, seconds in named.items():
            self.note(OURS, f"phase {phase}", seconds)

    def _after(self, program: Contender, number: int) -> None:
        root = self.root(f"warm-{_plain(program.name)}-{number}")
        before = 0.0
        if isinstance(program, Commands):
            series = f"{self.model} load {program.name}"
            program.load(self.the.bench, series, self.store(program), root)
            before = self.the.bench.series[series].runs[-1].seconds
            told, wall = self.start(root)
        else:
            told, wall = self.start(root, "--restore", "b10_transfer", environ=self.environ(program))
        load_s = before or told["load_seconds"]
        self._note_warm(program.name, told, load_s, wall + before)

    def _after_mega(self, number: int) -> None:
        told, wall = self.start(self.root(f"warm-mega-{number}"), "--restore", MEGA, "--mega", str(self.mega))
        self._note_warm(MEGA, told, told["load_seconds"], wall)

    def _note_warm(self, name: str, told: dict[str, Any], load_s: float, wall: float) -> None:
        self._check(told)
        self.note(name, "first call", told["first_call_seconds"])
        self.note(name, "load", load_s)
        self.note(name, "process", wall)
        print(f"{self.model}, after {name}: {told['first_call_seconds']:.2f} s of {wall:.2f} s", file=sys.stderr)

    def start(self, root: Path, *arguments: str, environ: dict[str, str] | None = None) -> tuple[dict[str, Any], float]:
        """What a replica told, and the seconds from its exec to its end. Raises OperationFailed."""
        environ = {**(environ or self.the.bench.bare_environment), "TORCHINDUCTOR_CACHE_DIR": str(root)}
        environ |= {"TRITON_CACHE_DIR": str(root / "triton" / "0"), "TMPDIR": str(root.parent)}
        command = [sys.executable, str(REPLICA), self.model, "--output", str(self.output), *arguments]
        began = time.perf_counter()
        process = subprocess.run(command, env=environ, cwd=self.the.folder, capture_output=True, text=True)
        wall = time.perf_counter() - began
        if process.returncode:
            raise OperationFailed(f"{self.model}: a replica crashed: {process.stderr[-1500:]}")
        told: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
        return told, wall

    def environ(self, program: Contender) -> dict[str, str]:
        """Ours as it is installed; the published package's folder before it, in the same environment."""
        assert isinstance(program, Package)
        settings = self.the.bench.environment(program.program, self.store(program), self.folder)
        if program.name != OURS:
            shadow = self.folder / "published"
            if not shadow.exists():
                shadow.mkdir()
                (shadow / "b10_transfer").symlink_to(_package_folder(program.program))
            settings["PYTHONPATH"] = str(shadow)
        return settings

    def store(self, program: Contender) -> Path:
        return self.folder / f"store-{_plain(program.name)}"

    def root(self, name: str) -> Path:
        """Where a start has its cache: where torch has it by default, in a TMPDIR of its own."""
        tmp = self.folder / name
        tmp.mkdir()
        return tmp / f"torchinductor_{_plain(getpass.getuser(), '_')}"

    def note(self, name: str, measure: str, value: float) -> None:
        self.values[name, measure].append(value)

    def _guarded(self, name: str, act: Callable[[], None]) -> None:
        if name in self.absent:
            return
        try:
            act()
        except OperationFailed as failure:
            self.absent[name] = str(failure)

    def _check(self, told: dict[str, Any]) -> None:
        if told["status"] != "SUCCESS":
            raise OperationFailed(f"{self.model}: the load answered {told['status']}")
        if not all(told["hits"]) or any(told["misses"]):
            raise OperationFailed(f"{self.model}: hits {told['hits']}, misses {told['misses']} after the restore")
        if not told["difference"] <= TOLERANCE:
            raise OperationFailed(f"{self.model}: its output differs by {told['difference']:g} after the restore")

    def report(self) -> None:
        """Add the rows."""
        measures = {"first call": "s", "process": "s", "load": "s", "save": "s", "stored": "MB"}
        for name in (COLD, *(program.name for program in contenders(self.the.peer, self.the.folder)), MEGA):
            for measure, unit in measures.items():
                labels: dict[str, str | int | float] = {"model": self.model, "program": name, "measure": measure}
                title = f"{self.model}, {name}: {'from exec to done' if measure == 'process' else measure}"
                if why := self.absent.get(name):
                    self.the.results.cannot(title, unit, why=why, labels=labels)
                elif values := self.values[name, measure]:
                    self.the.results.add(title, unit, values, labels=labels)
        for phase in PHASES:
            labels = {"model": self.model, "program": OURS, "measure": "phase", "phase": phase}
            if values := self.values[OURS, f"phase {phase}"]:
                self.the.results.add(f"{self.model}, warm start: {phase}", "s", values, labels=labels)


def _plain(name: str, other: str = "-") -> str:
    return "".join(letter if letter.isalnum() else other for letter in name)


def _package_folder(program: Program) -> str:
    """Where a program's interpreter has its b10_transfer, found without importing it."""
    find = "import importlib.util as u; print(u.find_spec('b10_transfer').submodule_search_locations[0])"
    return subprocess.run([program.python, "-c", find], check=True, capture_output=True, text=True).stdout.strip()


def measure(the: Session) -> str:
    rounds = 1 if the.quick else 3
    for model in MODELS[: 1 if the.quick else None]:
        starts = Starts(the, model, the.bench.fresh())
        tree = starts.cold(1 if the.quick else 2)
        starts.save(tree)
        for number in range(rounds):
            starts.warm(number)
            starts.phases(number)
        starts.report()
    return _NOTES


if __name__ == "__main__":
    sys.exit(session.run("first_call", "The first call of a compiled model", __doc__, measure))
