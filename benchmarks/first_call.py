"""The first call of a compiled model in a new process: cold, restored by b10-transfer, and by PyTorch's mega-cache.

A transformer is compiled for this machine's CPU. The cold start saves its cache both ways; the others restore it in a
new process with an empty cache directory. A start that misses torch's caches, or that has another output, has no
figures. Takes three minutes.
"""

from __future__ import annotations

import getpass
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs as a script

from benchmarks import harness
from benchmarks.contenders import Package
from benchmarks.harness import OURS, OperationFailedError, Samples, Session
from benchmarks.results import Label
from benchmarks.starts import Outcome, Request, StartError, start
from benchmarks.tables import COLD, MEGA, MODEL
from benchmarks.trees import extent

MEASURES = {"first call": "s", "process": "s", "load": "s", "save": "s", "stored": "MB"}
_MEGA_ROUNDS = 2
"""As slow as a cold start."""


class Starts:
    """All starts, in one folder."""

    def __init__(self, session: Session) -> None:
        self._session, self._folder, self._samples = session, session.fresh(), Samples()
        self._mega, self._store, self._reference = (self._folder / name for name in ("mega", "store", "cold0"))

    def measure(self) -> None:
        """Start cold and save, then start warm in turns."""
        note = self._samples.values
        for number in range(1 if self._session.quick else 2):
            outcome, root = self._start(self._folder / f"cold{number}", mega_cache=str(self._mega))
            if outcome.parts[MODEL]["activity"]["fx_hits"]:
                raise OperationFailedError("the cold start had hits")
            note[COLD, "first call"].append(outcome.parts[MODEL]["first_call_s"])
            note[COLD, "process"].append(outcome.process_s)
            note[MEGA, "save"].append(outcome.mega_cache["seconds"])
        note[MEGA, "stored"].append(self._mega.stat().st_size / 1e6)
        note[OURS.name, "save"].append(Package(OURS).save(self._session, root, self._store)["seconds"])
        note[OURS.name, "stored"].append(extent(self._store).bytes / 1e6)
        turns: dict[str, Callable[[Path, int], dict[str, float]]] = {
            OURS.name: partial(self._warm, restore="b10_transfer"),
            MEGA: partial(self._warm, restore=MEGA, mega_cache=str(self._mega)),
        }
        self._samples.take_turns(self._session, turns, self._session.rounds)
        for name in (COLD, *turns):
            for measure, unit in MEASURES.items():
                title = f"{MODEL}, {name}: {'whole process' if measure == 'process' else measure}"
                labels: dict[str, Label] = {"model": MODEL, "program": name, "measure": measure}
                self._samples.add_to(self._session.results, title, name, measure, unit, labels)

    def _warm(self, folder: Path, number: int, **request: Any) -> dict[str, float]:
        if request["restore"] == MEGA and number >= _MEGA_ROUNDS:
            return {}
        outcome, _ = self._start(folder / request["restore"], **request)
        if outcome.load["status"] != "SUCCESS":
            raise OperationFailedError(f"the restore answered {outcome.load['status']}")
        activity, output = (outcome.parts[MODEL][name] for name in ("activity", "output"))
        if not (activity["fx_hits"] and activity["aot_hits"]) or activity["fx_misses"] or activity["aot_misses"]:
            raise OperationFailedError(f"cache misses after the restore: {activity}")
        if not output["difference"] <= output["allowed"]:
            raise OperationFailedError(f"its output differs by {output['difference']:g}")
        first_call_s = outcome.parts[MODEL]["first_call_s"]
        return {"first call": first_call_s, "load": outcome.load["seconds"], "process": outcome.process_s}

    def _start(self, home: Path, **request: Any) -> tuple[Outcome, Path]:
        """A start, and its cache directory, where torch has it by default: in TMPDIR."""
        root = home / f"torchinductor_{re.sub(r'[^a-zA-Z0-9]', '_', getpass.getuser())}"
        caches = {"TORCHINDUCTOR_CACHE_DIR": str(root), "TRITON_CACHE_DIR": str(root / "triton" / "0")}
        environ = self._session.environment(OURS, self._store, TMPDIR=str(home), **caches)
        try:
            outcome = start(home, Request((MODEL,), reference=str(self._reference), **request), environ)
        except StartError as error:
            raise OperationFailedError(str(error)) from error
        print(f"{home.name}: {outcome.parts[MODEL]['first_call_s']:.2f} s", file=sys.stderr)
        return outcome, root


def measure(session: Session) -> None:
    Starts(session).measure()


if __name__ == "__main__":
    title = "The first call of a compiled model"
    sys.exit(harness.run("first_call", title, __doc__, measure, rounds=3, quick_rounds=1))
