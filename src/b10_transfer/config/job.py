"""The distributed job that a process belongs to. Its ranks need each other, so they never wait for one another."""

from __future__ import annotations

import hashlib
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


def job_of(environ: Mapping[str, str]) -> str:
    """Identify the job of a process.

    Args:
        environ: The process's environment.

    Returns:
        A digest that all ranks of one job share; empty if the process belongs to no job of several ranks.
    """
    if all(environ.get(name, "1") in ("", "1") for name in _SIZES):
        return ""
    for names in _LAUNCHERS:
        values = [environ.get(name, "") for name in names]
        if not all(values):
            continue
        if values[0] in _HERE:
            values.append(socket.gethostname())
        return hashlib.sha256("\0".join((*names, *values)).encode("utf-8", "surrogateescape")).hexdigest()[:32]
    return ""
