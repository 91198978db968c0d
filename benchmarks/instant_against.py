"""Instant starts of this working tree against those of an earlier commit.

    python benchmarks/instant_against.py --against COMMIT

Each tree compiles the model once and saves to a store of its own. Then the trees take turns to start in new processes
with empty caches. A start that traces a graph, or has another output, fails the comparison. The program prints medians,
and the median, smallest and largest ratio of the pairs. It takes four minutes with nine pairs.

The median ratio may be 1.2 for the first call and 1.3 for the load. The exit status is 1 if it is larger.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs as a script

from benchmarks.starts import ROOT, Outcome, Request, StartError, environment, start

MODEL = "decoder"
LIMITS = {"first call": 1.2, "load": 1.3}
"""Of the median ratio of a measure."""
MEASURES = (*LIMITS, "torch.compile(model)")


@contextmanager
def tree(commit: str, folder: Path) -> Iterator[Path]:
    """A worktree of a commit, with the module in C that belongs to it."""
    git = ["git", "-C", str(ROOT), "worktree"]
    subprocess.run([*git, "add", "--quiet", "--detach", str(folder), commit], check=True)
    try:
        build(folder)
        yield folder
    finally:
        subprocess.run([*git, "remove", "--force", str(folder)], check=True)


def build(folder: Path) -> None:
    """Build the module in C in place."""
    command = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)


class Side:
    """The starts of one tree.

    Args:
        sources: The folder that holds the package ``b10_transfer``.
        folder: For the store and the homes of the starts.
        model: A name in :mod:`benchmarks.models`.
    """

    def __init__(self, sources: Path, folder: Path, model: str) -> None:
        self.folder = folder
        self.values: dict[str, list[float]] = {measure: [] for measure in MEASURES}
        self._sources = sources
        self._request = Request((model,), restore="instant")
        folder.mkdir()

    def save(self) -> None:
        """Fill the store. Raises StartError."""
        outcome = self._start("saved", replace(self._request, saves=True))
        if outcome.saves[0]["status"] != "SUCCESS":
            raise StartError(f"{self.folder.name}: the save was {outcome.saves[0]['status']}")

    def measure(self, number: int) -> None:
        """Start once. Raises StartError if it traced, or has another output than the start that saved."""
        model = self._request.models[0]
        outcome = self._start(str(number), replace(self._request, reference=str(self.folder / "saved")))
        part = outcome.parts[model]
        if part["activity"]["graphs"]:
            raise StartError(f"{self.folder.name}: it traced {part['activity']['graphs']} graphs")
        if part["output"]["difference"] > part["output"]["allowed"]:
            raise StartError(f"{self.folder.name}: its output differs by {part['output']['difference']:g}")
        found = (part["first_call_s"], outcome.load["wall_s"], part["compile_s"])
        for measure, value in zip(MEASURES, found, strict=True):
            self.values[measure].append(value)

    def _start(self, name: str, request: Request) -> Outcome:
        home = self.folder / name
        for each in (home, home / "home", home / "tmp"):
            each.mkdir(exist_ok=True)
        environ = environment(home, self.folder / "store")
        environ["PYTHONPATH"] = f"{self._sources}:{environ['PYTHONPATH']}"
        return start(home, request, environ)


def compare(values: Mapping[str, Mapping[str, Sequence[float]]]) -> tuple[list[str], bool]:
    """A line for each measure, and whether every median ratio is within its limit.

    Args:
        values: By tree (``before``, ``now``) and measure, the seconds of its starts, of which the nth are a pair.
    """
    lines, is_within = [], True
    for measure in MEASURES:
        before, now = values["before"][measure], values["now"][measure]
        ratios = [late / early for early, late in zip(before, now, strict=True)]
        ratio, limit = statistics.median(ratios), LIMITS.get(measure)
        medians = f"{statistics.median(before):.3f} s before, {statistics.median(now):.3f} s now"
        allowed = f", at most {limit} allowed" if limit else ""
        lines.append(f"{measure}: {medians}, ratio {ratio:.2f} ({min(ratios):.2f} to {max(ratios):.2f}){allowed}")
        is_within = is_within and (limit is None or ratio <= limit)
    return lines, is_within


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", required=True, metavar="COMMIT")
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--model", default=MODEL, help="a name in benchmarks/models.py")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="b10-against-") as name, tree(options.against, Path(name, "tree")) as old:
        build(ROOT)
        sides = [
            Side(old / "src", Path(name, "before"), options.model),
            Side(ROOT / "src", Path(name, "now"), options.model),
        ]
        for side in sides:
            side.save()
        for number in range(options.pairs):
            for side in sides if number % 2 else reversed(sides):
                side.measure(number)
        lines, is_within = compare({side.folder.name: side.values for side in sides})
    print(f"{options.model} against {options.against}, pairs: {options.pairs}", *lines, sep="\n")
    return 0 if is_within else 1


if __name__ == "__main__":
    sys.exit(main())
