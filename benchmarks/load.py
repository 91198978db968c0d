"""Save and load of the same trees by every program: seconds, bytes in the store, memory, and how they grow.

The trees are 30, 300 and 3,000 real Triton kernels for an H100 (5, 50 and 500 MB). The programs take turns, each
operation in a fresh process with a fresh folder; what was restored is compared with the tree, and a program that did
not restore it has no figures. Takes some six minutes; the kernels are made once, 3,000 in a quarter of an hour.
"""

from __future__ import annotations

import statistics
import sys
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs as a script

from benchmarks import corpus, session
from benchmarks.measure import OperationFailed, extent
from benchmarks.programs import Absent, Contender, contenders
from benchmarks.session import Session

ROUNDS = {30: 9, 300: 7, 3000: 3}
QUICK_ROUNDS = {30: 3, 300: 3}
OPERATIONS = ("save", "load")
MEASURES = {
    "save": ("save", "s"),
    "load": ("load", "s"),
    "save process": ("save, from exec to done", "s"),
    "load process": ("load, from exec to done", "s"),
    "stored": ("bytes in the store", "MB"),
    "save peak": ("peak memory of a save", "MB"),
    "load peak": ("peak memory of a load", "MB"),
}
_NOTES = """\
A save or load is one call in a fresh process; “from exec to done” is that whole process: interpreter, imports and the
call. For `tar` and `cp` the two are the same. The published package imports torch. Peak memory is taken in a run of its
own: the resident high-water mark of the program's largest process. Not all do the same: `tar` and `cp` verify nothing,
all but this project leave group files that name other files by the path they were saved from (Triton does not find them
after a restore under another path), and none of the others keeps times to the nanosecond."""


class Comparison:
    """All programs on one tree."""

    def __init__(self, the: Session, kernels: int, tree: Path) -> None:
        self._the = the
        self._kernels = kernels
        self._tree = tree
        self._values: dict[tuple[str, str], list[float]] = defaultdict(list)
        self._absent: dict[str, str] = {}
        self._programs: list[Contender] = []
        for program in contenders(the.peer, the.folder):
            if isinstance(program, Absent):
                self._absent[program.name] = program.why
            else:
                self._programs.append(program)

    def measure(self, rounds: int) -> None:
        """Run them all, taking turns. One that fails is left out from then on."""
        self._the.bench.touched_bytes = 2 * extent(self._tree).bytes
        for number in range(rounds):
            folder = self._the.bench.fresh()
            turn = number % len(self._programs)
            order = self._programs[turn:] + self._programs[:turn]
            for operation in OPERATIONS:
                for program in order:
                    self._try(program, operation, folder, is_last=number == rounds - 1)
            self._the.bench.discard(folder)
        folder = self._the.bench.fresh()
        for program in self._programs:
            self._try_peaks(program, folder)
        self._the.bench.discard(folder)

    def report(self) -> None:
        """Add the rows."""
        size = extent(self._tree)
        labels: dict[str, str | int | float] = {"kernels": self._kernels}
        title = f"{self._kernels:,} kernels"
        self._the.results.add(f"{title}: size", "MB", [size.bytes / 1e6], labels={**labels, "measure": "size"})
        self._the.results.add(f"{title}: files", "", [size.files], labels={**labels, "measure": "files"})
        for program in contenders(self._the.peer, self._the.folder):
            for measure, (what, unit) in MEASURES.items():
                self._row(program, f"{title}: {what}, {program.name}", measure, unit)

    def _row(self, program: Contender | Absent, name: str, measure: str, unit: str) -> None:
        labels: dict[str, str | int | float] = {
            "kernels": self._kernels,
            "measure": measure,
            "program": program.name,
        }
        command = ""
        if isinstance(program, Contender):
            command = program.load_command if measure.startswith("load") else program.save_command
        if why := self._absent.get(program.name):
            self._the.results.cannot(name, unit, why=why, labels=labels)
        else:
            values = self._values[program.name, measure]
            self._the.results.add(name, unit, values, labels=labels, command=command)

    def _try(self, program: Contender, operation: str, folder: Path, *, is_last: bool) -> None:
        if program.name in self._absent:
            return
        store, target = self._folders(program, folder)
        series = f"{self._kernels} {operation} {program.name}"
        try:
            if operation == "save":
                program.save(self._the.bench, series, self._tree, store)
                self._note(program, "stored", extent(store).bytes / 1e6)
            else:
                program.load(self._the.bench, series, store, target)
                self._check(program, target, in_full=is_last)
        except OperationFailed as failure:
            self._absent[program.name] = str(failure)
            return
        run = self._the.bench.series[series].runs[-1]
        self._note(program, operation, run.seconds)
        self._note(program, f"{operation} process", run.wall_seconds)

    def _try_peaks(self, program: Contender, folder: Path) -> None:
        if program.name in self._absent:
            return
        store, target = self._folders(program, folder)
        try:
            for operation, tree in (("save", self._tree), ("load", target)):
                peak = program.peak_bytes(self._the.bench, operation, store, tree)
                self._note(program, f"{operation} peak", peak / 1e6)
            self._check(program, target, in_full=False)
        except OperationFailed as failure:
            self._absent[program.name] = str(failure)

    def _check(self, program: Contender, target: Path, *, in_full: bool) -> None:
        """Raise OperationFailed unless the tree is there; in full is every byte, otherwise their number."""
        if in_full and (wrong := program.wrong(self._tree, target)):
            raise OperationFailed(f"{program.name} did not restore {len(wrong)} files as they were: {wrong[0]}")
        found, expected = extent(target), extent(self._tree)
        # Group files name their place, so their length depends on it.
        if found.files != expected.files or (not program.relocates and found != expected):
            raise OperationFailed(f"{program.name} restored {found} instead of {expected}")

    def _note(self, program: Contender, measure: str, value: float) -> None:
        self._values[program.name, measure].append(value)

    @staticmethod
    def _folders(program: Contender, folder: Path) -> tuple[Path, Path]:
        name = "".join(letter if letter.isalnum() else "-" for letter in program.name)
        return folder / f"store-{name}", folder / f"restored-{name}"


def measure(the: Session) -> str:
    for kernels, rounds in (QUICK_ROUNDS if the.quick else ROUNDS).items():
        made = corpus.triton_corpus(the.corpus, kernels)
        # The corpus holds one per cent more, for other benchmarks.
        keys = sorted(path.name for path in made.iterdir())[:kernels]
        folder = the.bench.fresh()
        tree = corpus.install_triton(made, folder / "tree", keys)
        comparison = Comparison(the, kernels, tree)
        comparison.measure(rounds)
        comparison.report()
        the.bench.discard(folder)
        _say(the, kernels)
    for measured, (what, unit) in MEASURES.items():
        the.results.cannot(
            f"{what}, PyTorch's mega-cache",
            unit,
            why="it saves what the same process has compiled, not a folder: see the first call of compiled models",
            labels={"measure": measured, "program": "mega-cache"},
        )
    return _NOTES


def _say(the: Session, kernels: int) -> None:
    """What was found, for whoever waits."""
    for name, series in the.bench.series.items():
        if name.startswith(f"{kernels} "):
            wall = statistics.median(run.wall_seconds for run in series.runs)
            print(f"{name:<36}{series.seconds:9.3f} s {wall:9.3f} s from exec to done", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(session.run("load", "Save and load of one tree", __doc__, measure))
