"""What vLLM knows of model classes travels with what it has compiled, and to the same version of vLLM only."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from b10_transfer import OperationStatus, cache_report, load, save
from b10_transfer.adapters.base import Unit, UnitKind
from b10_transfer.adapters.vllm_modelinfos import VllmModelInfosAdapter
from tests.conftest import IsolatedEnv

LLAMA = "vllm-model_executor-models-llama-LlamaForCausalLM.json"
QWEN = "vllm-model_executor-models-qwen3-Qwen3ForCausalLM.json"
MODEL = {"torch_compile_cache/torch_aot_compile/abc/rank_0_0/model": b"all graphs"}
OTHER_MODEL = {"torch_compile_cache/torch_aot_compile/def/rank_0_0/model": b"other graphs"}


def info(source_hash: str = "0f0f", **facts: object) -> bytes:
    """As vLLM 0.32 writes it."""
    known = {"architecture": "LlamaForCausalLM", "supports_pp": True, "supported_video_pruning_methods": [], **facts}
    return json.dumps({"hash": source_hash, "modelinfo": known}, indent=2).encode()


class Machine:
    """A pod with some vLLM installed. ``root`` is VLLM_CACHE_ROOT."""

    def __init__(self, env: IsolatedEnv, packages: Path) -> None:
        self.root = env.home / ".cache" / "vllm"
        self._env = env
        self._packages = packages
        self.installs("0.32.0")

    def installs(self, version: str) -> None:
        (self._packages / "vllm").mkdir(parents=True, exist_ok=True)
        (self._packages / "vllm" / "__init__.py").write_text("raise AssertionError('it must not be imported')")
        version_file = f"__version__: str\nversion: str\n\n__version__ = version = {version!r}\n"
        (self._packages / "vllm" / "_version.py").write_text(version_file)

    def holds(self, *models: dict[str, bytes], **infos: bytes) -> None:
        for files in models:
            self._env.fill(self.root, files)
        self._env.fill(
            self.root / "modelinfos", {{"llama": LLAMA, "qwen": QWEN}[name]: data for name, data in infos.items()}
        )

    def is_another(self) -> None:
        """A new replica: nothing is left but the store."""
        self.root.rename(self.root.with_name(f"earlier-{self.root.stat().st_ino}"))

    def reads(self, name: str = LLAMA) -> dict[str, object]:
        found = json.loads((self.root / "modelinfos" / name).read_bytes())
        assert isinstance(found, dict)
        return found


@pytest.fixture
def machine(isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    monkeypatch.syspath_prepend(tmp_path / "packages")
    monkeypatch.setattr("b10_transfer.stores.worker.client.is_local", lambda _path: True)
    return Machine(isolated_env, tmp_path / "packages")


def packs(env: IsolatedEnv) -> int:
    return len(list(env.store.glob("v1/*/*/packs/*")))


def test_file_goes_along_with_what_was_compiled(machine: Machine) -> None:
    machine.holds(MODEL, llama=info())
    assert save().units == 2
    machine.is_another()
    assert load().status is OperationStatus.SUCCESS
    assert machine.reads() == json.loads(info())


def test_file_alone_is_no_cache_that_a_load_would_spare(machine: Machine) -> None:
    machine.holds(MODEL, llama=info())
    save()
    machine.is_another()
    machine.holds(llama=info("of this pod"))
    report = load()
    assert (report.status, report.restored) == (OperationStatus.SUCCESS, ("vllm/torch_aot_compile/abc/rank_0_0",))
    assert machine.reads()["hash"] == "of this pod"


def test_pod_that_has_compiled_gets_no_file_by_itself(machine: Machine) -> None:
    machine.holds(MODEL, llama=info())
    save()
    (machine.root / "modelinfos" / LLAMA).unlink()
    assert load().status is OperationStatus.SKIPPED
    assert not (machine.root / "modelinfos" / LLAMA).exists()
    assert load(merge=True).restored == (f"vllm_modelinfos/{LLAMA}",)


def test_file_alone_is_not_worth_a_save(machine: Machine, isolated_env: IsolatedEnv) -> None:
    machine.holds(llama=info())
    assert save().status is OperationStatus.SKIPPED
    assert packs(isolated_env) == 0
    machine.holds(MODEL)
    assert save().units == 2
    machine.holds(qwen=info())
    for _ in range(2):
        assert save().status is OperationStatus.SKIPPED
    machine.holds(OTHER_MODEL)
    assert save().units == 2
    assert packs(isolated_env) == 2


def test_to_another_version_it_travels_as_one_that_is_out_of_date(machine: Machine) -> None:
    machine.holds(MODEL, llama=info())
    save()
    machine.is_another()
    machine.installs("0.33.0")
    assert load().status is OperationStatus.SUCCESS
    assert machine.reads() == json.loads(info(source_hash=""))


def test_what_another_version_has_made_of_it_is_saved_with_what_that_compiles(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("b10_transfer.repository.union.Union.settled", lambda union: set(union.units))
    machine.holds(MODEL, llama=info())
    save()
    machine.installs("0.33.0")
    machine.holds(llama=info(supports_pp=False))
    assert save().status is OperationStatus.SKIPPED
    machine.holds(OTHER_MODEL)
    assert save().units == 2
    machine.is_another()
    load()
    assert machine.reads() == json.loads(info(supports_pp=False))


def test_where_no_vllm_is_installed_it_stays_behind(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    machine.holds(MODEL, llama=info())
    report = save()
    assert (report.units, report.left_for_next_save) == (1, 1)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"hash": "0f"}', b"\xff", b"[" * 100_000])
def test_file_that_is_not_as_vllm_writes_it_stays_behind(machine: Machine, data: bytes) -> None:
    machine.holds(MODEL, llama=data)
    report = save()
    assert (report.units, report.left_for_next_save) == (1, 1)


@pytest.mark.parametrize(
    "path", ["my_plugin-models-Mine.json", f"{LLAMA}.tmp", f"below/{LLAMA}", "vllm-x.txt", "vllm-.json.lock"]
)
def test_other_files_do_not_travel(path: str) -> None:
    assert VllmModelInfosAdapter().unit_of(path) is None


def test_unit_is_one_file() -> None:
    assert VllmModelInfosAdapter().unit_of(LLAMA) == Unit(LLAMA, UnitKind.STEM)


def test_proof_speaks_of_what_was_compiled(machine: Machine) -> None:
    machine.holds(MODEL, llama=info())
    save()
    machine.is_another()
    load()
    (machine.root / "modelinfos" / LLAMA).read_bytes()
    assert [cache.cache for cache in cache_report().caches] == ["vllm"]
    assert "1 unit was restored and not used" in cache_report().warning
