"""Members of a job on two nodes load the same units from a bucket while others publish."""

from __future__ import annotations

import os

from ..concurrency.test_groups import agreed, run_jobs
from ..conftest import IsolatedEnv
from .conftest import Bucket

ROUNDS = int(os.environ.get("ROUNDS", "6"))


def test_all_members_of_a_job_load_the_same_units_from_a_bucket(isolated_env: IsolatedEnv, bucket: Bucket) -> None:
    outcomes = run_jobs(isolated_env, ROUNDS)
    assert agreed(outcomes) > ROUNDS // 3
    assert len([name for name in bucket.objects() if "/groups/" in name]) == ROUNDS
