"""The first call of a compiled model in a new process: cold, and after the restore of each program.

A transformer and a convolutional network are compiled for this machine's CPU. Every program saves the cache of the cold
start, and restores it for a new process with an empty cache directory. A start that misses torch's caches, or that has
another output, has no figures. Takes seven minutes.
"""

from __future__ import annotations

import getpass
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs as a script

from benchmarks import harness
from benchmarks.contenders import COMMANDS, Commands, Contender, Package, packages
from benchmarks.harness import OURS, OperationFailedError, Program, Samples, Session
from benchmarks.results import Label
from benchmarks.starts import Outcome, Request, StartError, start
from benchmarks.trees import extent

MODELS = ("transformer", "conv net")
MEGA, COLD = "mega-cache", "cold"
MEASURES = {"first call": "s", "process": "s", "load": "s", "save": "s", "stored": "MB"}
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
_MEGA_ROUNDS = 2
"""As slow as a cold start."""


class Starts:
    """All starts of one model."""

    def __init__(self, session: Session, model: str) -> None:
        self._session, self._model, self._samples = session, model, Samples()
        self._folder = session.fresh()
        self._mega, self._reference = self._folder / "mega", self._folder / "cold0"
        self._programs: list[Contender] = [*packages(session, self._samples), *COMMANDS]

    def measure(self) -> None:
        """Start cold, save with every program, then start warm in turns."""
        note = self._samples.values
        for number in range(1 if self._session.quick else 2):
            outcome, root = self._start(self._folder / f"cold{number}", mega_cache=str(self._mega))
            if outcome.parts[self._model]["activity"]["fx_hits"]:
                raise OperationFailedError(f"{self._model}: the cold start had hits")
            note[COLD, "first call"].append(outcome.parts[self._model]["first_call_s"])
            note[COLD, "process"].append(outcome.process_s)
            note[MEGA, "save"].append(outcome.mega_cache["seconds"])
        note[MEGA, "stored"].append(self._mega.stat().st_size / 1e6)
        turns: dict[str, Callable[[Path, int], dict[str, float]]] = {}
        for program in self._programs:
            try:
                note[program.name, "save"].append(program.save(self._session, root, self._store(program))["seconds"])
                note[program.name, "stored"].append(extent(self._store(program)).bytes / 1e6)
            except OperationFailedError as failure:
                self._samples.failed[program.name] = str(failure)
            turns[program.name] = self._turn(program)
        self._samples.take_turns(self._session, turns | {MEGA: self._from_mega}, self._session.rounds)
        self._samples.take_turns(self._session, {OURS.name: self._phases}, self._session.rounds)
        self._report()

    def _turn(self, program: Contender) -> Callable[[Path, int], dict[str, float]]:
        def act(folder: Path, _number: int) -> dict[str, float]:
            home = folder / program.slug
            if isinstance(program, Package):
                return self._warm(home, restore="b10_transfer", environ=self._environ(program.program))
            home.mkdir()
            assert isinstance(program, Commands)
            seconds = program.load(self._session, self._store(program), _root(home))["seconds"]
            found = self._warm(home)
            return found | {"load": seconds, "process": found["process"] + seconds}

        return act

    def _from_mega(self, folder: Path, number: int) -> dict[str, float]:
        if number >= _MEGA_ROUNDS:
            return {}
        return self._warm(folder / MEGA, restore=MEGA, mega_cache=str(self._mega))

    def _phases(self, folder: Path, _number: int) -> dict[str, float]:
        """One start after a restore by b10-transfer, divided into phases."""
        environ = self._environ(OURS)
        outcome, _ = self._start(folder / "phases", environ=environ, restore="b10_transfer", phases=True)
        self._check(outcome)
        outside = outcome.process_s - sum(outcome.phases.values())
        phases = outcome.phases | {"interpreter, exit": outside}
        return {f"phase {phase}": phases.get(phase, 0.0) for phase in PHASES}

    def _warm(self, home: Path, **request: Any) -> dict[str, float]:
        outcome, _ = self._start(home, **request)
        self._check(outcome)
        first_call_s = outcome.parts[self._model]["first_call_s"]
        return {"first call": first_call_s, "load": outcome.load["seconds"], "process": outcome.process_s}

    def _start(self, home: Path, environ: dict[str, str] | None = None, **request: Any) -> tuple[Outcome, Path]:
        """A start, and its cache directory, where torch has it by default: in TMPDIR."""
        root = _root(home)
        environ = (environ or self._session.environment()) | {
            "TORCHINDUCTOR_CACHE_DIR": str(root),
            "TRITON_CACHE_DIR": str(root / "triton" / "0"),
            "TMPDIR": str(home),
        }
        try:
            given = Request((self._model,), reference=str(self._reference), **request)
            outcome = start(home, given, environ)
        except StartError as error:
            raise OperationFailedError(f"{self._model}: {error}") from error
        print(f"{self._model}, {home.name}: {outcome.parts[self._model]['first_call_s']:.2f} s", file=sys.stderr)
        return outcome, root

    def _environ(self, program: Program) -> dict[str, str]:
        """The published package runs in the same environment, with its folder before this project's."""
        store = self._folder / f"store-{re.sub(r'[^a-z0-9]+', '-', program.name)}"
        environ = self._session.environment(program, store)
        if program is OURS:
            return environ
        shadow = self._folder / "published"
        if not shadow.exists():
            shadow.mkdir()
            find = "import importlib.util as u; print(u.find_spec('b10_transfer').submodule_search_locations[0])"
            found = subprocess.run([program.python, "-c", find], check=True, capture_output=True, text=True).stdout
            (shadow / "b10_transfer").symlink_to(found.strip())
        return environ | {"PYTHONPATH": str(shadow)}

    def _store(self, program: Contender) -> Path:
        return self._folder / f"store-{re.sub(r'[^a-z0-9]+', '-', program.name)}"

    def _check(self, outcome: Outcome) -> None:
        if outcome.load["status"] != "SUCCESS":
            raise OperationFailedError(f"{self._model}: the restore answered {outcome.load['status']}")
        activity, output = (outcome.parts[self._model][name] for name in ("activity", "output"))
        if not (activity["fx_hits"] and activity["aot_hits"]) or activity["fx_misses"] or activity["aot_misses"]:
            raise OperationFailedError(f"{self._model}: cache misses after the restore: {activity}")
        if not output["difference"] <= output["allowed"]:
            raise OperationFailedError(f"{self._model}: its output differs by {output['difference']:g}")

    def _report(self) -> None:
        results, samples = self._session.results, self._samples
        for name in (COLD, *(program.name for program in self._programs), MEGA, *samples.failed):
            for measure, unit in MEASURES.items():
                title = f"{self._model}, {name}: {'whole process' if measure == 'process' else measure}"
                labels: dict[str, Label] = {"model": self._model, "program": name, "measure": measure}
                if title not in {row.name for row in results.rows}:
                    samples.add_to(results, title, name, measure, unit, labels)
        for phase in PHASES:
            labels = {"model": self._model, "program": OURS.name, "measure": "phase", "phase": phase}
            samples.add_to(results, f"{self._model}, warm start: {phase}", OURS.name, f"phase {phase}", "s", labels)


def _root(home: Path) -> Path:
    return home / f"torchinductor_{re.sub(r'[^a-zA-Z0-9]', '_', getpass.getuser())}"


def measure(session: Session) -> None:
    for model in MODELS[: 1 if session.quick else None]:
        Starts(session, model).measure()


if __name__ == "__main__":
    sys.exit(
        harness.run("first_call", "The first call of a compiled model", __doc__, measure, rounds=3, quick_rounds=1)
    )
