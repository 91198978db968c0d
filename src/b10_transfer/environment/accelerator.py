"""Detects the accelerator that torch would use: CUDA devices by NVML, ROCm devices by sysfs, others by torch itself."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from . import cuda
from .frameworks import TorchBuild
from .key import Remark

DEVICES = Path("/dev")
_INTEL = "0x8086"


@dataclass(frozen=True)
class Accelerator:
    """The devices that this process may use. Different devices are all named, in sorted order."""

    kind: str
    """``cuda``, ``rocm``, ``xpu`` or ``cpu``."""
    name: str = ""
    capability: str = ""
    """CUDA: ``9.0``. ROCm: ``gfx942``."""
    toolkit: str = ""
    """Version of CUDA or ROCm that torch was built with."""
    driver: str = ""
    remarks: tuple[Remark, ...] = field(default=(), compare=False)


CPU = Accelerator("cpu")


def detect(torch: TorchBuild, environ: Mapping[str, str] | None = None) -> Accelerator:
    """Detect what ``torch.accelerator`` would find.

    Args:
        torch: The build of torch. A device that torch was not built for is ignored.
        environ: The variables. Default: those of this process.
    """
    environ = os.environ if environ is None else environ
    if torch.cuda:
        return _cuda(torch, environ)
    if torch.hip:
        return _rocm(torch, environ=environ)
    if torch.xpu:
        return _xpu(torch)
    return CPU


def _cuda(torch: TorchBuild, environ: Mapping[str, str]) -> Accelerator:
    if cuda.hides_every_device(environ):
        return CPU
    found = cuda.find(environ)
    if found.devices:
        return Accelerator(
            "cuda",
            name=_distinct(device.name for device in found.devices),
            capability=_distinct(device.capability for device in found.devices),
            toolkit=torch.cuda,
            driver=found.driver,
            remarks=tuple(
                Remark(logging.WARNING, reason, "The key names this pod's other devices only; check this one")
                for reason in found.unusable
            ),
        )
    files = _device_files("nvidia[0-9]*")
    if found.unusable or (found.reason and files):
        why = "; ".join(found.unusable) or found.reason
        return _unidentified(
            files or "NVIDIA devices",
            f"NVML cannot identify them ({why})",
            "Give the container the driver's libnvidia-ml.so.1: set NVIDIA_DRIVER_CAPABILITIES=compute,utility. "
            "If this pod does not use its GPU, set CUDA_VISIBLE_DEVICES=-1",
        )
    if not found.reason:  # CUDA_VISIBLE_DEVICES names missing devices: torch finds none either
        return CPU
    asked_for = environ.get("NVIDIA_VISIBLE_DEVICES", "") not in ("", "none", "void")
    return _no_device(
        f"CUDA {torch.cuda}", "/dev/nvidia*", "nvidia.com/gpu", logging.WARNING if asked_for else logging.INFO
    )


def _rocm(
    torch: TorchBuild,
    topology: Path = Path("/sys/class/kfd/kfd/topology/nodes"),
    environ: Mapping[str, str] | None = None,
) -> Accelerator:
    """Read the kernel driver's topology: ``gfx_target_version`` 90402 means gfx942, and 0 a CPU node."""
    capabilities, names = set(), set()
    for node in sorted(topology.glob("*")):
        try:
            properties = dict(
                line.split(None, 1) for line in (node / "properties").read_text().splitlines() if " " in line
            )
            target = int(properties.get("gfx_target_version", "0"))
            if target:
                capabilities.add(f"gfx{target // 10000}{target // 100 % 100:x}{target % 100:x}")
                names.add((node / "name").read_text().strip())
        except (OSError, ValueError):  # a node that this container may not read
            continue
    if capabilities:
        return Accelerator("rocm", name=_distinct(names), capability=_distinct(capabilities), toolkit=torch.hip)
    hiding = ("HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES")
    if any((environ or {}).get(name) in ("", "-1") for name in hiding):
        return CPU
    if files := _device_files("kfd"):
        return _unidentified(
            files,
            f"{topology} lists no device",
            "Give the container /dev/kfd and its render nodes in /dev/dri, and /sys as the kernel shows it. "
            "If this pod does not use its GPU, set HIP_VISIBLE_DEVICES=-1",
        )
    return _no_device(f"ROCm {torch.hip}", "/dev/kfd", "amd.com/gpu")


def _xpu(torch: TorchBuild) -> Accelerator:
    from .imported_torch import xpu_device  # nothing lighter can query an Intel driver

    try:
        name, why = xpu_device(), "torch finds no device"
    except Exception as error:  # noqa: BLE001 - torch's libraries may fail to load in any way
        name, why = "", f"torch failed: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
    if name:
        return Accelerator("xpu", name=name, toolkit=torch.xpu)
    if files := _device_files("dri/renderD*", _INTEL):
        return _unidentified(
            files,
            why,
            "Give the container Intel's compute runtime (libze1, intel-opencl-icd or libze-intel-gpu1) and access to "
            "the files. If this pod does not use its GPU, do not mount /dev/dri",
        )
    return _no_device(f"XPU {torch.xpu}", "/dev/dri/renderD*", "gpu.intel.com/i915 or gpu.intel.com/xe")


def _device_files(pattern: str, vendor: str = "") -> str:
    """The device files that match a pattern, of one vendor if given; empty if there is none."""
    found = [path for path in sorted(DEVICES.glob(pattern)) if not vendor or _vendor(path) == vendor]
    return ", ".join(map(str, found))


def _vendor(render_node: Path) -> str:
    try:
        return Path("/sys/class/drm", render_node.name, "device", "vendor").read_text().strip()
    except OSError:
        return ""


def _unidentified(files: str, why: str, advice: str) -> Accelerator:
    seen = f"this pod has {files}, but {why}. Its key would say cpu, so nothing is loaded or saved"
    return Accelerator("cpu", remarks=(Remark(logging.ERROR, seen, advice),))


def _no_device(built_for: str, files: str, resource: str, level: int = logging.INFO) -> Accelerator:
    seen = f"torch is built for {built_for}, but this pod has no {files}: its key says cpu"
    advice = f"If the server uses a GPU, give this container a GPU, too (resource {resource})"
    return Accelerator("cpu", remarks=(Remark(level, seen, advice),))


def _distinct(values: Iterable[str]) -> str:
    return ", ".join(sorted(set(values)))
