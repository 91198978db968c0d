"""Many replicas at once: 1 to 48 processes load from one store, 50 save to one, 16 wait for one that compiles.

All processes import what they need and start at the same moment, each with its own cache directory. The restored files
are compared with the saved ones, and the union of all packs with the artifacts of all savers. The published package
serves one process at a time, so it runs once for each number up to 24. Takes four minutes. Limits: 24 replicas load at
least ten times as fast as with the published package, the slowest within twice the median; replicas with equal
artifacts publish at most three packs; waiting replicas are warm within two seconds of the save.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs as a script

from benchmarks import corpus, harness
from benchmarks.contenders import Package, packages
from benchmarks.harness import OPERATION, OURS, OperationFailedError, Program, Samples, Session
from benchmarks.results import Label
from benchmarks.tables import PUBLISHED
from benchmarks.trees import extent

LOADERS, QUICK_LOADERS = (1, 2, 4, 8, 16, 24, 48), (1, 4, 8)
MOST_PUBLISHED = 24
SAVERS, QUICK_SAVERS = 50, 10
WAITERS = 16
MOST_PACKS = 3
SPEEDUP, SLOWEST, WARM_S = 10.0, 2.0, 2.0
_SHARED = 60
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


@dataclass(frozen=True)
class Outcome:
    """The result of an operation by many processes."""

    total: float
    """Seconds from the start until the last call ended."""
    seconds: Sequence[float]
    """Seconds of each call."""
    statuses: Counter[str]


def all_at_once(session: Session, program: Program, operation: str, roots: Sequence[Path], store: Path) -> Outcome:
    """Run an operation in one process for each root. All start at the same moment, after their imports."""
    command = [program.python, str(OPERATION), operation, "--wait"]
    with ExitStack() as cleanup:
        log = cleanup.enter_context((session.fresh() / "stderr").open("w+"))
        processes = []
        for root in roots:
            environ = session.environment(program, store, TORCHINDUCTOR_CACHE_DIR=str(root))
            process = subprocess.Popen(
                command, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
            )
            processes.append(process)
            cleanup.callback(process.communicate)
            cleanup.callback(process.kill)

        def line(process: subprocess.Popen[str]) -> str:
            assert process.stdout
            if found := process.stdout.readline():
                return found
            log.seek(0)
            raise OperationFailedError(f"one of {len(roots)} processes crashed: {log.read()[-2000:]}")

        for process in processes:
            line(process)
        started = time.perf_counter()
        for process in processes:
            assert process.stdin
            process.stdin.write("\n")
            process.stdin.flush()
        answers = [json.loads(line(process)) for process in processes]
        total = time.perf_counter() - started
    return Outcome(total, [one["seconds"] for one in answers], Counter(one["status"] for one in answers))


def loaders(session: Session, kernels: int) -> None:
    """1 to 48 processes load the same pack."""
    tree, samples = session.triton_tree(kernels), Samples()
    for package in packages(session, samples):
        store = session.fresh() / "store"
        package.save(session, tree, store)
        for number in QUICK_LOADERS if session.quick else LOADERS:
            labels: dict[str, Label] = {"program": package.name, "loaders": number, "kernels": kernels}
            title = f"{number} loaders of {kernels} kernels, {package.name}"
            if package.program is not OURS and number > MOST_PUBLISHED:
                why = f"it serves one process a second, so {number} would take {number} s"
                session.results.cannot(f"{title}: total", "s", why=why, labels={**labels, "measure": "total"})
                continue
            rounds = session.rounds if package.program is OURS else 1
            outcomes = [_load(session, package, tree, store, number) for _ in range(rounds)]
            slowest = [max(one.seconds) / statistics.median(one.seconds) for one in outcomes]
            totals, medians = [one.total for one in outcomes], [statistics.median(one.seconds) for one in outcomes]
            limit = SLOWEST if package.program is OURS and number == MOST_PUBLISHED else None
            for measure, what, unit, values, at_most in (
                ("total", "total", "s", totals, None),
                ("slowest", "slowest / median", "x", slowest, limit),
                ("one", "median of one", "s", medians, None),
            ):
                described = {**labels, "measure": measure}
                session.results.add(f"{title}: {what}", unit, values, labels=described, at_most=at_most)
    if PUBLISHED in samples.failed:
        labels = {"program": PUBLISHED, "measure": "total"}
        name, why = f"loaders of {kernels} kernels, {PUBLISHED}", samples.failed[PUBLISHED]
        session.results.cannot(name, "s", why=why, labels=labels)
    own, theirs = (
        session.results.find(loaders=MOST_PUBLISHED, measure="total", program=name) for name in (OURS.name, PUBLISHED)
    )
    if own and theirs:
        name, labels = f"{MOST_PUBLISHED} loaders: total, published / b10-transfer", {"measure": "ratio"}
        session.results.add(name, "x", [theirs.median / own.median], labels=labels, at_least=SPEEDUP)


def _load(session: Session, package: Package, tree: Path, store: Path, number: int) -> Outcome:
    folder = session.fresh()
    roots = [folder / f"replica{one}" for one in range(number)]
    session.warm((number + 1) * extent(tree).bytes)
    outcome = all_at_once(session, package.program, "load_compile_cache", roots, store)
    if outcome.statuses != {"SUCCESS": number}:
        raise OperationFailedError(f"{number} loaders, {package.name}: {dict(outcome.statuses)}")
    for root in roots:
        package.check(tree, root, in_full=True)
    session.discard(folder)
    print(f"{number} loaders, {package.name}: {outcome.total:.2f} s", file=sys.stderr)
    return outcome


def savers(session: Session, kernels: int, number: int) -> None:
    """Processes with equal artifacts, and processes with different artifacts, save at once."""
    made = corpus.triton_corpus(session.corpus, kernels)
    keys = sorted(os.listdir(made))[:kernels]
    share = kernels // number
    kinds = {
        "the same": [keys[:_SHARED]] * number,
        "different": [keys[share * one : share * (one + 1)] for one in range(number)],
    }
    for kind, keys_of_each in kinds.items():
        for locks in ("1", "0"):
            found: dict[str, list[float]] = defaultdict(list)
            for _ in range(2):
                for measure, value in _save(session, made, keys_of_each, locks).items():
                    found[measure].append(value)
            words = f"{'equal' if kind == 'the same' else kind} artifacts, locks {'on' if locks == '1' else 'off'}"
            for measure, values in found.items():
                labels: dict[str, Label] = {"savers": number, "artifacts": kind, "locks": locks, "measure": measure}
                limit = MOST_PACKS if (kind, locks, measure) == ("the same", "1", "packs") else None
                unit = "s" if measure == "total" else ""
                session.results.add(
                    f"{number} savers of {words}: {measure}", unit, values, labels=labels, at_most=limit
                )


def _save(session: Session, made: Path, keys_of_each: Sequence[Sequence[str]], locks: str) -> dict[str, float]:
    folder = session.fresh()
    roots = [corpus.install_triton(made, folder / f"replica{number}", keys) for number, keys in enumerate(keys_of_each)]
    program, store, union = replace(OURS, settings={"B10_LOCKS": locks}), folder / "store", folder / "union"
    outcome = all_at_once(session, program, "save_compile_cache", roots, store)
    if set(outcome.statuses) - {"SUCCESS", "SKIPPED"}:
        raise OperationFailedError(f"{len(roots)} savers: {dict(outcome.statuses)}")
    session.operate(OURS, "load_compile_cache", store, union)
    expected = {key for keys in keys_of_each for key in keys}
    found = {path.name: len(list(path.iterdir())) for path in (union / "triton" / "0").iterdir()}
    if found != {key: len(os.listdir(made / key)) for key in expected}:
        raise OperationFailedError(f"{len(roots)} savers: the union has {len(found)} units of {len(expected)}")
    packs, published = len(list(store.glob("v1/*/*/packs/*"))), outcome.statuses["SUCCESS"]
    if packs != published:
        raise OperationFailedError(f"{published} savers reported a pack, but the store has {packs}")
    session.discard(folder)
    return {"total": outcome.total, "packs": packs, "savers that published": published, "units": len(found)}


def waiters(session: Session, kernels: int, number: int) -> None:
    """The store is empty: one of many processes compiles and the others load what it saves."""
    tree, waited = session.triton_tree(kernels), []
    for _ in range(session.rounds):
        folder = session.fresh()
        started = []
        for one in range(number):
            root = str(folder / f"replica{one}")
            environ = session.environment(OURS, folder / "store", TORCHINDUCTOR_CACHE_DIR=root)
            command = [OURS.python, "-c", _WAITER, str(tree)]
            started.append(subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True))
        answers = [json.loads(process.communicate()[0]) for process in started]
        compiled = [one for one in answers if one["status"] == "DOES_NOT_EXIST"]
        warm = [one["loaded"] for one in answers if one["status"] == "SUCCESS"]
        if (len(compiled), len(warm)) != (1, number - 1):
            raise OperationFailedError(f"{number} waiters: {[one['status'] for one in answers]}")
        waited.append(max(warm) - compiled[0]["ended"])
        session.discard(folder)
    name, labels = f"{number} replicas, one compiles: the last is warm after its save", {"waiters": number}
    session.results.add(name, "s", waited, labels={**labels, "measure": "last after the save"}, at_most=WARM_S)


def measure(session: Session) -> None:
    kernels = 30 if session.quick else 300
    loaders(session, kernels)
    savers(session, kernels, QUICK_SAVERS if session.quick else SAVERS)
    waiters(session, kernels, 4 if session.quick else WAITERS)


if __name__ == "__main__":
    sys.exit(harness.run("fleet", "Many replicas at once", __doc__, measure, rounds=5, quick_rounds=2))
