"""The NVIDIA devices that CUDA shows to this process, asked of NVML."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_asking = threading.Lock()
"""Held while NVML is imported and asked. A fork waits for it: a child would inherit NVML's lock, or that of its import,
from a thread that it does not have, and wait for ever."""
_fork = threading.local()
_FORK_WAITS_S = 5.0
"""A driver that hangs must not keep a program from forking."""
_NO_PERMISSION = 4
"""``NVML_ERROR_NO_PERMISSION``: a device of the node that this container may not use. CUDA does not show it either."""


@dataclass(frozen=True)
class Device:
    """A device that answers."""

    name: str
    capability: str
    uuid: str


@dataclass
class Found:
    """What NVML says of the visible devices."""

    devices: list[Device] = field(default_factory=list)
    unusable: list[str] = field(default_factory=list)
    """One line for each visible device that cannot be queried."""
    driver: str = ""
    reason: str = ""
    """Why there are no devices at all, independent of CUDA_VISIBLE_DEVICES; empty if that decided it."""


def _before_fork() -> None:
    _fork.holds = _asking.acquire(timeout=_FORK_WAITS_S)


def _after_fork() -> None:
    if _fork.holds:
        _asking.release()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)


def hides_every_device(environ: Mapping[str, str]) -> bool:
    """Whether CUDA_VISIBLE_DEVICES is set to a list whose first entry means nothing, which hides every device."""
    entry = environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0].strip()
    return not _is_number(entry) and not entry.startswith(("GPU-", "MIG-"))


def find(environ: Mapping[str, str]) -> Found:
    """Ask NVML for the devices that CUDA shows to this process. Devices that are not visible are not reported."""
    with _asking:
        return _find(environ)


def _find(environ: Mapping[str, str]) -> Found:
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:  # no driver: torch.cuda.is_available() is False as well
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
    """One look at the visible devices."""

    def __init__(self, pynvml: Any, environ: Mapping[str, str]) -> None:
        self._nvml = pynvml
        self._environ = environ
        self._found = Found()
        self._handles: list[Any] = []
        """Of each device that this container may use, in NVML's order; None if it cannot be had."""
        self._reasons: dict[int, str] = {}
        """Why devices cannot be queried, by their place in that order."""
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
                    break  # for CUDA as well, the first entry that means nothing ends the list
        return self._found

    def _take_every(self) -> None:
        self._found.devices = self._every()
        self._found.unusable = [reason for place, reason in self._reasons.items() if self._belongs_here(place)]
        if not self._found.devices and not self._found.unusable:
            self._found.reason = "; ".join(self._reasons.values())

    def _take(self, entry: str) -> bool:
        """Add the device that one entry of CUDA_VISIBLE_DEVICES names; whether there is one."""
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
        # CUDA numbers the fastest device first unless told otherwise, NVML goes by the bus. Among different devices a
        # number then says nothing: all of them are named.
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
        """CUDA accepts any unambiguous beginning of a GPU's UUID, NVML only the whole."""
        if prefix.startswith("GPU-"):
            for device in self._every():
                if device.uuid.startswith(prefix):
                    return device
        try:
            return self._describe(self._nvml.nvmlDeviceGetHandleByUUID(prefix))
        except self._nvml.NVMLError as error:
            # The UUID of a device that does not answer is not known: it may be the one that is meant.
            if self._reasons:
                self._found.unusable.append(f"{prefix} cannot be queried: {error}")
            return None

    def _every(self) -> list[Device]:
        """Every device that answers."""
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
        """Whether the container runtime gave this container the device at a place, as far as its variable says.

        A privileged container sees every device of its node, also those that NVIDIA_VISIBLE_DEVICES leaves out.
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
