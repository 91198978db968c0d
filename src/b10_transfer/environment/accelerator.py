"""The accelerator that torch would use: CUDA devices by NVML, ROCm ones by sysfs, others by asking torch itself."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .frameworks import TorchBuild


@dataclass(frozen=True)
class Accelerator:
    """Facts about the devices this process may use. Several different devices are all named, in sorted order."""

    kind: str
    """``cuda``, ``rocm``, ``xpu`` or ``cpu``."""
    name: str = ""
    capability: str = ""
    """CUDA: ``9.0``. ROCm: ``gfx942``."""
    toolkit: str = ""
    """Version of CUDA or ROCm that torch was built with."""
    driver: str = ""


CPU = Accelerator("cpu")


def detect(torch: TorchBuild, environ: Mapping[str, str] | None = None) -> Accelerator:
    """What ``torch.accelerator`` would find. A device that torch was not built for does not count."""
    environ = os.environ if environ is None else environ
    if torch.cuda:
        return _cuda(torch, environ)
    if torch.hip:
        return _rocm(torch)
    if torch.xpu:
        from .imported_torch import xpu_device  # there is no light-weight way to ask an Intel driver

        name = xpu_device()
        return Accelerator("xpu", name=name, toolkit=torch.xpu) if name else CPU
    return CPU


def _cuda(torch: TorchBuild, environ: Mapping[str, str]) -> Accelerator:
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:  # no driver: torch.cuda.is_available() is False as well
        return CPU
    try:
        devices = list(_visible_devices(pynvml, environ))
        if not devices:
            return CPU
        return Accelerator(
            "cuda",
            name=_distinct(_text(pynvml.nvmlDeviceGetName(device)) for device in devices),
            capability=_distinct(
                "{}.{}".format(*pynvml.nvmlDeviceGetCudaComputeCapability(device)) for device in devices
            ),
            toolkit=torch.cuda,
            driver=_text(pynvml.nvmlSystemGetDriverVersion()),
        )
    finally:
        pynvml.nvmlShutdown()


def _visible_devices(pynvml: Any, environ: Mapping[str, str]) -> Iterable[Any]:
    """Handles of the devices that CUDA shows to this process; the first entry that means nothing ends the list."""
    every = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        yield from every
        return
    # CUDA numbers the fastest device first unless told otherwise, NVML goes by the bus. Among different devices a
    # number then says nothing: all of them are named.
    names = {_text(pynvml.nvmlDeviceGetName(device)) for device in every}
    numbers_agree = len(names) == 1 or environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID"
    for entry in (entry.strip() for entry in visible.split(",")):
        if re.fullmatch(r"\d+", entry, re.ASCII):
            if int(entry) >= len(every):
                return
            yield from [every[int(entry)]] if numbers_agree else every
        elif entry.startswith(("GPU-", "MIG-")):
            try:
                yield _by_uuid(pynvml, entry)
            except pynvml.NVMLError:
                return
        else:
            return


def _by_uuid(pynvml: Any, prefix: str) -> Any:
    """CUDA accepts any unambiguous beginning of a GPU's UUID, NVML only the whole."""
    if prefix.startswith("GPU-"):
        for index in range(pynvml.nvmlDeviceGetCount()):
            device = pynvml.nvmlDeviceGetHandleByIndex(index)
            if _text(pynvml.nvmlDeviceGetUUID(device)).startswith(prefix):
                return device
    return pynvml.nvmlDeviceGetHandleByUUID(prefix)


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _distinct(values: Iterable[str]) -> str:
    return ", ".join(sorted(set(values)))


def _rocm(torch: TorchBuild, topology: Path = Path("/sys/class/kfd/kfd/topology/nodes")) -> Accelerator:
    """Read the kernel driver's topology: ``gfx_target_version`` 90402 is gfx942, 0 a CPU node."""
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
        except (OSError, ValueError):  # a node that this container may not see
            continue
    if not capabilities:
        return CPU
    return Accelerator("rocm", name=_distinct(names), capability=_distinct(capabilities), toolkit=torch.hip)
