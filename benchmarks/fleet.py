"""Many replicas at once: 1 to 48 processes that load from one store, 50 that save to one, 16 that wait for one.

All have imported what they need and are released at the same moment; each has a cache directory of its own. What each
restored is compared with what was saved, and the union of what the savers published with what they had. The published
package serves one process at a time, so it is measured once for each number, and not beyond 24. With nothing saved, of
processes that may wait one compiles (sleeps, and then has a cache), and the others load what it saves. Takes four
minutes. Aims: 24 load at least ten times faster than with the published package, the slowest in at most twice the
median; replicas that have compiled the same publish at most three packs; who waits is warm two seconds after the save.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs as a script

from benchmarks import corpus, session
from benchmarks.crowd import Crowd, Outcome
from benchmarks.measure import OperationFailed, Program, extent
from benchmarks.programs import Absent, Contender, Package, our_package, published_package
from benchmarks.session import Session

LOADERS = (1, 2, 4, 8, 16, 24, 48)
QUICK_LOADERS = (1, 4, 8)
MOST_PUBLISHED = 24
ROUNDS, QUICK_ROUNDS = 5, 2
SAVERS, QUICK_SAVERS = 50, 10
MOST_PACKS = 3
WAITERS = 16
KERNELS, QUICK_KERNELS = 300, 30
_SHARED = 60
_NOTES = """\
Processes that have imported everything are released at the same moment. Total: until the last call has returned. All
share the cores, so on one machine the total of many loads grows with their number for any program; what a program adds
by making them wait for each other shows against one loader's time. All savers of the same artifacts hold 60 kernels;
those of different ones hold six of their own each, and all must be in the union. Without locks (`B10_LOCKS=0`) replicas
may publish the same units more than once; nothing may be lost. Waiting: from when the save of the one that compiled had
ended until each of the others had loaded."""
_WAITER = """
import json, os, shutil, sys, time
from b10_transfer import load, save
report = load(wait_for_compile_s=120)
loaded = time.time()
if report.status.name == "DOES_NOT_EXIST":
    time.sleep(3)  # compiles
    shutil.copytree(sys.argv[1], os.environ["TORCHINDUCTOR_CACHE_DIR"], copy_function=shutil.copy)
    assert save().status.name == "SUCCESS"
print(json.dumps({"status": report.status.name, "loaded": loaded, "ended": time.time()}))
"""


def loaders(the: Session, kernels: int) -> None:
    """From 1 to 48 processes load the same pack."""
    made = corpus.triton_corpus(the.corpus, kernels)
    tree = corpus.install_triton(
        made, the.bench.fresh() / "tree", sorted(path.name for path in made.iterdir())[:kernels]
    )
    for program in (our_package(), published_package(the.peer, the.folder)):
        store = the.bench.fresh() / "store"
        if isinstance(program, Contender):
            program.save(the.bench, f"fleet save {program.name}", tree, store)
        for number in QUICK_LOADERS if the.quick else LOADERS:
            labels: dict[str, str | int | float] = {"program": program.name, "loaders": number, "kernels": kernels}
            name = f"{number} loaders of {kernels} kernels, {program.name}"
            if why := _why_not(program, number):
                the.results.cannot(f"{name}: total", "s", why=why, labels={**labels, "measure": "total"})
                the.results.cannot(f"{name}: slowest / median", "x", why=why, labels={**labels, "measure": "slowest"})
                continue
            assert isinstance(program, Package)
            rounds = (QUICK_ROUNDS if the.quick else ROUNDS) if program.relocates else 1
            outcomes = [_load(the, program, tree, store, number) for _ in range(rounds)]
            _add(the, name, outcomes, labels)


def compare(the: Session) -> None:
    """How many times as long the published package takes, for each number of loaders that both were measured with."""
    for number in QUICK_LOADERS if the.quick else LOADERS:
        own, published = (
            the.results.find(loaders=number, measure="total", program=name)
            for name in ("b10-transfer", "published 0.4.1")
        )
        if own and published:
            labels: dict[str, str | int | float] = {"loaders": number, "measure": "ratio"}
            name = f"{number} loaders: total of the published package / ours"
            the.results.add(name, "x", [published.median / own.median], labels=labels)


def _why_not(program: Package | Absent, number: int) -> str:
    if isinstance(program, Absent):
        return program.why
    if not program.relocates and number > MOST_PUBLISHED:
        return f"not run: it takes a second for each loader, so {number} would take {number} s"
    return ""


def _load(the: Session, program: Package, tree: Path, store: Path, number: int) -> Outcome:
    folder = the.bench.fresh()
    roots = [folder / f"replica{one}" for one in range(number)]
    the.bench.touch((number + 1) * extent(tree).bytes)
    with Crowd(the.bench, program.program, "load_compile_cache", roots, store) as crowd:
        outcome = crowd.act()
    if outcome.statuses != {"SUCCESS": number}:
        raise OperationFailed(f"{number} loaders, {program.name}: {outcome.statuses}")
    for root in roots:
        if wrong := program.wrong(tree, root):
            raise OperationFailed(f"{number} loaders, {program.name}: {wrong[0]}")
    the.bench.discard(folder)
    print(f"{number} loaders, {program.name}: {outcome.total_seconds:.2f} s", file=sys.stderr)
    return outcome


def _add(the: Session, name: str, outcomes: list[Outcome], labels: dict[str, str | int | float]) -> None:
    totals = [outcome.total_seconds for outcome in outcomes]
    slowest = [max(outcome.seconds) / statistics.median(outcome.seconds) for outcome in outcomes]
    medians = [statistics.median(outcome.seconds) for outcome in outcomes]
    the.results.add(f"{name}: total", "s", totals, labels={**labels, "measure": "total"})
    the.results.add(f"{name}: slowest / median", "x", slowest, labels={**labels, "measure": "slowest"})
    the.results.add(f"{name}: median of one", "s", medians, labels={**labels, "measure": "one"})


def savers(the: Session, kernels: int, number: int) -> None:
    """Processes that have compiled the same, and ones that have compiled different things, save at once."""
    made = corpus.triton_corpus(the.corpus, kernels)
    keys = sorted(path.name for path in made.iterdir())[:kernels]
    share = kernels // number
    shares = {
        "the same": [keys[:_SHARED]] * number,
        "different": [keys[share * one : share * (one + 1)] for one in range(number)],
    }
    for what, of_each in shares.items():
        for locks in ("1", "0"):
            found: dict[str, list[float]] = defaultdict(list)
            for _ in range(2):
                _save(the, made, of_each, locks, found)
            labels: dict[str, str | int | float] = {"savers": number, "artifacts": what, "locks": locks}
            name = f"{number} savers of {what} artifacts, locks {'on' if locks == '1' else 'off'}"
            for measure, unit in (("total", "s"), ("packs", ""), ("savers that published", ""), ("units", "")):
                the.results.add(f"{name}: {measure}", unit, found[measure], labels={**labels, "measure": measure})


def _save(the: Session, made: Path, of_each: list[list[str]], locks: str, found: dict[str, list[float]]) -> None:
    folder = the.bench.fresh()
    own = our_package().program
    program = Program(own.name, own.python, own.store_variable, {**own.settings, "B10_LOCKS": locks})
    roots = []
    for number, keys in enumerate(of_each):
        roots.append(corpus.install_triton(made, folder / f"replica{number}", keys))
    store = folder / "store"
    with Crowd(the.bench, program, "save_compile_cache", roots, store) as crowd:
        outcome = crowd.act()
    if set(outcome.statuses) - {"SUCCESS", "SKIPPED"}:
        raise OperationFailed(f"{len(roots)} savers: {outcome.statuses}")
    the.bench.operate("union of savers", program, "load_compile_cache", store, folder / "union")
    expected = {key for keys in of_each for key in keys}
    units = {path.name for path in (folder / "union" / "triton" / "0").iterdir()}
    files = {key: sum(1 for _ in (made / key).iterdir()) for key in expected}
    for key in expected & units:
        if sum(1 for _ in (folder / "union" / "triton" / "0" / key).iterdir()) != files[key]:
            raise OperationFailed(f"{len(roots)} savers: {key} is not whole in the union")
    if units != expected:
        raise OperationFailed(f"{len(roots)} savers: {len(expected - units)} units of {len(expected)} are lost")
    found["total"].append(outcome.total_seconds)
    packs, published = sum(1 for _ in store.glob("v1/*/*/packs/*")), outcome.statuses.get("SUCCESS", 0)
    if packs != published or (locks == "1" and len({*map(tuple, of_each)}) == 1 and packs > MOST_PACKS):
        raise OperationFailed(f"{len(roots)} savers: {published} published {packs} packs of the same artifacts")
    found["packs"].append(packs)
    found["savers that published"].append(published)
    found["units"].append(len(units))
    the.bench.discard(folder)


def waiters(the: Session, kernels: int, number: int) -> None:
    """With nothing saved, one of many compiles and the others load what it saves. Raises OperationFailed otherwise."""
    made = corpus.triton_corpus(the.corpus, kernels)
    tree = corpus.install_triton(
        made, the.bench.fresh() / "tree", sorted(path.name for path in made.iterdir())[:kernels]
    )
    waited = []
    for _ in range(QUICK_ROUNDS if the.quick else ROUNDS):
        folder = the.bench.fresh()
        program = our_package().program
        started = [
            subprocess.Popen(
                [program.python, "-c", _WAITER, str(tree)],
                env=the.bench.environment(program, folder / "store", folder / f"replica{one}"),
                cwd=the.bench.folder,
                stdout=subprocess.PIPE,
                text=True,
            )
            for one in range(number)
        ]
        told = [json.loads(process.communicate()[0]) for process in started]
        compiled = [one for one in told if one["status"] == "DOES_NOT_EXIST"]
        if len(compiled) != 1 or {one["status"] for one in told} != {"SUCCESS", "DOES_NOT_EXIST"}:
            raise OperationFailed(f"{number} waiters: {[one['status'] for one in told]}")
        waited.append(max(one["loaded"] for one in told if one["status"] == "SUCCESS") - compiled[0]["ended"])
        the.bench.discard(folder)
    labels: dict[str, str | int | float] = {"waiters": number, "measure": "last after the save"}
    the.results.add(f"{number} replicas, one compiles: the last is warm after its save", "s", waited, labels=labels)


def measure(the: Session) -> str:
    loaders(the, QUICK_KERNELS if the.quick else KERNELS)
    compare(the)
    savers(the, QUICK_KERNELS if the.quick else KERNELS, QUICK_SAVERS if the.quick else SAVERS)
    waiters(the, QUICK_KERNELS if the.quick else KERNELS, WAITERS)
    return _NOTES


if __name__ == "__main__":
    sys.exit(session.run("fleet", "Many replicas at once", __doc__, measure))
