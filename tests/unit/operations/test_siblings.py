"""A pod whose environment has nothing restores GPU code from pods with another CPU."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from b10_transfer import OperationStatus, load, save
from b10_transfer.adapters import Adapter, find_adapter
from b10_transfer.config.launcher import LauncherConfig
from b10_transfer.environment import detect
from b10_transfer.launcher.supervisor import Supervisor
from b10_transfer.operations.session import Place, session
from b10_transfer.repository.signing import SigningKey
from tests.command import Publisher, command, pod_like_this
from tests.conftest import Files, FillTree, IsolatedEnv, ReadTree
from tests.shapes import ARTIFACTS, KERNEL, elf_header, tree
from tests.unit.adapters.test_depends_on_host import FREE

GPU, HOST = elf_header(190), elf_header(62)
GROUP = b'{"child_paths": {"k.cubin": "k.cubin", "k.json": "k.json"}}'
KERNEL_FILES = {"k.cubin": GPU, "k.json": b"{}", "__grp__k.json": GROUP}
UNITS: dict[str, Files] = {
    f"triton/{KERNEL}/": KERNEL_FILES,
    "triton/HELPER/": {"launcher.so": HOST},
    "inductor/fxgraph/ke/fkey/": {"graph": b"a graph"},
}
OTHER_CPU = {"cpu_features": "avx sse2"}


class EndedServer:
    """A server that has ended. All that is known of it is that."""

    def is_alive(self) -> bool:
        return False

    def serves(self) -> bool | None:
        return None

    def environment(self) -> Mapping[str, str]:
        return {}

    def started_ns(self) -> int | None:
        return None


@pytest.fixture
def sibling(isolated_env: IsolatedEnv) -> Publisher:
    """A pod with another CPU, which has saved a kernel, a launcher and a graph."""
    publisher = Publisher(isolated_env.store, pod_like_this(**OTHER_CPU))
    publisher.publish(UNITS)
    return publisher


def test_only_gpu_code_is_restored_and_the_next_save_publishes_everything(
    sibling: Publisher, isolated_env: IsolatedEnv, read_tree: ReadTree
) -> None:
    report = load()
    assert report.status is OperationStatus.SUCCESS
    assert report.siblings == (sibling.environment.id,)
    expected = f"restored 1 unit of {sibling.environment.id[:12]} (another CPU or C library)"
    assert report.partial == f"no environment equals this pod's; {expected}"
    assert len(list(sibling.folder.glob("used/*"))) == 1
    assert report.restored == (f"triton/{KERNEL}",)
    assert read_tree(isolated_env.triton).keys() == {f"{KERNEL}/{name}" for name in KERNEL_FILES}
    assert not isolated_env.inductor.exists()

    isolated_env.fill(isolated_env.inductor, {"fxgraph/ke/fkey/graph": b"of this CPU"})
    assert save().units == 2
    shutil.rmtree(isolated_env.triton)
    shutil.rmtree(isolated_env.inductor)
    again = load()
    assert (again.units, again.siblings, again.partial) == (2, (), "")
    assert again.environment_id == detect().id


def test_switched_off_it_is_a_miss(sibling: Publisher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("B10_SIBLINGS", "0")
    assert load().status is OperationStatus.DOES_NOT_EXIST
    assert command("explain", "--json").json["load"]["status"] == "DOES_NOT_EXIST"


def test_only_a_cold_start_looks(
    sibling: Publisher, isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    Publisher(isolated_env.store, detect()).publish({f"triton/{KERNEL}/": KERNEL_FILES})
    monkeypatch.setattr("b10_transfer.operations.load.read_siblings", lambda *_: pytest.fail("it looked"))
    assert load().siblings == ()
    assert load().status is OperationStatus.SKIPPED


@pytest.mark.parametrize(
    ("parts", "units"),
    [
        ({"libc": "glibc 2.17"}, 1),
        ({"libc": "glibc 2.17", "cpu_features": ""}, 1),
        ({"device": "NVIDIA H900"}, 0),
        ({"triton": "1.0", **OTHER_CPU}, 0),
        ({"machine": "riscv64", **OTHER_CPU}, 0),
        ({"another part": "x", **OTHER_CPU}, 0),
    ],
)
def test_siblings_differ_only_in_cpu_and_c_library(
    isolated_env: IsolatedEnv, parts: dict[str, str], units: int
) -> None:
    publisher = Publisher(isolated_env.store, pod_like_this(**parts))
    publisher.publish(UNITS)
    assert load().units == units


def test_several_siblings_are_taken_together_and_the_newest_unit_counts(
    sibling: Publisher, isolated_env: IsolatedEnv
) -> None:
    other = Publisher(isolated_env.store, pod_like_this(libc="glibc 2.99"))
    other.publish({f"triton/{KERNEL}/": {**KERNEL_FILES, "k.json": b'{"later": 1}'}, "triton/OTHER/": KERNEL_FILES})
    report = load()
    assert set(report.restored) == {f"triton/{KERNEL}", "triton/OTHER"}
    assert (isolated_env.triton / KERNEL / "k.json").read_bytes() == b'{"later": 1}'


def test_recalled_pack_of_a_sibling_does_not_count(sibling: Publisher) -> None:
    [pack] = (sibling.folder / "packs").iterdir()
    (sibling.folder / "recalled").mkdir()
    (sibling.folder / "recalled" / pack.name.removesuffix(".tar.zst")).write_text("{}")
    assert load().status is OperationStatus.DOES_NOT_EXIST


def test_pack_of_a_sibling_that_no_trusted_key_has_signed_does_not_count(
    sibling: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("B10_TRUSTED_KEYS", SigningKey.generate().public_text())
    assert load().status is OperationStatus.DOES_NOT_EXIST


def test_limits_of_a_load_apply(sibling: Publisher, monkeypatch: pytest.MonkeyPatch) -> None:
    sibling.publish({"triton/LARGE/": {**KERNEL_FILES, "k.ptx": bytes(3 << 20)}})
    monkeypatch.setenv("B10_MAX_RESTORE_MB", "2")
    assert load().restored == (f"triton/{KERNEL}",)


@pytest.mark.parametrize("cache", ARTIFACTS)
def test_no_hostile_writer_places_code_for_a_cpu(
    cache: str,
    isolated_env: IsolatedEnv,
    fill: FillTree,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Each file of each cache is a library for a CPU, whatever its name says."""
    monkeypatch.setenv("PYTORCH_TUNABLEOP_FILENAME", str(isolated_env.home / "tuning" / "tunableop.csv"))
    for variable in ("FLASHINFER_AUTOTUNE_DIR", "FLASHINFER_AUTOTUNE_CACHE_DIR"):
        monkeypatch.setenv(variable, str(isolated_env.home / variable))
    adapter = find_adapter(cache)
    assert adapter is not None
    units: dict[tuple[str, str], dict[str, bytes]] = {}
    source = isolated_env.home / "source"
    fill(source, tree(cache))
    for path in ARTIFACTS[cache]:
        unit = adapter.unit_of(path)
        assert unit is not None
        is_rewritten = adapter.is_rewritten(path)  # a load refuses the whole pack if it is not what the compiler writes
        content = to_portable(adapter, source, path) if is_rewritten else HOST
        units.setdefault((f"{cache}/{unit.path}", unit.kind.value), {})[f"{cache}/{path}"] = content
    publisher = Publisher(isolated_env.store, pod_like_this(**OTHER_CPU))
    publisher.publish_pack(publisher.write_units(units))
    report = load()
    assert report.status in (OperationStatus.DOES_NOT_EXIST, OperationStatus.SUCCESS), report.reason
    shutil.rmtree(source)
    restored = [file for file in isolated_env.home.rglob("*") if file.is_file()]
    assert not [file for file in restored if file.read_bytes().startswith(b"\x7fELF")]
    # Settings are taken apart, so they hold none. The other cache is not restored.
    is_checked = cache in FREE and not adapter.accompanies and cache not in ("flashinfer_knobs", "flashinfer_v2")
    assert ("holds code for a CPU" in caplog.text) == is_checked


def to_portable(adapter: Adapter, root: Path, path: str) -> bytes:
    files = ARTIFACTS[adapter.name]
    if adapter.accompanies or "knob" in path:  # to save it takes an installed vLLM or FlashInfer
        return files[path]
    return adapter.to_portable(root, path, files[path], files)


@pytest.mark.parametrize(
    "description",
    [
        b"",
        b"[]",
        b'{"parts": ' * 5000,
        b'{"parts": {}}',
        b"\xff",
    ],
)
def test_description_that_is_not_as_savers_write_it_is_no_siblings(sibling: Publisher, description: bytes) -> None:
    (sibling.folder / "environment.json").write_bytes(description)
    assert load().status is OperationStatus.DOES_NOT_EXIST


def test_environment_cannot_pretend_to_be_a_sibling(isolated_env: IsolatedEnv) -> None:
    """Its description names this pod's parts, but its id is that of another device."""
    publisher = Publisher(isolated_env.store, pod_like_this(device="NVIDIA H900"))
    publisher.publish(UNITS)
    parts = dict(pod_like_this(**OTHER_CPU).parts)
    text = json.dumps({"id": publisher.environment.id, "parts": parts}, indent=2, sort_keys=True)
    (publisher.folder / "environment.json").write_text(f"{text}\n")
    assert load().status is OperationStatus.DOES_NOT_EXIST


def test_damaged_pack_of_a_sibling_is_a_miss_and_marks_nothing(sibling: Publisher, isolated_env: IsolatedEnv) -> None:
    [pack] = (sibling.folder / "packs").iterdir()
    data = bytearray(pack.read_bytes())
    data[40] ^= 1
    pack.chmod(0o644)
    pack.write_bytes(data)
    assert load().status is OperationStatus.DOES_NOT_EXIST
    assert not list(isolated_env.store.rglob("*.suspect"))
    assert not isolated_env.triton.exists()


def test_explain_says_what_would_be_restored(sibling: Publisher) -> None:
    answer = command("explain")
    found = f"1 unit of {sibling.environment.id[:12]} (another CPU or C library)"
    assert answer.stdout.startswith(f"MISS: no environment equals this pod's; {found} would be restored\n")
    assert answer.exit_code == 3


def test_pod_that_others_wait_for_restores_gpu_code_and_keeps_the_lease(
    sibling: Publisher, isolated_env: IsolatedEnv
) -> None:
    report = load(wait_for_compile_s=30)
    assert report.restored == (f"triton/{KERNEL}",)
    assert session.holds_lease(Place(str(isolated_env.store), "default", report.environment_id))
    assert save().status is OperationStatus.SUCCESS
    assert not session.has_leases


def test_server_of_such_a_pod_compiles_so_that_it_is_no_hit_and_everything_is_saved(
    sibling: Publisher, isolated_env: IsolatedEnv
) -> None:
    supervisor = Supervisor(LauncherConfig.from_environment())
    assert supervisor.load().siblings
    assert "another CPU" in supervisor.miss
    supervisor.last_save(EndedServer())
    assert load().siblings == ()
    assert len(list(isolated_env.store.glob(f"v1/default/{detect().id}/packs/*"))) == 1
