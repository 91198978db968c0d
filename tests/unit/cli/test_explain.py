"""``b10-compile-cache explain``: why a load finds something, or nothing."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from b10_transfer import load, save
from b10_transfer.cli.main import COMMANDS
from b10_transfer.environment import detect
from b10_transfer.inspection.differences import compare
from tests.command import Publisher, command, damage, pod_like_this
from tests.conftest import IsolatedEnv


@pytest.fixture
def this_pod(isolated_env: IsolatedEnv) -> Publisher:
    return Publisher(isolated_env.store, detect())


def test_pod_for_which_there_is_something_is_a_hit(this_pod: Publisher) -> None:
    this_pod.publish()
    answer = command("explain")
    assert answer.exit_code == 0
    assert answer.stdout.startswith("HIT: a load finds 2 units for this pod\n")
    assert this_pod.environment.id in answer.stdout


def test_store_that_is_not_there_yet_is_a_miss_with_advice(isolated_env: IsolatedEnv) -> None:
    answer = command("explain")
    assert answer.exit_code == 3
    assert answer.stdout.startswith("MISS: the store does not exist yet\n")
    assert "check B10_STORE" in answer.stdout


def test_empty_store_is_a_miss(isolated_env: IsolatedEnv) -> None:
    isolated_env.store.mkdir()
    assert command("explain").stdout.startswith("MISS: the store is empty\n")


def test_store_that_cannot_be_read_is_an_error(isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("B10_STORE", str(isolated_env.home / "missing" / "store"))
    answer = command("explain", "--json")
    assert answer.exit_code == 1
    assert "is the volume mounted?" in answer.json["error"]


def test_only_parts_that_differ_are_shown(this_pod: Publisher) -> None:
    other = Publisher(this_pod.store, pod_like_this(torch="2.12.0", device="NVIDIA H100"))
    other.publish()
    answer = command("explain")
    assert answer.exit_code == 3
    assert "MISS: no environment in the store equals this pod's" in answer.stdout
    assert re.search(rf"{other.environment.id} \(1 pack, newest \d+ s ago\): 2 of 10 parts differ", answer.stdout)
    shown = [line.split("  ", 2)[1].strip() for line in answer.stdout.splitlines() if "store has" in line]
    assert shown == ["torch", "device"]
    assert f"store has 2.12.0, this pod {detect().parts['torch']}" in answer.stdout
    assert "store has NVIDIA H100, this pod none" in answer.stdout


def test_environment_with_fewest_differences_comes_first(this_pod: Publisher) -> None:
    far = Publisher(this_pod.store, pod_like_this(torch="2.1", triton="3.1", python="cpython-39", machine="arm64"))
    near = Publisher(this_pod.store, pod_like_this(torch="2.12.0"))
    middle = Publisher(this_pod.store, pod_like_this(torch="2.12.0", triton="3.0"))
    farther = Publisher(this_pod.store, pod_like_this(**{name.replace(" ", "_"): "x" for name in detect().parts}))
    for publisher in (far, farther, near, middle):
        publisher.publish()
    found = command("explain", "--json").json
    ids = [neighbour["id"] for neighbour in found["nearest"]]
    assert ids == [near.environment.id, middle.environment.id, far.environment.id]
    assert found["more"] == 1
    assert "1 other environment with more differences" in command("explain").stdout


def test_difference_of_cpu_features_names_missing_and_extra_ones() -> None:
    [difference] = compare({"cpu features": "avx avx2 amx_int8"}, {"cpu features": "avx avx2 sse4a"})
    assert difference.text == "this pod lacks amx_int8; this pod also has sse4a"


def test_difference_says_if_one_side_has_no_such_part() -> None:
    [ours, theirs] = compare({"theirs": "1", "same": ""}, {"ours": "", "same": ""})
    assert (ours.part, ours.text) == ("ours", "store has no such part, this pod none")
    assert (theirs.part, theirs.text) == ("theirs", "store has 1, this pod no such part")


def test_other_namespace_that_has_this_environment_is_named(this_pod: Publisher) -> None:
    Publisher(this_pod.store, this_pod.environment, "other-team").publish()
    answer = command("explain")
    assert answer.exit_code == 3
    assert "MISS: namespace 'default' has nothing for this pod" in answer.stdout
    assert "set B10_NAMESPACE=other-team" in answer.stdout


def test_without_an_environment_in_its_namespace_the_nearest_of_all_is_shown(this_pod: Publisher) -> None:
    Publisher(this_pod.store, pod_like_this(torch="2.12.0"), "other-team").publish()
    assert "\nnamespace other-team, " in command("explain").stdout


def test_damaged_packs_are_named_with_the_reason(this_pod: Publisher) -> None:
    pack = this_pod.publish()
    damage(pack)
    answer = command("explain")
    assert answer.exit_code == 3
    assert "MISS: every pack for this pod is unusable (1)" in answer.stdout
    assert "the next save of a pod that has compiled" in answer.stdout
    assert f"ignored: pack {pack.name.removesuffix('.tar.zst')}: " in answer.stdout


def test_packs_that_were_set_aside_are_no_hit(this_pod: Publisher) -> None:
    pack = this_pod.publish().name.removesuffix(".tar.zst")
    (this_pod.folder / "quarantine").mkdir()
    (this_pod.folder / "quarantine" / pack).write_text("{}")
    answer = command("explain")
    assert answer.exit_code == 3
    assert f"ignored: pack {pack} was set aside " in answer.stdout


def test_packs_that_were_pruned_are_no_hit_and_can_be_reinstated(this_pod: Publisher) -> None:
    this_pod.publish()
    assert command("prune", "--keep", "0", "--yes").exit_code == 0
    answer = command("explain")
    assert answer.exit_code == 3
    assert answer.stdout.startswith("MISS: every pack for this pod was pruned (1)\n")
    assert "`b10-compile-cache reinstate` undoes that" in answer.stdout


def test_every_kind_of_mark_is_counted(this_pod: Publisher) -> None:
    for mark in ("damaged", "pruned", "recalled"):
        pack = this_pod.publish().name.removesuffix(".tar.zst")
        if mark == "damaged":
            (this_pod.folder / "quarantine").mkdir()
            (this_pod.folder / "quarantine" / pack).write_text("{}")
        elif mark == "pruned":
            assert command("prune", "--keep", "0", "--yes").exit_code == 0
        else:
            assert command("recall", pack).exit_code == 0
    found = command("explain", "--json").json
    kinds = "found damaged and set aside (1), pruned (1) or recalled (1)"
    assert found["verdict"] == f"every pack for this pod was {kinds}"
    assert [len(found[f"{name}_packs"]) for name in ("set_aside", "pruned", "recalled")] == [1, 1, 1]


def test_damaged_pack_next_to_a_sound_one_is_a_hit_and_named(this_pod: Publisher) -> None:
    this_pod.publish()
    damage(this_pod.publish())
    answer = command("explain")
    assert answer.exit_code == 0
    assert "ignored: pack " in answer.stdout


def test_packs_of_caches_that_are_left_out_are_no_hit(this_pod: Publisher, monkeypatch: pytest.MonkeyPatch) -> None:
    this_pod.publish()
    monkeypatch.setenv("B10_CACHES", "cuda")
    answer = command("explain")
    assert answer.exit_code == 3
    assert "only caches that B10_CACHES leaves out: inductor, triton" in answer.stdout


def test_caches_without_a_place_on_this_pod_name_their_variable(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    jax = isolated_env.home / ".cache" / "jax"
    with monkeypatch.context() as patch:
        patch.setenv("JAX_COMPILATION_CACHE_DIR", str(jax))
        isolated_env.fill(jax, {f"jit_f-{'0' * 64}-cache": b"program"})
        assert save().units == 1
    answer = command("explain")
    assert answer.exit_code == 3
    assert "only caches that have no place on this pod: jax" in answer.stdout
    assert "set JAX_COMPILATION_CACHE_DIR" in answer.stdout
    assert load().reason.startswith("the store has only caches that have no place on this pod: jax")


def test_environment_without_a_description_is_named_by_its_id(this_pod: Publisher) -> None:
    other = Publisher(this_pod.store, pod_like_this(torch="2.12.0"))
    damage(other.publish())
    (other.folder / "environment.json").unlink()
    answer = command("explain")
    assert answer.exit_code == 3
    assert re.search(
        rf"{other.environment.id} \(1 pack, newest \d+ s ago\): the store has no description of it", answer.stdout
    )


def test_cache_that_is_in_use_is_named_because_a_load_leaves_it_alone(
    this_pod: Publisher, isolated_env: IsolatedEnv
) -> None:
    this_pod.publish()
    isolated_env.fill(isolated_env.triton, {"OTHER/launcher.so": b"x"})
    assert command("explain", "--json").json["local_caches"] == ["triton"]
    assert "adds nothing to triton: it already holds artifacts" in command("explain").stdout


def test_variables_that_enter_vllms_hash_are_warned_of(this_pod: Publisher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_LOOPBACK_IP", "10.0.0.7")
    assert "vLLM hashes VLLM_LOOPBACK_IP" in command("explain").stdout
    assert command("explain", "--json").json["per_pod_variables"] == ["VLLM_LOOPBACK_IP"]


def test_json_of_a_miss_is_complete(this_pod: Publisher) -> None:
    other = Publisher(this_pod.store, pod_like_this(torch="2.12.0"))
    pack = other.publish()
    found = command("explain", "--json").json
    assert found == {
        "would_hit": False,
        "partial": "",
        "verdict": "no environment in the store equals this pod's",
        "advice": found["advice"],
        "store": str(this_pod.store),
        "namespace": "default",
        "environment_id": this_pod.environment.id,
        "parts": dict(this_pod.environment.parts),
        "remarks": [str(remark) for remark in detect().remarks],
        "packs": 0,
        "units": 0,
        "files": 0,
        "bytes": 0,
        "rest": 0,
        "group": "",
        "commands": [],
        "key_differences": [],
        "rejected_packs": [],
        "set_aside_packs": [],
        "pruned_packs": [],
        "recalled_packs": [],
        "marks": [],
        "nearest": [
            {
                "namespace": "default",
                "id": other.environment.id,
                "packs": 1,
                "newest_s": os.stat(pack).st_mtime,
                "differences": [
                    {
                        "part": "torch",
                        "store": "2.12.0",
                        "pod": detect().parts["torch"],
                        "text": f"store has 2.12.0, this pod {detect().parts['torch']}",
                    }
                ],
            }
        ],
        "more": 0,
        "elsewhere": [],
        "errors": [],
        "load": {
            "status": "DOES_NOT_EXIST",
            "reason": "the store has nothing for this pod",
            "units": 0,
            "files": 0,
            "bytes": 0,
            "partial": "",
        },
        "local_caches": [],
        "refused_caches": [],
        "per_pod_variables": [],
    }


def test_published_units_are_a_hit(isolated_env: IsolatedEnv) -> None:
    isolated_env.fill(isolated_env.triton, {"KERNEL/launcher.so": b"x"})
    save()
    found = command("explain", "--json").json
    assert (found["would_hit"], found["packs"], found["units"]) == (True, 1, 1)


def test_recalled_packs_are_no_hit_and_distinguished_from_damaged_ones(this_pod: Publisher) -> None:
    pack = this_pod.publish().name.removesuffix(".tar.zst")
    assert command("recall", pack).exit_code == 0
    answer = command("explain")
    assert answer.exit_code == 3
    assert "MISS: every pack for this pod was recalled (1)" in answer.stdout
    assert f"ignored: pack {pack} was recalled " in answer.stdout


def test_advice_after_a_recall_names_the_subcommand_that_undoes_it(this_pod: Publisher) -> None:
    pack = this_pod.publish().name.removesuffix(".tar.zst")
    command("recall", pack)
    advised = re.findall(r"`b10-compile-cache (\w+)", command("explain", "--json").json["advice"])
    assert [name in COMMANDS for name in advised] == [True]
    command(advised[0], pack)
    assert command("explain").exit_code == 0


def test_environment_that_cannot_be_read_does_not_hide_the_others(this_pod: Publisher) -> None:
    Publisher(this_pod.store, pod_like_this(torch="2.12.0")).publish()
    broken = this_pod.store / "v1" / "default" / ("f" * 32)
    broken.mkdir()
    (broken / "packs").write_text("no folder")
    answer = command("explain")
    assert answer.exit_code == 3
    assert "1 of 10 parts differ" in answer.stdout
    assert f"warning: not compared, could not list {broken}/packs" in answer.stdout


def describe(path: Path, **changes: object) -> Path:
    """Write the description of this pod that ``info --json`` prints, with changes."""
    path.write_text(json.dumps(command("info", "--json").json | changes))
    return path


def test_it_answers_for_the_pod_of_a_description(this_pod: Publisher, tmp_path: Path) -> None:
    other = Publisher(this_pod.store, pod_like_this(device="NVIDIA H100", toolkit="cuda 13.0"), "llama")
    parts, key = dict(other.environment.parts), other.environment.id
    pod = describe(tmp_path / "pod.json", namespace="llama", parts=parts, environment_id=key)
    missed = command("explain", "--as", str(pod))
    assert missed.exit_code == 3
    other.publish()
    found = command("explain", "--as", str(pod), "--json")
    assert found.exit_code == 0
    assert (found.json["environment_id"], found.json["namespace"]) == (key, "llama")
    assert found.json["load"]["status"] == "SUCCESS"
    assert found.json["load"]["units"] == found.json["units"] == 2
    assert command("explain", "--as", str(pod), "--namespace", "default").exit_code == 3
    assert command("explain").exit_code == 3


def test_caches_of_this_machine_do_not_count_for_another_pod(this_pod: Publisher, tmp_path: Path) -> None:
    this_pod.publish()
    pod = describe(tmp_path / "pod.json")
    assert load().status.name == "SUCCESS"
    found = command("explain", "--as", str(pod), "--json").json
    assert (found["load"]["status"], found["local_caches"]) == ("SUCCESS", [])


def test_caches_that_the_other_pod_leaves_out_are_not_restored_there(this_pod: Publisher, tmp_path: Path) -> None:
    this_pod.publish()
    caches = command("info", "--json").json["caches"]
    pod = describe(tmp_path / "pod.json", caches=[cache | {"error": "not usable"} for cache in caches])
    found = command("explain", "--as", str(pod), "--json")
    assert found.exit_code == 3
    assert found.json["load"]["status"] == "DOES_NOT_EXIST"
    assert "triton: not usable" in found.json["refused_caches"]


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", "not json", '{"error": "…"}', "[" * 100_000, '{"parts": {"torch": 1}}', "\udcff", "\0"],
    ids=["empty", "list", "object", "text", "error", "deep", "number", "surrogate", "zero"],
)
def test_file_that_describes_no_pod_is_an_error_that_names_it(
    isolated_env: IsolatedEnv, tmp_path: Path, text: str
) -> None:
    pod = tmp_path / "pod.json"
    pod.write_bytes(text.encode(errors="surrogateescape"))
    answer = command("explain", "--as", str(pod))
    assert answer.exit_code == command("explain", "--as", str(tmp_path / "missing")).exit_code == 2
    assert str(pod) in answer.stderr
    assert "info --json" in answer.stderr


def test_description_whose_key_does_not_fit_is_an_error(isolated_env: IsolatedEnv, tmp_path: Path) -> None:
    pod = describe(tmp_path / "pod.json", environment_id="0" * 32)
    answer = command("explain", "--as", str(pod))
    assert answer.exit_code == 2
    assert "0" * 32 in answer.stderr
