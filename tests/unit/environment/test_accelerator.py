"""The accelerator, with drivers that are made up."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from b10_transfer.environment import accelerator, imported_torch
from b10_transfer.environment.accelerator import CPU, Accelerator, detect
from b10_transfer.environment.frameworks import TorchBuild

if TYPE_CHECKING:
    from tests.conftest import FillTree

CUDA = TorchBuild("2.13.0+cu130", cuda="13.0")
ROCM = TorchBuild("2.13.0+rocm7.0", hip="7.0")


class NVMLError(Exception):
    pass


@dataclass(frozen=True)
class Device:
    name: str
    uuid: str
    capability: tuple[int, int]


H100 = Device("NVIDIA H100 80GB HBM3", "GPU-aaaa1111-0000", (9, 0))
OTHER_H100 = Device("NVIDIA H100 80GB HBM3", "GPU-aaaa2222-0000", (9, 0))
A10 = Device("NVIDIA A10G", "GPU-bbbb1111-0000", (8, 6))
SLICE = Device("NVIDIA H100 80GB HBM3 MIG 1g.10gb", "MIG-cccc1111-0000", (9, 0))


@dataclass
class Driver:
    """Stands for the module pynvml."""

    devices: list[Device]
    slices: list[Device] = field(default_factory=list)
    is_loaded: bool = True
    users: int = 0
    as_bytes: bool = False
    NVMLError: type[Exception] = NVMLError

    def text(self, value: str) -> str | bytes:
        return value.encode() if self.as_bytes else value

    def nvmlInit(self) -> None:  # noqa: N802
        if not self.is_loaded:
            raise NVMLError("Driver Not Loaded")
        self.users += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.users -= 1

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self.devices)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Device:  # noqa: N802
        if index >= len(self.devices):
            raise NVMLError("Invalid Argument")
        return self.devices[index]

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> Device:  # noqa: N802
        for device in [*self.devices, *self.slices]:
            if device.uuid == uuid:
                return device
        raise NVMLError("Not Found")

    def nvmlDeviceGetUUID(self, device: Device) -> str | bytes:  # noqa: N802
        return self.text(device.uuid)

    def nvmlDeviceGetName(self, device: Device) -> str | bytes:  # noqa: N802
        return self.text(device.name)

    def nvmlDeviceGetCudaComputeCapability(self, device: Device) -> tuple[int, int]:  # noqa: N802
        return device.capability

    def nvmlSystemGetDriverVersion(self) -> str | bytes:  # noqa: N802
        return self.text("580.65.06")


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Driver]:
    """Puts a driver in place of NVIDIA's."""

    def install(*devices: Device, **options: Any) -> Driver:
        made = Driver(list(devices), **options)
        monkeypatch.setitem(sys.modules, "pynvml", made)
        return made

    return install


Install = Callable[..., Driver]


def test_cuda_device_is_named_with_its_capability(driver: Install) -> None:
    driver(H100)
    assert detect(CUDA, {}) == Accelerator("cuda", "NVIDIA H100 80GB HBM3", "9.0", "13.0", "580.65.06")


def test_older_nvml_answers_in_bytes(driver: Install) -> None:
    driver(H100, as_bytes=True)
    assert detect(CUDA, {"CUDA_VISIBLE_DEVICES": "GPU-aaaa"}).name == "NVIDIA H100 80GB HBM3"


def test_number_of_equal_devices_does_not_matter(driver: Install) -> None:
    driver(H100)
    one = detect(CUDA, {})
    driver(H100, OTHER_H100)
    assert detect(CUDA, {}) == one


def test_different_devices_are_all_named_in_one_order(driver: Install) -> None:
    driver(H100, A10, OTHER_H100)
    found = detect(CUDA, {})
    assert (found.name, found.capability) == ("NVIDIA A10G, NVIDIA H100 80GB HBM3", "8.6, 9.0")
    driver(A10, H100)
    assert detect(CUDA, {}) == found


@pytest.mark.parametrize(
    ("visible", "names"),
    [
        ("0", {"NVIDIA H100 80GB HBM3"}),
        ("1", {"NVIDIA A10G"}),
        (" 1 ", {"NVIDIA A10G"}),
        ("0,1", {"NVIDIA H100 80GB HBM3", "NVIDIA A10G"}),
        ("1, 0", {"NVIDIA H100 80GB HBM3", "NVIDIA A10G"}),
        ("1,-1,0", {"NVIDIA A10G"}),
        ("1,7,0", {"NVIDIA A10G"}),
        ("1,nonsense,0", {"NVIDIA A10G"}),
        ("GPU-bbbb1111-0000", {"NVIDIA A10G"}),
        ("GPU-bbbb", {"NVIDIA A10G"}),
        ("GPU-aaaa", {"NVIDIA H100 80GB HBM3"}),
        ("GPU-bbbb,GPU-aaaa", {"NVIDIA H100 80GB HBM3", "NVIDIA A10G"}),
        ("MIG-cccc1111-0000", {"NVIDIA H100 80GB HBM3 MIG 1g.10gb"}),
    ],
)
def test_only_visible_devices_count(driver: Install, visible: str, names: set[str]) -> None:
    driver(H100, A10, slices=[SLICE])
    found = detect(CUDA, {"CUDA_VISIBLE_DEVICES": visible, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"})
    assert found.kind == "cuda"
    assert set(found.name.split(", ")) == names


@pytest.mark.parametrize("visible", ["", "-1", "-1,0", "7", "nonsense", "GPU-ffff", "MIG-ffff", "NoDevFiles", "٠"])
def test_no_visible_device_is_a_cpu(driver: Install, visible: str) -> None:
    driver(H100)
    assert detect(CUDA, {"CUDA_VISIBLE_DEVICES": visible, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}) == CPU


def test_missing_driver_is_a_cpu(driver: Install) -> None:
    driver(is_loaded=False)
    assert detect(CUDA, {}) == CPU


def test_machine_without_devices_is_a_cpu(driver: Install) -> None:
    driver()
    assert detect(CUDA, {}) == CPU


@pytest.mark.parametrize("visible", ["0", "-1", "7", "GPU-aaaa"])
def test_nvml_is_shut_down_as_often_as_it_is_started(driver: Install, visible: str) -> None:
    made = driver(H100)
    detect(CUDA, {"CUDA_VISIBLE_DEVICES": visible, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"})
    assert made.users == 0


def test_variables_come_from_the_process_by_default(driver: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    driver(H100)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert detect(CUDA) == CPU


@pytest.mark.parametrize("build", [TorchBuild(), TorchBuild("2.13.0+cpu")], ids=["no torch", "torch for CPUs"])
def test_device_that_torch_was_not_built_for_does_not_count(monkeypatch: pytest.MonkeyPatch, build: TorchBuild) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)  # importing it would be an error
    assert detect(build, {}) == CPU


NODES = {
    "nodes/0/properties": b"cpu_cores_count 96\nsimd_count 0\ngfx_target_version 0\n",
    "nodes/0/name": b"\n",
    "nodes/1/properties": b"cpu_cores_count 0\nsimd_count 1216\ngfx_target_version 90402\n",
    "nodes/1/name": b"ip discovery\n",
}


def rocm(tmp_path: Path) -> Accelerator:
    return accelerator._rocm(ROCM, tmp_path / "nodes")


def test_rocm_device_is_found_in_the_drivers_topology(tmp_path: Path, fill: FillTree) -> None:
    fill(tmp_path, NODES)
    assert rocm(tmp_path) == Accelerator("rocm", "ip discovery", "gfx942", "7.0")


@pytest.mark.parametrize(
    ("version", "target"),
    [
        (90402, "gfx942"),
        (90010, "gfx90a"),
        (90012, "gfx90c"),
        (110000, "gfx1100"),
        (100302, "gfx1032"),
        (120001, "gfx1201"),
    ],
)
def test_rocm_targets_are_named_as_the_compiler_names_them(
    tmp_path: Path, fill: FillTree, version: int, target: str
) -> None:
    fill(tmp_path, {**NODES, "nodes/1/properties": b"gfx_target_version %d\n" % version})
    assert rocm(tmp_path).capability == target


def test_several_rocm_devices_are_all_named(tmp_path: Path, fill: FillTree) -> None:
    more = {"nodes/2/properties": b"gfx_target_version 110000\n", "nodes/2/name": b"navi31\n"}
    fill(tmp_path, {**NODES, **more})
    assert rocm(tmp_path) == Accelerator("rocm", "ip discovery, navi31", "gfx1100, gfx942", "7.0")


@pytest.mark.parametrize(
    "nodes",
    [
        {},
        {"nodes/0/properties": NODES["nodes/0/properties"]},
        {"nodes/0/properties": b""},
        {"nodes/0/properties": b"gfx_target_version soon\n"},
        {"nodes/0/properties": b"gfx_target_version 90402\n"},
        {"nodes/0/properties": b"\xff\xfe gfx\n"},
    ],
    ids=["no driver", "CPU alone", "empty", "no number", "no name", "no text"],
)
def test_topology_without_a_readable_device_is_a_cpu(tmp_path: Path, fill: FillTree, nodes: dict[str, bytes]) -> None:
    fill(tmp_path, nodes)
    found = rocm(tmp_path)
    assert found == CPU or (found.capability, found.name) == ("gfx942", "")


def test_torch_is_queried_for_intel_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imported_torch, "xpu_device", lambda: "Intel(R) Data Center GPU Max 1550")
    found = detect(TorchBuild("2.13.0+xpu", xpu="20250101"), {})
    assert found == Accelerator("xpu", "Intel(R) Data Center GPU Max 1550", toolkit="20250101")


def test_machine_without_intel_devices_is_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imported_torch, "xpu_device", lambda: "")
    assert detect(TorchBuild("2.13.0+xpu", xpu="20250101"), {}) == CPU


def test_number_names_no_device_among_different_ones_unless_cuda_goes_by_the_bus(driver: Install) -> None:
    """CUDA numbers the fastest first, NVML by bus: device 0 may be either, so the key names both."""
    driver(H100, A10)
    assert set(detect(CUDA, {"CUDA_VISIBLE_DEVICES": "0"}).name.split(", ")) == {"NVIDIA A10G", "NVIDIA H100 80GB HBM3"}
