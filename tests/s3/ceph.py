"""A real S3 for tests: one-node Ceph (monitor, OSD, RADOS gateway) on loopback, all of its state in one folder.

Needs Debian's ``ceph-mon``, ``ceph-osd``, ``radosgw`` and ``ceph-common`` (and ``faketime``, for one test), and root.
``python -m tests.s3.ceph DIR`` runs one until it is interrupted, for trying things out by hand.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

ACCESS_KEY, SECRET_KEY = "testkey", "testsecret"
PROGRAMS = ("ceph-mon", "ceph-osd", "radosgw", "radosgw-admin", "monmaptool", "ceph", "faketime")
READY_S = 120
ATTEMPTS = 3

# No replication, no authentication inside the cluster, everything in the foreground and in one folder. Without
# tcp_nodelay each request takes 40 ms; with the usual timeouts gateways wait half a minute for one that was killed.
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
osd_client_watch_timeout = 3
osd_default_notify_timeout = 3
[client]
rgw_thread_pool_size = 64
rgw_dns_name = localhost
rgw_enable_usage_log = false
rgw_run_sync_thread = false
rgw_override_bucket_index_max_shards = 1
"""


class Gateway:
    """A RADOS gateway in front of a cluster, on a port of its own. Use it as a context manager.

    There may be several for one cluster: they show the same buckets. What was stored survives it.
    """

    def __init__(self, configuration: Path) -> None:
        self._configuration = configuration
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Gateway:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        frontend = f"--rgw_frontends=beast endpoint=127.0.0.1:{self.port} tcp_nodelay=1"
        self._process = start(self._configuration, "radosgw", "-n", f"client.rgw.{self.port}", "-f", frontend)
        ends = time.monotonic() + READY_S
        while not self._takes_connections():
            if (status := self._process.poll()) is not None or time.monotonic() > ends:
                how = "takes no connections" if status is None else f"ended with {status}"
                raise RuntimeError(f"the gateway {how}\n{last_words(self._configuration.parent / 'log')}")
            time.sleep(0.05)

    def kill(self) -> None:
        """End it without warning."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    @property
    def is_running(self) -> bool:
        return self._process is not None

    def pause(self) -> None:
        """Have it take connections and answer nothing, until :meth:`resume`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def _takes_connections(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True


class Ceph:
    """A cluster with one gateway. Use it as a context manager.

    A cluster that does not start is given up, and another one started in its place: a port may have been taken.
    """

    def __init__(self, folder: Path) -> None:
        self._folders = [folder / str(attempt) for attempt in range(ATTEMPTS)]
        self._use(self._folders[0])

    def _use(self, folder: Path) -> None:
        self._folder = folder
        self.configuration = folder / "ceph.conf"
        self._daemons: list[subprocess.Popen[bytes]] = []
        self._gateway = Gateway(self.configuration)

    @staticmethod
    def missing() -> list[str]:
        """Programs that are not installed."""
        return [name for name in PROGRAMS if shutil.which(name) is None]

    @property
    def endpoint(self) -> str:
        return self._gateway.endpoint

    def __enter__(self) -> Ceph:
        for folder in self._folders[:-1]:
            self._use(folder)
            try:
                return self._start_all()
            except (RuntimeError, subprocess.TimeoutExpired) as error:
                print(f"Ceph did not start, and is tried again: {error}", file=sys.stderr)
        self._use(self._folders[-1])
        return self._start_all()

    def _start_all(self) -> Ceph:
        try:
            self._make_cluster()
            self._gateway.start()
            make_user(self.configuration, "test", ACCESS_KEY, SECRET_KEY)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End everything. What was stored is gone."""
        self._gateway.kill()
        for daemon in self._daemons:
            daemon.kill()
            daemon.wait()
        self._daemons.clear()

    def _make_cluster(self) -> None:
        for name in ("mon", "osd", "run", "log"):
            (self._folder / name).mkdir(parents=True, exist_ok=True)
        fsid, monitor_port = str(uuid.uuid4()), free_port()
        self.configuration.write_text(_CONFIGURATION.format(fsid=fsid, folder=self._folder, monitor_port=monitor_port))
        monmap = str(self._folder / "monmap")
        address = f"[v1:127.0.0.1:{monitor_port}]"
        self._run("monmaptool", "--create", "--fsid", fsid, "--addv", "a", address, monmap)
        self._run("ceph-mon", "--mkfs", "-i", "a", "--monmap", monmap)
        self._daemons.append(self._start("ceph-mon", "-i", "a", "-f"))
        osd = str(uuid.uuid4())
        self._run("ceph", "osd", "new", osd, "0")
        self._run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd)
        self._start_osd()

    def _start_osd(self) -> None:
        """Start the OSD, and wait until the monitor counts it as up.

        It ends itself if it asks the monitor for something before it has got its map ("wrong fsid"): then once more.
        """
        ends = time.monotonic() + READY_S
        self._daemons.append(self._start("ceph-osd", "-i", "0", "-f"))
        while "1 up" not in self._run("ceph", "osd", "stat"):
            if time.monotonic() > ends:
                raise RuntimeError(f"the OSD does not come up\n{last_words(self._folder / 'log')}")
            if self._daemons[-1].poll() is not None:
                self._daemons.append(self._start("ceph-osd", "-i", "0", "-f"))
            time.sleep(0.1)

    def _run(self, *command: str) -> str:
        return run(self.configuration, *command)

    def _start(self, *command: str) -> subprocess.Popen[bytes]:
        return start(self.configuration, *command)


def make_user(configuration: Path, name: str, access_key: str, secret_key: str) -> None:
    """Let somebody in, who then owns nothing and may do nothing with what others own."""
    user = [f"--uid={name}", f"--display-name={name}", f"--access-key={access_key}", f"--secret-key={secret_key}"]
    run(configuration, "radosgw-admin", "user", "create", *user)


def bucket_policy(bucket: str, user: str, *actions: str) -> str:
    """The document that lets a user, ``*`` for everybody, do some things in a whole bucket."""
    statement = {
        "Effect": "Allow",
        "Principal": user if user == "*" else {"AWS": [f"arn:aws:iam:::user/{user}"]},
        "Action": actions,
        "Resource": [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"],
    }
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def run(configuration: Path, *command: str) -> str:
    """Run one of Ceph's programs until it ends; returns what it has printed. Raises RuntimeError if it fails."""
    result = subprocess.run(
        [*command, "-c", str(configuration)] if command[0] != "monmaptool" else command,
        env=os.environ | {"CEPH_CONF": str(configuration)},
        capture_output=True,
        text=True,
        timeout=READY_S,
        check=False,
    )
    if result.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {result.stderr[-2000:]}")
    return result.stdout


def start(configuration: Path, *command: str) -> subprocess.Popen[bytes]:
    """Start one of Ceph's daemons."""
    with open(configuration.parent / "log" / f"{command[0]}.out", "ab") as output:
        return subprocess.Popen(
            [*command, "-c", str(configuration)],
            env=os.environ | {"CEPH_CONF": str(configuration)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def last_words(logs: Path, lines: int = 8) -> str:
    """The end of each file in a folder of logs."""
    ends = []
    for path in sorted(logs.iterdir()):
        last = path.read_text(errors="replace").splitlines()[-lines:]
        ends.append("\n".join([f"== {path.name}", *(line[:400] for line in last)]))
    return "\n".join(ends)


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__" and sys.argv[1:] == ["--try"]:
    # Whether this machine can run it at all, for .ci/run; why not, if it can't.
    with tempfile.TemporaryDirectory(prefix="ceph-") as tried, Ceph(Path(tried)):
        print("Ceph starts here")
elif __name__ == "__main__":
    with Ceph(Path(sys.argv[1]).absolute()) as cluster:
        # All that the tests need of it, for a shell.
        print(f"AWS_ENDPOINT_URL={cluster.endpoint} AWS_ACCESS_KEY_ID={ACCESS_KEY} AWS_SECRET_ACCESS_KEY={SECRET_KEY}")
        signal.pause()
