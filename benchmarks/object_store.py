"""A load from a real S3 against what obstore and boto3 move of the same bytes.

Usage::

    python benchmarks/object_store.py [--results FILE] [--quick]

Needs Debian's Ceph (see tests/s3/ceph.py), root, obstore and boto3; starts a gateway of its own on loopback. Two trees:
300 real Triton kernels for an H100 (51 MB, which pack to 3 MB) and incompressible bytes (500 MB; ``--quick``: 100 MB).
The contenders take turns, each run a fresh process with a fresh folder. Two times of each are told: of the whole
process, from starting it to its end, and of the call alone, when everything has been imported. Ours is a whole load,
with a worker process, verifying, unpacking and writing every file; obstore's ranged get of the pack, eight parts of 4
MiB at once, keeps the bytes in memory; boto3's is one stream into ``tar --zstd -x``. Ours from a local directory shows
what of a load is not the bucket's. Processor time, of all processes but Ceph's, is told beside: on few cores, which
all of them share, it is what decides. So the large tree is also moved over slower networks (:mod:`.link`): a link of 2
Gbit/s, and one that gives 90 MB/s to each connection, as S3 does. There the cores are not what everybody waits for.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs as a script

from benchmarks import corpus, link, session
from benchmarks.measure import differences, extent
from benchmarks.session import Session
from tests.s3.__main__ import make_bucket
from tests.s3.ceph import ACCESS_KEY, SECRET_KEY, Ceph

ROUNDS, QUICK_ROUNDS = 7, 3
HUGE_BYTES, QUICK_HUGE_BYTES = 500 * 10**6, 100 * 10**6
BUCKET = "benchmark"
_OURS = """
import os, time
from b10_transfer import OperationStatus, load, save
from b10_transfer.stores.worker.client import WorkerStore
close = WorkerStore.close
def close_and_wait(store):  # so that the worker's processor time is counted
    close(store)
    store._process.wait()
WorkerStore.close = close_and_wait
started = time.perf_counter()
report = {"load": load, "save": save}[os.environ["OPERATION"]](deadline_s=300)
assert report.status is OperationStatus.SUCCESS, report.reason
print(report.packed_bytes, time.perf_counter() - started)
"""
_OBSTORE = """
import os, time
from concurrent.futures import ThreadPoolExecutor
import obstore
from obstore.store import from_url
PART = 4 * 1024 * 1024
started = time.perf_counter()
store = from_url(os.environ["B10_STORE"], client_options={"allow_http": True})
[found] = [found for found in obstore.list(store).collect() if found["path"].endswith(".tar.zst")]
starts = range(0, found["size"], PART)
with ThreadPoolExecutor(8) as threads:
    def get(start):
        return obstore.get_range(store, found["path"], start=start, end=min(start + PART, found["size"]))
    print(sum(len(part) for part in threads.map(get, starts)), time.perf_counter() - started)
"""
_BOTO3 = """
import os, subprocess, time
import boto3
started = time.perf_counter()
bucket, prefix = os.environ["B10_STORE"].split("/", 3)[2:]
target = os.environ["TORCHINDUCTOR_CACHE_DIR"]
os.makedirs(target)
client = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"])
listed = client.list_objects_v2(Bucket=bucket, Prefix=prefix)["Contents"]
[key] = [found["Key"] for found in listed if found["Key"].endswith(".tar.zst")]
body = client.get_object(Bucket=bucket, Key=key)["Body"]
tar = subprocess.Popen(["tar", "--zstd", "-xf", "-", "-C", target], stdin=subprocess.PIPE)
size = 0
for chunk in body.iter_chunks(1024 * 1024):
    tar.stdin.write(chunk)
    size += len(chunk)
tar.stdin.close()
assert tar.wait() == 0
print(size, time.perf_counter() - started)
"""
FROM_DIRECTORY = "ours, from a local directory"
PROGRAMS = {"ours": _OURS, "obstore's ranged get": _OBSTORE, "boto3 and tar": _BOTO3, FROM_DIRECTORY: _OURS}


@dataclass(frozen=True)
class Cost:
    """What one run took."""

    seconds: float
    """Of the whole process."""
    call_seconds: float
    """Of the call, when everything had been imported."""
    cpu_seconds: float
    bytes: int
    """Moved from the bucket, or to it."""


def run(the: Session, program: str, store: str, root: Path, operation: str = "load") -> Cost:
    """One operation in a fresh process. Raises RuntimeError if it fails."""
    environment = {
        **os.environ,
        "B10_STORE": store,
        "OPERATION": operation,
        "HOME": str(the.folder / "home"),
        "TMPDIR": str(the.folder / "tmp"),
        "LOCAL_WORK_DIR": str(the.folder / "work"),
        "TORCHINDUCTOR_CACHE_DIR": str(root),
        "TRITON_CACHE_DIR": str(the.folder / "home" / "no-triton-cache"),
    }
    cpu, started = os.times(), time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, cwd=the.folder, check=False
    )
    seconds = time.perf_counter() - started
    if done.returncode:
        raise RuntimeError(f"{operation} failed: {done.stderr[-2000:]}")
    after = os.times()
    cpu_seconds = after.children_user + after.children_system - cpu.children_user - cpu.children_system
    size, call_seconds = done.stdout.split()
    return Cost(seconds, float(call_seconds), cpu_seconds, int(size))


def compare(the: Session, name: str, tree: Path, port: int, limit: str = "") -> None:
    """Save one tree, load it with every program in turn, add the rows. ``limit`` is what the network carries."""
    label = f"{name} {limit}".replace(" ", "-").replace("/", "-")
    stores = dict.fromkeys(PROGRAMS, f"s3://{BUCKET}/{label}") | {FROM_DIRECTORY: str(the.folder / f"store-{label}")}
    [packed] = {run(the, _OURS, store, tree, "save").bytes for store in set(stores.values())}
    costs: dict[str, list[Cost]] = {program: [] for program in PROGRAMS}
    the.bench.touched_bytes = 2 * extent(tree).bytes
    with link.limited(limit, port):
        for number in range(QUICK_ROUNDS if the.quick else ROUNDS):
            order = list(PROGRAMS)[number % len(PROGRAMS) :] + list(PROGRAMS)[: number % len(PROGRAMS)]
            for program in order:
                folder = the.bench.fresh()
                cost = run(the, PROGRAMS[program], stores[program], folder / "restored")
                if cost.bytes != packed:
                    raise RuntimeError(f"{program} moved {cost.bytes} bytes of {packed}")
                costs[program].append(cost)
                if program == "ours" and number == 0 and (wrong := differences(tree, folder / "restored")):
                    raise RuntimeError(f"{len(wrong)} files were not restored as they were: {wrong[0]}")
                the.bench.discard(folder)
    report(the, f"{name}, {limit}" if limit else name, packed, costs)


def report(the: Session, name: str, packed: int, costs: dict[str, list[Cost]]) -> None:
    """Add the rows of one tree."""
    labels: dict[str, str | int | float] = {"tree": name}
    the.results.add(f"{name}: packed", "MB", [packed / 1e6], labels={**labels, "measure": "packed"})
    medians: dict[tuple[str, str], float] = {}
    for program, runs in costs.items():
        for measure, values in (
            ("process", [run.seconds for run in runs]),
            ("call", [run.call_seconds for run in runs]),
            ("processor", [run.cpu_seconds for run in runs]),
        ):
            described = {**labels, "program": program, "measure": measure}
            the.results.add(f"{name}: {program}, {measure}", "s", values, labels=described)
            medians[program, measure] = statistics.median(values)
        shown = "".join(f"{medians[program, measure]:9.3f}" for measure in ("process", "call", "processor"))
        print(f"{name:<24}{program:<30}{shown} s (process, call, processor)")
    for measure in ("process", "call"):
        for program, meaning in (("obstore's ranged get", "of its rate"), ("boto3 and tar", "times as fast")):
            ratio = medians[program, measure] / medians["ours", measure]
            described = {**labels, "against": program, "measure": f"{measure} ratio"}
            the.results.add(f"{name}: ours against {program}, {measure}", "x", [ratio], labels=described)
            print(f"{name:<24}{measure}: ours against {program}: {ratio:.2f} {meaning}")


def measure(the: Session) -> str:
    if missing := Ceph.missing():
        raise SystemExit(f"{', '.join(missing)}: not installed; see tests/s3/ceph.py")
    with tempfile.TemporaryDirectory(prefix="ceph-", dir=the.folder) as folder, Ceph(Path(folder)) as cluster:
        os.environ.update(
            AWS_ENDPOINT_URL=cluster.endpoint,
            AWS_ACCESS_KEY_ID=ACCESS_KEY,
            AWS_SECRET_ACCESS_KEY=SECRET_KEY,
            AWS_REGION="us-east-1",
        )
        make_bucket(BUCKET)
        port = int(cluster.endpoint.rpartition(":")[2])
        made = corpus.triton_corpus(the.corpus)
        keys = sorted(path.name for path in made.iterdir())[: corpus.KERNELS]
        compare(the, "300 kernels", corpus.install_triton(made, the.bench.fresh() / "tree", keys), port)
        size = QUICK_HUGE_BYTES if the.quick else HUGE_BYTES
        huge = corpus.install_huge(the.bench.fresh() / "tree", size)
        for limit in link.kinds():
            compare(the, f"{size // 10**6} MB random", huge, port, limit)
    return (
        f"obstore {version('obstore')}, boto3 {version('boto3')}; client, gateway and disks share the machine's cores."
    )


if __name__ == "__main__":
    if (status := link.run_again_with_own_network()) is None:
        status = session.run("object_store", "Loads from a bucket", __doc__, measure)
    sys.exit(status)
