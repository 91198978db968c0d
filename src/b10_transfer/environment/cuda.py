"""Queries NVML for the NVIDIA devices that CUDA shows to this process."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ..concurrency.forks import ForkGuard

_asking = ForkGuard()
"""Held while NVML is imported and queried: both hold locks."""
_NO_PERMISSION = 4
"""``NVML_ERROR_NO_PERMISSION``: this container may not use the device. CUDA does not show it either."""


class Device(NamedTuple):
    """A device that could be queried."""

    name: str
    capability: str
    uuid: str


@dataclass
class Found:
    """The visible devices, as NVML reports them."""

    devices: list[Device] = field(default_factory=list)
    unusable: list[str] = field(default_factory=list)
    """One line for each visible device that cannot be queried."""
    driver: str = ""
    reason: str = ""
    """Why there is no device at all; empty if there is one, or if CUDA_VISIBLE_DEVICES hides all."""


def hides_every_device(environ: Mapping[str, str]) -> bool:
    """Whether CUDA_VISIBLE_DEVICES hides every device: the first entry of its list is not valid."""
    entry = environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0].strip()
    return not _is_number(entry) and not entry.startswith(("GPU-", "MIG-"))


def find(environ: Mapping[str, str]) -> Found:
    """Query NVML for the devices that CUDA shows to this process.

    Args:
        environ: The variables of the process.
    """
    with _asking:
        return _find(environ)


def _find(environ: Mapping[str, str]) -> Found:
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:  # no driver: torch.cuda.is_available() is False, too
        return Found(reason=str(error))
    try:
        found = _Query(pynvml, environ).run()
        if found.devices:
            found.driver = _text(pynvml.nvmlSystemGetDriverVersion())
        return found
    except pynvml.NVMLError as error:
        return Found(reason=str(error))
    finally:
        pynvml.nvmlShutdown()


class _Query:
    """One query for the visible devices."""

    def __init__(self, pynvml: Any, environ: Mapping[str, str]) -> None:
        self._nvml = pynvml
        self._environ = environ
        self._found = Found()
        self._handles: list[Any] = []
        """The handle of each device that this container may use, in NVML's order; None if NVML gives none."""
        self._reasons: dict[int, str] = {}
        """Why a device cannot be queried, by its place in that order."""
        for index in range(pynvml.nvmlDeviceGetCount()):
            try:
                self._handles.append(pynvml.nvmlDeviceGetHandleByIndex(index))
            except pynvml.NVMLError as error:
                if getattr(error, "value", None) != _NO_PERMISSION:
                    self._reasons[len(self._handles)] = f"GPU {index} cannot be queried: {error}"
                    self._handles.append(None)

    def run(self) -> Found:
        visible = self._environ.get("CUDA_VISIBLE_DEVICES")
        if not self._handles:
            self._found.reason = "NVML lists no device that this container may use"
        elif visible is None:
            self._take_every()
        else:
            for entry in visible.split(","):
                if not self._take(entry.strip()):
                    break  # as in CUDA, the first entry that is not valid ends the list
        return self._found

    def _take_every(self) -> None:
        self._found.devices = self._every()
        self._found.unusable = [reason for place, reason in self._reasons.items() if self._belongs_here(place)]
        if not self._found.devices and not self._found.unusable:
            self._found.reason = "; ".join(self._reasons.values())

    def _take(self, entry: str) -> bool:
        """Add the device of one entry of CUDA_VISIBLE_DEVICES. Returns whether the entry is valid."""
        if _is_number(entry):
            if int(entry) >= len(self._handles):
                return False
            self._take_number(int(entry))
            return True
        if not entry.startswith(("GPU-", "MIG-")):
            return False
        if (device := self._by_uuid(entry)) is None:
            return False
        self._found.devices.append(device)
        return True

    def _take_number(self, place: int) -> None:
        # By default CUDA numbers the fastest device first, but NVML numbers by bus. If the devices differ, a number
        # does not identify one, so all of them are named.
        if self._environ.get("CUDA_DEVICE_ORDER") != "PCI_BUS_ID":
            every = self._every()
            if len({device.name for device in every}) > 1:
                self._found.devices += every
                return
        if (device := self._device(place)) is not None:
            self._found.devices.append(device)
        else:
            self._found.unusable.append(self._reasons[place])

    def _by_uuid(self, prefix: str) -> Device | None:
        """CUDA accepts any unambiguous beginning of a GPU's UUID, NVML only a complete one."""
        if prefix.startswith("GPU-"):
            for device in self._every():
                if device.uuid.startswith(prefix):
                    return device
        try:
            return self._describe(self._nvml.nvmlDeviceGetHandleByUUID(prefix))
        except self._nvml.NVMLError as error:
            # The entry may mean a device that cannot be queried: its UUID is unknown.
            if self._reasons:
                self._found.unusable.append(f"{prefix} cannot be queried: {error}")
            return None

    def _every(self) -> list[Device]:
        """Every device that can be queried."""
        found = map(self._device, range(len(self._handles)))
        return [device for device in found if device is not None]

    def _device(self, place: int) -> Device | None:
        """The device at a place; None if it cannot be queried."""
        if place in self._reasons:
            return None
        try:
            return self._describe(self._handles[place])
        except self._nvml.NVMLError as error:
            self._reasons[place] = f"GPU {place} cannot be queried: {error}"
            return None

    def _describe(self, handle: Any) -> Device:
        return Device(
            name=_text(self._nvml.nvmlDeviceGetName(handle)),
            capability="{}.{}".format(*self._nvml.nvmlDeviceGetCudaComputeCapability(handle)),
            uuid=_text(self._nvml.nvmlDeviceGetUUID(handle)),
        )

    def _belongs_here(self, place: int) -> bool:
        """Whether NVIDIA_VISIBLE_DEVICES gives this container the device at a place.

        A privileged container sees every device of its node, also those that the variable leaves out.
        """
        entries = [entry.strip() for entry in self._environ.get("NVIDIA_VISIBLE_DEVICES", "all").split(",")]
        if entries in (["none"], ["void"], [""]):
            return False
        if all(_is_number(entry) and int(entry) < len(self._handles) for entry in entries):
            return str(place) in entries
        if all(entry.startswith("GPU-") for entry in entries):
            known = [device.uuid for device in self._every()]
            return not all(any(uuid.startswith(entry) for uuid in known) for entry in entries)
        return True


def _is_number(entry: str) -> bool:
    return re.fullmatch(r"\d+", entry, re.ASCII) is not None


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
