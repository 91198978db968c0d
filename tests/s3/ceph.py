"""A real S3 for tests: one-node Ceph (monitor, OSD, RADOS gateway) on loopback, all of its state in one folder.

Needs Debian's ``ceph-mon``, ``ceph-osd``, ``radosgw`` and ``ceph-common``, and root. ``python -m tests.s3.ceph DIR``
runs one until it is interrupted, for trying things out by hand.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path

ACCESS_KEY, SECRET_KEY = "testkey", "testsecret"
PROGRAMS = ("ceph-mon", "ceph-osd", "radosgw", "radosgw-admin", "monmaptool", "ceph")
READY_S = 120

# No replication, no authentication inside the cluster, everything in the foreground and in one folder. Without
# tcp_nodelay each request takes 40 ms.
_CONFIGURATION = """\
[global]
fsid = {fsid}
mon_host = v1:127.0.0.1:{monitor_port}
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
ms_bind_ipv6 = false
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 8
osd_pool_default_pgp_num = 8
osd_pool_default_pg_autoscale_mode = off
mon_allow_pool_size_one = true
mon_max_pg_per_osd = 1000
mon_data = {folder}/mon
mon_data_avail_crit = 1
mon_data_avail_warn = 2
osd_data = {folder}/osd
run_dir = {folder}/run
pid_file = {folder}/run/$name.pid
admin_socket = {folder}/run/$name.asok
log_file = {folder}/log/$name.log
mon_cluster_log_file = {folder}/log/cluster.log
crash_dir = {folder}/log
setuser_match_path = {folder}
[osd]
osd_objectstore = memstore
memstore_device_bytes = 4294967296
osd_memory_target = 1073741824
osd_fast_shutdown = true
[client.rgw.a]
rgw_frontends = beast endpoint=127.0.0.1:{port} tcp_nodelay=1
rgw_thread_pool_size = 64
rgw_dns_name = localhost
rgw_enable_usage_log = false
rgw_run_sync_thread = false
rgw_override_bucket_index_max_shards = 1
"""


class Ceph:
    """A cluster. Use it as a context manager."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._configuration = folder / "ceph.conf"
        self._daemons: list[subprocess.Popen[bytes]] = []
        self._gateway: subprocess.Popen[bytes] | None = None
        self.port = free_port()

    @staticmethod
    def missing() -> list[str]:
        """Programs that are not installed."""
        return [name for name in PROGRAMS if shutil.which(name) is None]

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Ceph:
        try:
            self._make_cluster()
            self.start_gateway()
            user = ["--uid=test", "--display-name=test", f"--access-key={ACCESS_KEY}", f"--secret-key={SECRET_KEY}"]
            self._run("radosgw-admin", "user", "create", *user)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End everything. What was stored is gone."""
        self.kill_gateway()
        for daemon in self._daemons:
            daemon.kill()
            daemon.wait()
        self._daemons.clear()

    def start_gateway(self) -> None:
        """Start the gateway, and wait until it takes connections."""
        self._gateway = self._start("radosgw", "-n", "client.rgw.a", "-f")
        ends = time.monotonic() + READY_S
        while not self._takes_connections():
            if self._gateway.poll() is not None or time.monotonic() > ends:
                raise RuntimeError(f"the gateway did not start; its log is in {self._folder}/log")
            time.sleep(0.05)

    def kill_gateway(self) -> None:
        """End the gateway without warning. What was stored stays."""
        if self._gateway is not None:
            self._gateway.kill()
            self._gateway.wait()
            self._gateway = None

    def pause_gateway(self) -> None:
        """Have it take connections and answer nothing, until :meth:`resume_gateway`."""
        assert self._gateway is not None
        self._gateway.send_signal(signal.SIGSTOP)

    def resume_gateway(self) -> None:
        assert self._gateway is not None
        self._gateway.send_signal(signal.SIGCONT)

    def _make_cluster(self) -> None:
        for name in ("mon", "osd", "run", "log"):
            (self._folder / name).mkdir(parents=True, exist_ok=True)
        fsid, monitor_port = str(uuid.uuid4()), free_port()
        self._configuration.write_text(
            _CONFIGURATION.format(fsid=fsid, folder=self._folder, port=self.port, monitor_port=monitor_port)
        )
        monmap = str(self._folder / "monmap")
        address = f"[v1:127.0.0.1:{monitor_port}]"
        self._run("monmaptool", "--create", "--fsid", fsid, "--addv", "a", address, monmap)
        self._run("ceph-mon", "--mkfs", "-i", "a", "--monmap", monmap)
        self._daemons.append(self._start("ceph-mon", "-i", "a", "-f"))
        osd = str(uuid.uuid4())
        self._run("ceph", "osd", "new", osd, "0")
        self._run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd)
        self._daemons.append(self._start("ceph-osd", "-i", "0", "-f"))

    def _run(self, *command: str) -> None:
        result = subprocess.run(
            [*command, "-c", str(self._configuration)] if command[0] != "monmaptool" else command,
            env=self._environment(),
            capture_output=True,
            text=True,
            timeout=READY_S,
            check=False,
        )
        if result.returncode:
            raise RuntimeError(f"{' '.join(command)} failed: {result.stderr[-2000:]}")

    def _start(self, *command: str) -> subprocess.Popen[bytes]:
        with open(self._folder / "log" / f"{command[0]}.out", "ab") as output:
            return subprocess.Popen(
                [*command, "-c", str(self._configuration)],
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def _environment(self) -> dict[str, str]:
        return os.environ | {"CEPH_CONF": str(self._configuration)}

    def _takes_connections(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    with Ceph(Path(sys.argv[1]).absolute()) as cluster:
        print(f"AWS_ENDPOINT_URL={cluster.endpoint} AWS_ACCESS_KEY_ID={ACCESS_KEY} AWS_SECRET_ACCESS_KEY={SECRET_KEY}")
        signal.pause()
