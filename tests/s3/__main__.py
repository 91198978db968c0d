"""Starts a real S3 on loopback, runs the tests that need one, and ends it: ``make test-s3``. Arguments go to pytest."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from .ceph import ACCESS_KEY, SECRET_KEY, Ceph

BUCKET = "test-bucket"
AT_ONCE = ["-n", "4", "--dist", "worksteal"]
"""Most of these tests wait."""
TESTS = ["tests/contract/test_stores.py", "tests/s3"]


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
        command = [sys.executable, "-m", "pytest", *(sys.argv[1:] or [*AT_ONCE, *TESTS])]
        return subprocess.run(command, check=False).returncode


def make_bucket(name: str) -> None:
    """Create a bucket where the environment says that S3 is."""
    import boto3

    boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL"]).create_bucket(Bucket=name)


if __name__ == "__main__":
    raise SystemExit(main())
