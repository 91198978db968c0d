"""Starts a real S3 on loopback, runs the tests that need one, and ends it: ``make test-s3``. Arguments go to pytest.

Without any, the contract of a store is tried in Google's protocol as well.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from .ceph import ACCESS_KEY, SECRET_KEY, Ceph, bucket_policy
from .google import google

BUCKET, OPEN_BUCKET = "test-bucket", "open-bucket"
AT_ONCE = ["-n", "4", "--dist", "worksteal"]
"""Most of these tests wait."""
CONTRACT = "tests/contract/test_stores.py"


def main() -> int:
    """The exit status of pytest, or 1 if there is no S3 to be had."""
    if missing := Ceph.missing():
        print(
            f"{', '.join(missing)}: not installed. On Debian, as root: "
            "apt-get install --no-install-recommends ceph-mon ceph-osd radosgw ceph-common faketime",
            file=sys.stderr,
        )
        return 1
    with tempfile.TemporaryDirectory(prefix="ceph-") as folder, Ceph(Path(folder)) as cluster:
        environment = {
            "AWS_ENDPOINT_URL": cluster.endpoint,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_REGION": "us-east-1",
            "B10_TEST_BUCKET": f"s3://{BUCKET}/tests",
            "B10_TEST_CEPH": str(cluster.configuration),
        }
        os.environ.update(environment)
        make_bucket(BUCKET)
        if sys.argv[1:]:
            return _test(*sys.argv[1:])
        make_bucket(OPEN_BUCKET, is_open=True)
        with google(int(cluster.endpoint.rpartition(":")[2])) as environment:
            environment["B10_TEST_BUCKET"] = f"gs://{OPEN_BUCKET}/tests"
            by_google = _test(*AT_ONCE, CONTRACT, **environment)
        return _test(*AT_ONCE, CONTRACT, "tests/s3") or by_google


def _test(*arguments: str, **environment: str) -> int:
    command = [sys.executable, "-m", "pytest", *arguments]
    return subprocess.run(command, env=os.environ | environment, check=False).returncode


def make_bucket(name: str, *, is_open: bool = False) -> None:
    """Create a bucket where the environment says that S3 is, perhaps one in which everybody may do everything."""
    import boto3

    client = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"])
    client.create_bucket(Bucket=name)
    if is_open:
        client.put_bucket_policy(Bucket=name, Policy=bucket_policy(name, "*", "s3:*"))


if __name__ == "__main__":
    raise SystemExit(main())
