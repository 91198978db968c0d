"""Loads from a real S3, next to obstore and boto3 with the same bytes.

Needs Debian's Ceph (see tests/s3/ceph.py), root, obstore and boto3. Starts its own gateway on loopback. The trees are
300 real Triton kernels for an H100 (51 MB, 3 MB packed) and 500 MB of incompressible bytes. The programs take turns.
Two times are measured: the whole process, and the call after all imports. b10-transfer runs a whole load with its
worker process: it verifies, unpacks and writes every file. obstore fetches the pack into memory, in eight parts of 4
MiB at once. boto3 streams it into ``tar --zstd -x``. A load from a local directory shows the part of a load that is
not the bucket's. The CPU time of all processes except Ceph's is measured too, because all share the cores. So the
large tree is also moved over slower networks (:mod:`.link`).
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # so that it runs as a script

from benchmarks import corpus, harness, link
from benchmarks.contenders import Package
from benchmarks.harness import OURS, OperationFailedError, Samples, Session
from benchmarks.results import Label
from benchmarks.trees import extent
from tests.s3.__main__ import make_bucket
from tests.s3.ceph import ACCESS_KEY, SECRET_KEY, Ceph

HUGE_BYTES, QUICK_HUGE_BYTES = 500 * 10**6, 100 * 10**6
BUCKET, DEADLINE_S = "benchmark", "300"
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
print(json.dumps([size, time.perf_counter() - started]))
"""
_BOTO3 = """
import json, os, subprocess, time
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
print(json.dumps([size, time.perf_counter() - started]))
"""
OURS_BUCKET, OURS_LOCAL, OBSTORE, BOTO3 = (
    "ours",
    "ours, from a local directory",
    "obstore's ranged get",
    "boto3 and tar",
)


def load(session: Session, store: str, tree: Path, folder: Path, number: int) -> dict[str, float]:
    """A load by b10-transfer."""
    target = folder / store.replace("/", "-")
    costs = session.operate(OURS, "load", store, target, B10_DEADLINE_SECONDS=DEADLINE_S)
    Package(OURS).check(tree, target, in_full=number == 0)
    return {"process": costs["process"], "call": costs["seconds"], "processor": costs["cpu"]}


def fetch(session: Session, program: str, store: str, packed: float, folder: Path, _number: int) -> dict[str, float]:
    """A transfer of the pack by another program."""
    target = str(folder / "restored")
    environ = session.environment(OURS, store, TORCHINDUCTOR_CACHE_DIR=target)
    finished = session.run([sys.executable, "-c", program], environ)
    size, seconds = json.loads(finished.output)
    if size != packed:
        raise OperationFailedError(f"it moved {size} bytes of {packed}")
    return {"process": finished.seconds, "call": seconds, "processor": finished.cpu_seconds}


def compare(session: Session, name: str, tree: Path, port: int, limit: str = "") -> None:
    """Save one tree, load it with every program in turn, add the rows. ``limit`` is that of the network."""
    label = f"{name} {limit}".strip().replace(" ", "-").replace("/", "-")
    bucket, local = f"s3://{BUCKET}/{label}", str(session.folder / f"store-{label}")
    packed = session.operate(OURS, "save", bucket, tree, B10_DEADLINE_SECONDS=DEADLINE_S)["packed"]
    session.operate(OURS, "save", local, tree, B10_DEADLINE_SECONDS=DEADLINE_S)
    session.warm_bytes = 2 * extent(tree).bytes
    turns: dict[str, Callable[[Path, int], dict[str, float]]] = {
        OURS_BUCKET: partial(load, session, bucket, tree),
        OBSTORE: partial(fetch, session, _OBSTORE, bucket, packed),
        BOTO3: partial(fetch, session, _BOTO3, bucket, packed),
        OURS_LOCAL: partial(load, session, local, tree),
    }
    samples = Samples()
    with link.limited(limit, port):
        samples.take_turns(session, turns, session.rounds)
    title, results = f"{name}, {limit}" if limit else name, session.results
    results.add(f"{title}: packed", "MB", [packed / 1e6], labels={"tree": title, "measure": "packed"})
    for program in turns:
        for measure in ("process", "call", "processor"):
            labels: dict[str, Label] = {"tree": title, "program": program, "measure": measure}
            samples.add_to(results, f"{title}: {program}, {measure}", program, measure, "s", labels)
    for measure in ("process", "call"):
        for program in {OBSTORE, BOTO3} - samples.failed.keys():
            labels = {"tree": title, "against": program, "measure": f"{measure} ratio"}
            ratios = samples.ratios(program, OURS_BUCKET, measure)
            results.add(f"{title}: {program} / b10-transfer, {measure}", "x", ratios, labels=labels)


def measure(session: Session) -> None:
    if missing := Ceph.missing():
        raise OperationFailedError(f"{', '.join(missing)}: not installed; see tests/s3/ceph.py")
    with tempfile.TemporaryDirectory(prefix="ceph-", dir=session.folder) as folder, Ceph(Path(folder)) as cluster:
        variables = {
            "AWS_ENDPOINT_URL": cluster.endpoint,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_REGION": "us-east-1",
        }
        os.environ.update(variables)
        session.set(**variables)
        make_bucket(BUCKET)
        port, kernels = int(cluster.endpoint.rpartition(":")[2]), 300
        compare(session, f"{kernels} kernels", session.triton_tree(kernels), port)
        size = QUICK_HUGE_BYTES if session.quick else HUGE_BYTES
        huge = corpus.install_huge(session.fresh() / "tree", size)
        for limit in link.kinds():
            compare(session, f"{size // 10**6} MB random", huge, port, limit)
    for package in ("obstore", "boto3"):
        session.results.versions = {**session.results.versions, package: version(package)}


if __name__ == "__main__":
    status = link.run_again_with_own_network()
    if status is None:
        status = harness.run("object_store", "Loads from a bucket", __doc__, measure, rounds=7, quick_rounds=3)
    sys.exit(status)
