"""Loopback as slow as a network, in a private network namespace."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

SHARED = "2 Gbit/s"
CONNECTION = "90 MB/s a connection"
"""The rate of S3, see "Performance design patterns for Amazon S3"."""
_OWN_NETWORK = "B10_BENCHMARK_NETWORK"
_CLASSES = 32


def run_again_with_own_network() -> int | None:
    """Run this program again in a private network namespace.

    Returns:
        Its exit status; None if this is that run, or if that is not permitted (it needs root).
    """
    if _OWN_NETWORK in os.environ or os.geteuid() != 0:
        return None
    enter = ["unshare", "--net", "--", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]
    return subprocess.run([*enter, sys.executable, *sys.argv], env={**os.environ, _OWN_NETWORK: "1"}).returncode


def kinds() -> tuple[str, ...]:
    """The limits that :func:`limited` can set here; the empty one is no limit."""
    return ("", SHARED, CONNECTION) if _OWN_NETWORK in os.environ else ("",)


@contextmanager
def limited(kind: str, port: int) -> Iterator[None]:
    """Limit the data that loopback carries from a port. Raises CalledProcessError."""
    if kind == "":
        yield
        return
    shared = ["qdisc add dev lo root tbf rate 2gbit burst 1mb latency 50ms"]
    commands = "\n".join(shared if kind == SHARED else _connections(port))
    subprocess.run(["tc", "-batch", "-"], input=commands, text=True, check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run(["tc", "qdisc", "del", "dev", "lo", "root"], check=True)


def _connections(port: int) -> list[str]:
    """A class of traffic for each of 32 groups of client ports (Linux uses even ones). Connections rarely share one."""
    commands = [
        "qdisc add dev lo root handle 1: htb default 1",
        "class add dev lo parent 1: classid 1:1 htb rate 100gbit",
    ]
    for number in range(_CLASSES):
        group = f"1:{0x100 + number:x}"
        commands += [
            f"class add dev lo parent 1: classid {group} htb rate 720mbit burst 256k quantum 65536",
            f"filter add dev lo parent 1: protocol ip u32 match ip protocol 6 0xff match ip sport {port} 0xffff"
            f" match u16 {2 * number:#06x} 0x003e at 22 flowid {group}",
        ]
    return commands
