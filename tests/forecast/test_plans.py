"""``info``, ``explain`` and ``doctor`` predict a load and a save that then happen.

Each situation is set up, each command predicts, and then the operation runs. The prediction is the operation's own
plan, so status, units and reason agree.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import pytest

from b10_transfer import LoadReport, SaveReport, load, save
from b10_transfer.adapters import vllm_modelinfos
from b10_transfer.environment import detect
from tests.command import Publisher, command, damage, pod_like_this
from tests.conftest import IsolatedEnv

KERNEL = {"KERNEL/launcher.so": b"machine code"}
GRAPH = {"fxgraph/ab/fabkey/graph": b"a graph"}


class Pod:
    """A pod that a situation changes before the commands predict."""

    def __init__(self, env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch) -> None:
        self.env = env
        self.set = monkeypatch.setenv
        self.patch = monkeypatch.setattr

    def compile(self) -> None:
        self.env.fill(self.env.triton, KERNEL)
        self.env.fill(self.env.inductor, GRAPH)

    def saved(self) -> None:
        self.compile()
        assert save().units == 2
        shutil.rmtree(self.env.triton)
        shutil.rmtree(self.env.inductor)


def nothing(pod: Pod) -> None:
    """Neither a store nor a cache exists."""


def saved_elsewhere(pod: Pod) -> None:
    pod.saved()


def all_in_place(pod: Pod) -> None:
    pod.saved()
    pod.compile()


def one_cache_in_use(pod: Pod) -> None:
    pod.saved()
    pod.env.fill(pod.env.triton, {"OTHER/launcher.so": b"x"})


def the_only_cache_in_use(pod: Pod) -> None:
    pod.saved()
    pod.set("B10_CACHES", "triton")
    pod.env.fill(pod.env.triton, {"OTHER/launcher.so": b"x"})


def one_cache_refused(pod: Pod) -> None:
    pod.saved()
    pod.env.triton.mkdir(parents=True)
    pod.env.triton.chmod(0o777)


def the_only_cache_refused(pod: Pod) -> None:
    one_cache_refused(pod)
    pod.set("B10_CACHES", "triton")


def only_what_is_refused_is_missing(pod: Pod) -> None:
    one_cache_refused(pod)
    pod.env.fill(pod.env.inductor, GRAPH)


def refused_with_an_empty_store(pod: Pod) -> None:
    pod.env.triton.mkdir(parents=True)
    pod.env.triton.chmod(0o777)


def only_an_auxiliary_cache_is_missing(pod: Pod) -> None:
    pod.patch(vllm_modelinfos, "_installed_version", lambda: "1")
    root = pod.env.home / ".cache" / "vllm"
    pod.set("VLLM_CACHE_ROOT", str(root))
    pod.env.fill(root, {"torch_compile_cache/torch_aot_compile/h/rank_0_0/model": b"m"})
    pod.env.fill(root, {"modelinfos/vllm-x.json": b'{"hash":"1","modelinfo":{}}'})
    assert save().units == 2
    (root / "modelinfos" / "vllm-x.json").unlink()


def only_an_auxiliary_cache_is_chosen(pod: Pod) -> None:
    pod.saved()
    pod.set("B10_CACHES", "inductor_headers")


def store_holds_other_caches(pod: Pod) -> None:
    pod.saved()
    pod.set("B10_CACHES", "tilelang")


def no_cache_is_chosen(pod: Pod) -> None:
    pod.saved()
    pod.set("B10_CACHES", "cuda")
    pod.set("CUDA_CACHE_PATH", "/cache/elsewhere")


def every_pack_is_damaged(pod: Pod) -> None:
    pod.saved()
    damage(next(pod.env.store.rglob("*.tar.zst")))


def pack_was_recalled(pod: Pod) -> None:
    pod.compile()
    command("recall", save().pack)


def store_cannot_be_read(pod: Pod) -> None:
    pod.compile()
    pod.set("B10_STORE", str(pod.env.home / "missing" / "store"))


def store_cannot_be_read_and_nothing_is_here(pod: Pod) -> None:
    pod.set("B10_STORE", str(pod.env.home / "missing" / "store"))


def pod_only_reads(pod: Pod) -> None:
    pod.compile()
    pod.set("B10_READ_ONLY", "1")


def wrong_variable(pod: Pod) -> None:
    pod.saved()
    pod.set("TORCHINDUCTOR_CACHE_DIR", "/etc")


def wrong_variable_of_the_only_cache(pod: Pod) -> None:
    wrong_variable(pod)
    pod.set("B10_CACHES", "inductor")


def wrong_variable_and_all_else_in_place(pod: Pod) -> None:
    wrong_variable(pod)
    pod.env.fill(pod.env.triton, KERNEL)


def cache_is_a_file(pod: Pod) -> None:
    pod.saved()
    pod.env.triton.parent.mkdir(parents=True, exist_ok=True)
    pod.env.triton.write_text("")


def half_of_the_packs_damaged(pod: Pod) -> None:
    pod.saved()
    damage(next(pod.env.store.rglob("*.tar.zst")))
    pod.env.fill(pod.env.triton, {"LATER/launcher.so": b"x"})
    save()
    shutil.rmtree(pod.env.triton)


def saved_on_another_cpu(pod: Pod) -> None:
    kernel = {"k.cubin": b"GPU code", "__grp__k.json": b'{"child_paths": {"k.cubin": "k.cubin"}}'}
    units = {"triton/KERNEL/": kernel, "triton/HELPER/": {"launcher.so": b"x"}}
    Publisher(pod.env.store, pod_like_this(cpu_features="avx")).publish(units)


def saved_on_another_cpu_and_in_use(pod: Pod) -> None:
    saved_on_another_cpu(pod)
    pod.env.fill(pod.env.triton, KERNEL)


def saved_on_another_cpu_and_switched_off(pod: Pod) -> None:
    saved_on_another_cpu(pod)
    pod.set("B10_SIBLINGS", "0")


SITUATIONS: list[Callable[[Pod], None]] = [
    nothing,
    saved_elsewhere,
    all_in_place,
    one_cache_in_use,
    the_only_cache_in_use,
    one_cache_refused,
    the_only_cache_refused,
    only_what_is_refused_is_missing,
    refused_with_an_empty_store,
    only_an_auxiliary_cache_is_missing,
    only_an_auxiliary_cache_is_chosen,
    store_holds_other_caches,
    no_cache_is_chosen,
    every_pack_is_damaged,
    pack_was_recalled,
    store_cannot_be_read,
    store_cannot_be_read_and_nothing_is_here,
    pod_only_reads,
    wrong_variable,
    wrong_variable_of_the_only_cache,
    wrong_variable_and_all_else_in_place,
    cache_is_a_file,
    half_of_the_packs_damaged,
    saved_on_another_cpu,
    saved_on_another_cpu_and_in_use,
    saved_on_another_cpu_and_switched_off,
]


def of(report: LoadReport | SaveReport) -> tuple[str, int, int, int]:
    return report.status.name, report.units, report.files, report.bytes


def predicted(forecast: dict[str, Any]) -> tuple[str, int, int, int]:
    return forecast["status"], forecast["units"], forecast["files"], forecast["bytes"]


@pytest.fixture(params=SITUATIONS, ids=lambda situation: situation.__name__)
def pod(request: pytest.FixtureRequest, isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch) -> Pod:
    found = Pod(isolated_env, monkeypatch)
    request.param(found)
    return found


@pytest.mark.parametrize("merge", ["0", "1"])
def test_load_does_what_info_explain_and_doctor_predict(pod: Pod, merge: str) -> None:
    pod.set("B10_MERGE", merge)
    info = command("info", "--json").json["load"]
    explained = command("explain", "--json")
    checks = {check["name"]: check for check in command("doctor", "--json").json["checks"]}
    report = load()
    assert predicted(info) == of(report)
    if report.status.name != "SUCCESS":
        assert info["reason"] in report.reason
    if "load" in explained.json:
        assert explained.json["load"] == info
        assert (
            explained.json["would_hit"]
            or report.siblings
            or report.status.name in ("DOES_NOT_EXIST", "ERROR", "SKIPPED")
        )
        assert explained.json["would_hit"] is False or report.status.name in ("SUCCESS", "SKIPPED")
    else:  # the store cannot be read
        assert explained.exit_code == 1
    assert (checks["load"]["state"] == "PROBLEM") == (report.status.name == "ERROR")


def test_save_does_what_info_and_doctor_predict(pod: Pod) -> None:
    info = command("info", "--json").json["save"]
    checks = {check["name"]: check for check in command("doctor", "--json").json["checks"]}
    report = save()
    assert predicted(info) == of(report)
    if report.status.name != "SUCCESS":
        assert info["reason"] == report.reason
    assert (checks["save"]["state"] == "PROBLEM") == (report.status.name == "ERROR")


def test_units_already_present_are_those_that_are_in_place(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    Publisher(isolated_env.store, detect()).publish({**{f"triton/K{n}/": {"a.so": b"x"} for n in range(3)}})
    isolated_env.fill(isolated_env.triton, {"K1/a.so": b"x"})
    assert load(merge=True).already_present == 1
    monkeypatch.setenv("B10_CACHES", "tilelang")
    assert load().already_present == 0


def test_only_directories_that_something_was_restored_to_are_named(isolated_env: IsolatedEnv) -> None:
    Publisher(isolated_env.store, detect()).publish({"triton/K/": {"a.so": b"x"}})
    Publisher(isolated_env.store, detect()).publish({"inductor/fxgraph/ey/key/": {"graph": b"x"}})
    isolated_env.fill(isolated_env.triton, {"K/a.so": b"x"})
    assert load(merge=True).reason == f"restored to {isolated_env.inductor}"
