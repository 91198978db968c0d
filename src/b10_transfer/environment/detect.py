"""Detects the parts of the environment key.

Importing torch takes 1 to 5 s. So torch's facts are read from its files, and the device's from NVML or sysfs. A test
compares them with an imported torch.
"""

from __future__ import annotations

import logging
import os
import platform
import socket
from collections.abc import Iterator

from ..errors import UnidentifiedDeviceError
from ..notices import notices
from ..version import __version__
from . import accelerator, cpu
from .accelerator import Accelerator
from .frameworks import OLDEST_TORCH, TorchBuild, torch_build, triton_version
from .graph_caching import reason_off
from .interpreter import VARIABLE, Interpreter, interpreter
from .key import Environment, Remark

logger = logging.getLogger(__name__)


def identify(*, logs: bool = True) -> Environment:
    """Detect the environment of this process for a load or a save.

    Args:
        logs: Whether to log its remarks. An operation does that once. Default: true.

    Raises:
        UnidentifiedDeviceError: There is a device, but the key cannot name it.
    """
    environment = detect()
    for remark in environment.remarks:
        if remark.level >= logging.ERROR:
            raise UnidentifiedDeviceError(str(remark))
        if not logs:
            continue
        if remark.repeats:
            logger.log(remark.level, "%s", remark)
        else:
            notices.log(logger, remark.level, str(remark))
    return environment


def detect() -> Environment:
    """Detect the environment of this process. Takes some milliseconds, more if it queries an NVIDIA driver."""
    python = interpreter()
    torch = torch_build()
    device = accelerator.detect(torch)
    return Environment(
        parts={
            "torch": torch.version,
            "triton": triton_version(),
            "python": python.cache_tag,
            "machine": platform.machine(),
            # Restored C++ kernels are linked against versioned symbols of the C library.
            "libc": _libc(),
            "cpu features": cpu.features(),
            "accelerator": device.kind,
            "device": device.name,
            "compute capability": device.capability,
            "toolkit": device.toolkit,
        },
        recorded={
            "driver": device.driver,
            "hostname": socket.gethostname(),
            "b10-transfer": __version__,
            "interpreter": python.executable,
        },
        remarks=tuple(_remarks(python, torch, device)),
    )


def _remarks(python: Interpreter, torch: TorchBuild, device: Accelerator) -> Iterator[Remark]:
    if not torch.version:
        yield _no_torch(python)
    if torch.is_before(OLDEST_TORCH):
        yield _old_torch(torch)
    yield from device.remarks
    seen, advice = reason_off(torch.version, os.environ)
    if seen:
        yield Remark(logging.WARNING, seen, advice)


def _no_torch(python: Interpreter) -> Remark:
    return Remark(
        logging.WARNING,
        f"{python.executable} has no torch, so the key has no version of torch and no device",
        f"Set {VARIABLE} to the server's Python, or run b10-compile-cache from the server's environment",
        repeats=True,
    )


def _old_torch(torch: TorchBuild) -> Remark:
    oldest = ".".join(map(str, OLDEST_TORCH))
    return Remark(
        logging.WARNING,
        f"torch {torch.version} is older than {oldest}, the oldest torch that b10-transfer is tested with",
        "Its artifacts are saved and restored, but it may compile again. Update torch",
    )


def _libc() -> str:
    try:
        return os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (ValueError, OSError):  # not glibc
        return "-".join(platform.libc_ver())
