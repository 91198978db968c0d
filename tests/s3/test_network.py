"""Between a pod and its bucket requests are throttled, reset and cut short: repeated while there is time, else told."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable

import pytest

from b10_transfer import LoadReport, OperationStatus, SaveReport, load, save

from ..conftest import IsolatedEnv, ReadTree
from .conftest import Bucket
from .proxy import SLOW_DOWN, Answer, Pass, Proxy, Request, Reset, Rule
from .test_gateway import GRACE_S, SHORT_S
from .test_round_trip import MB, incompressible

FILES = {"ug/huge.so": incompressible(11 * MB), "ey/key.py": b"code"}


def first(count: int, harm: Pass | Answer | Reset) -> Rule:
    """The first requests come to harm, the others do not."""
    left = [harm] * count

    def rule(request: Request) -> Pass | Answer | Reset:
        return left.pop() if left else Pass()

    return rule


def every_other(harm: Pass | Answer | Reset) -> Rule:
    """Every other request of each path comes to harm, beginning with the first."""
    seen: dict[str, int] = {}

    def rule(request: Request) -> Pass | Answer | Reset:
        seen[request.path] = seen.get(request.path, 0) + 1
        return harm if seen[request.path] % 2 else Pass()

    return rule


HARMS = {
    "throttled": every_other(SLOW_DOWN),
    # At worst 30 s of the 42 that it goes on: windows of 2, 4 and three times 8 s. Twelve refusals can be too many.
    "throttled at first": first(5, SLOW_DOWN),
    "failing inside": every_other(Answer("500 Internal Server Error", "InternalError")),
    "reset": every_other(Reset()),
    "reset within the answer's head": every_other(Pass(answer_bytes=10)),
}


@pytest.mark.parametrize("harm", HARMS.values(), ids=HARMS)
def test_save_and_load_succeed_all_the_same_where_requests_come_to_harm(
    isolated_env: IsolatedEnv, bucket: Bucket, proxy: Proxy, read_tree: ReadTree, harm: Rule
) -> None:
    isolated_env.fill(isolated_env.inductor, FILES)
    proxy.rule = harm
    assert save().status is OperationStatus.SUCCESS
    shutil.rmtree(isolated_env.inductor)
    assert load().status is OperationStatus.SUCCESS
    assert read_tree(isolated_env.inductor) == FILES
    assert len(bucket.packs()) == 1


def test_answers_that_are_cut_short_are_asked_for_again(
    isolated_env: IsolatedEnv, bucket: Bucket, proxy: Proxy, read_tree: ReadTree
) -> None:
    isolated_env.fill(isolated_env.inductor, FILES)
    assert save().status is OperationStatus.SUCCESS
    shutil.rmtree(isolated_env.inductor)
    cut = every_other(Pass(answer_bytes=700_000))
    proxy.rule = lambda request: cut(request) if "/packs/" in request.path else Pass()
    assert load().status is OperationStatus.SUCCESS
    assert read_tree(isolated_env.inductor) == FILES


@pytest.mark.parametrize("size", [MB, 40 * MB], ids=["in one request", "in parts"])
def test_save_whose_success_is_not_heard_of_publishes_one_pack(
    isolated_env: IsolatedEnv, bucket: Bucket, proxy: Proxy, size: int
) -> None:
    isolated_env.fill(isolated_env.inductor, {"ug/huge.so": incompressible(size)})
    lose = first(1, Pass(answer_bytes=0))

    def lose_one(request: Request) -> Pass | Answer | Reset:
        creates = request.is_conditional or ("uploadId" in request.path and request.method == "POST")
        return lose(request) if creates and "/packs/" in request.path else Pass()

    proxy.rule = lose_one
    report = save()
    assert (report.status, report.reason) == (OperationStatus.SUCCESS, f"published as pack {report.pack}")
    assert len(bucket.packs()) == 1
    assert bucket.uploads() == []


def test_lease_whose_creation_is_not_heard_of_is_held_all_the_same(
    isolated_env: IsolatedEnv, bucket: Bucket, proxy: Proxy
) -> None:
    isolated_env.fill(isolated_env.triton, {"KEY/a.so": b"a"})
    lose = first(4, Pass(answer_bytes=0))
    proxy.rule = lambda request: lose(request) if request.is_conditional and "eases/" in request.path else Pass()
    assert save(deadline_s=20).status is OperationStatus.SUCCESS
    assert bucket.leases() == []


@pytest.mark.parametrize("operation", [load, save])
@pytest.mark.parametrize(
    ("harm", "told"),
    [(SLOW_DOWN, "throttled the request"), (Reset(), "onnection"), (Pass(answer_bytes=20), "onnection")],
    ids=["throttled", "reset", "cut short"],
)
def test_harm_without_end_is_told_within_the_deadline(
    isolated_env: IsolatedEnv,
    bucket: Bucket,
    proxy: Proxy,
    operation: Callable[..., LoadReport | SaveReport],
    harm: Pass | Answer | Reset,
    told: str,
) -> None:
    if operation is save:
        isolated_env.fill(isolated_env.triton, {"KEY/a.so": b"a"})
    proxy.rule = lambda request: harm
    started = time.monotonic()
    report = operation(deadline_s=SHORT_S)
    assert time.monotonic() - started < SHORT_S + GRACE_S
    assert report.status is OperationStatus.ERROR
    assert told in report.reason
    assert bucket.url in report.reason
    assert "\n" not in report.reason
    proxy.rule = lambda request: Pass()
    assert operation().status is not OperationStatus.ERROR


def test_bucket_that_refuses_conditions_can_be_saved_to(
    isolated_env: IsolatedEnv, bucket: Bucket, proxy: Proxy
) -> None:
    isolated_env.fill(isolated_env.triton, {"KEY/a.so": b"a"})
    refusal = Answer("501 Not Implemented", "NotImplemented")
    proxy.rule = lambda request: refusal if request.is_conditional else Pass()
    assert save().status is OperationStatus.SUCCESS
    assert len(bucket.packs()) == 1
    assert bucket.leases() == []


def test_conditions_can_be_switched_off(
    isolated_env: IsolatedEnv, bucket: Bucket, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_CONDITIONAL_PUT", "disabled")
    isolated_env.fill(isolated_env.triton, {"KEY/a.so": b"a"})
    assert save().status is OperationStatus.SUCCESS
    assert not any(request.is_conditional for request in proxy.requests)
