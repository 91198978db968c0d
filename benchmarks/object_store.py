"""A load from a real S3 against what obstore and boto3 move of the same bytes.

Usage::

    python benchmarks/object_store.py [--results FILE] [--quick]

Needs Debian's Ceph (see tests/s3/ceph.py), root, obstore and boto3; starts a gateway of its own on loopback. Two trees:
300 real Triton kernels for an H100 (51 MB, which pack to 3 MB) and incompressible bytes (500 MB; ``--quick``: 100 MB).
The contenders take turns, each run a fresh process with a fresh folder, and each figure is of the work alone, without
interpreter and imports: ours is a whole load, with starting its worker process, verifying and writing every file;
obstore's ranged get of the pack, eight parts of 4 MiB at once, keeps the bytes in memory; boto3's is one stream into
``tar --zstd -x``. Aims: at least 0.8 of obstore's rate for the large pack, and at least twice as fast as boto3 and tar.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs as a script

from benchmarks import corpus, session
from benchmarks.measure import differences, extent
from benchmarks.session import Session
from tests.s3.__main__ import make_bucket
from tests.s3.ceph import ACCESS_KEY, SECRET_KEY, Ceph

ROUNDS, QUICK_ROUNDS = 7, 3
HUGE_BYTES, QUICK_HUGE_BYTES = 500 * 10**6, 100 * 10**6
BUCKET = "benchmark"
_OURS = """
import json, os, time
from b10_transfer import OperationStatus, load, save
operation = {"load": load, "save": save}[os.environ["OPERATION"]]
started = time.perf_counter()
report = operation(deadline_s=300)
seconds = time.perf_counter() - started
assert report.status is OperationStatus.SUCCESS, report.reason
print(json.dumps({"seconds": seconds, "bytes": report.packed_bytes}))
"""
_OBSTORE = """
import json, os, time
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
    size = sum(len(part) for part in threads.map(get, starts))
print(json.dumps({"seconds": time.perf_counter() - started, "bytes": size}))
"""
_BOTO3 = """
import json, os, subprocess, time
import boto3
bucket, prefix = os.environ["B10_STORE"].split("/", 3)[2:]
target = os.environ["TORCHINDUCTOR_CACHE_DIR"]
os.makedirs(target)
started = time.perf_counter()
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
print(json.dumps({"seconds": time.perf_counter() - started, "bytes": size}))
"""
PROGRAMS = {"ours": _OURS, "obstore's ranged get": _OBSTORE, "boto3 and tar": _BOTO3}


def run(the: Session, program: str, store: str, root: Path, operation: str = "load") -> tuple[float, int]:
    """Seconds and packed bytes of one operation in a fresh process. Raises RuntimeError if it fails."""
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
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, cwd=the.folder, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{operation} failed: {done.stderr[-2000:]}")
    told = json.loads(done.stdout)
    return float(told["seconds"]), int(told["bytes"])


def compare(the: Session, name: str, tree: Path) -> None:
    """Save one tree, load it with every program in turn, add the rows."""
    store = f"s3://{BUCKET}/{name.replace(' ', '-')}"
    _seconds, packed = run(the, _OURS, store, tree, "save")
    seconds: dict[str, list[float]] = {program: [] for program in PROGRAMS}
    the.bench.touched_bytes = 2 * extent(tree).bytes
    for number in range(QUICK_ROUNDS if the.quick else ROUNDS):
        order = list(PROGRAMS)[number % len(PROGRAMS) :] + list(PROGRAMS)[: number % len(PROGRAMS)]
        for program in order:
            folder = the.bench.fresh()
            taken, moved = run(the, PROGRAMS[program], store, folder / "restored")
            if moved != packed:
                raise RuntimeError(f"{program} moved {moved} bytes of {packed}")
            seconds[program].append(taken)
            if program == "ours" and number == 0 and (wrong := differences(tree, folder / "restored")):
                raise RuntimeError(f"{len(wrong)} files were not restored as they were: {wrong[0]}")
            the.bench.discard(folder)
    report(the, name, packed, seconds)


def report(the: Session, name: str, packed: int, seconds: dict[str, list[float]]) -> None:
    """Add the rows of one tree."""
    labels: dict[str, str | int | float] = {"tree": name}
    the.results.add(f"{name}: packed", "MB", [packed / 1e6], labels={**labels, "measure": "packed"})
    medians = {program: statistics.median(values) for program, values in seconds.items()}
    for program, values in seconds.items():
        described: dict[str, str | int | float] = {**labels, "program": program}
        the.results.add(f"{name}: {program}", "s", values, labels={**described, "measure": "seconds"})
        rates = [packed / 1e6 / value for value in values]
        the.results.add(f"{name}: {program}, rate", "MB/s", rates, labels={**described, "measure": "rate"})
        print(f"{name:<24}{program:<24}{medians[program]:8.3f} s{packed / 1e6 / medians[program]:9.1f} MB/s")
    for program, meaning in (("obstore's ranged get", "of its rate"), ("boto3 and tar", "times as fast")):
        ratio = medians[program] / medians["ours"]
        the.results.add(f"{name}: ours against {program}", "x", [ratio], labels={**labels, "against": program})
        print(f"{name:<24}ours against {program}: {ratio:.2f} {meaning}")


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
        made = corpus.triton_corpus(the.corpus)
        keys = sorted(path.name for path in made.iterdir())[: corpus.KERNELS]
        compare(the, "300 kernels", corpus.install_triton(made, the.bench.fresh() / "tree", keys))
        size = QUICK_HUGE_BYTES if the.quick else HUGE_BYTES
        compare(the, f"{size // 10**6} MB random", corpus.install_huge(the.bench.fresh() / "tree", size))
    return (
        f"obstore {version('obstore')}, boto3 {version('boto3')}; client, gateway and disks share the machine's cores."
    )


if __name__ == "__main__":
    sys.exit(session.run("object_store", "Loads from a bucket", __doc__, measure))
