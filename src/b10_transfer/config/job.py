"""The job or pod that a process belongs to. Its processes may need each other, so they never wait for one another."""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Mapping

_LAUNCHERS: tuple[tuple[str, ...], ...] = (
    # torchrun, and torch.distributed's env:// method, which mp.spawn and DeepSpeed use as well.
    ("MASTER_ADDR", "MASTER_PORT"),
    # srun.
    ("SLURM_JOB_ID", "SLURM_STEP_ID"),
)
"""Variables that all ranks of a job have in common, by launcher."""
_SIZES = ("WORLD_SIZE", "SLURM_NTASKS")
_HERE = ("localhost", "127.0.0.1", "::1", "0.0.0.0")
"""Addresses that mean another machine on each machine."""


def job_of(environ: Mapping[str, str], group: str = "") -> str:
    """Identify the group, job or pod of a process.

    Args:
        environ: The process's environment.
        group: ``B10_GROUP``, or the argument that overrides it.

    Returns:
        A digest that all processes have in common which may need each other; empty if none is known.
    """
    if group:
        return _digest("group", group)
    return _launched_job(environ) or _pod(environ)


def _launched_job(environ: Mapping[str, str]) -> str:
    if all(environ.get(name, "1") in ("", "1") for name in _SIZES):
        return ""
    for names in _LAUNCHERS:
        values = [environ.get(name, "") for name in names]
        if not all(values):
            continue
        if values[0] in _HERE:
            values.append(socket.gethostname())
        return _digest(*names, *values)
    return ""


def _pod(environ: Mapping[str, str]) -> str:
    """A container of a pod in Kubernetes: its host name is the pod's, or the node's, so its processes count as well."""
    if not environ.get("KUBERNETES_SERVICE_HOST"):
        return ""
    try:
        processes = os.readlink("/proc/self/ns/pid")
    except OSError:
        processes = ""
    return _digest("pod", socket.gethostname(), processes)


def _digest(*values: str) -> str:
    return hashlib.sha256("\0".join(values).encode("utf-8", "surrogateescape")).hexdigest()[:32]
