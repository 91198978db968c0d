"""Run a command in a guest that mounts real NFS: ``boot.py [--timeout SECONDS] COMMAND...``; exits as the command does.

The guest is Debian's User Mode Linux, a kernel that is an ordinary program: it needs neither virtualisation nor a
second machine, and has the NFS server and client that this machine's kernel may lack. It sees this machine's files
read-only, at the same paths, and has a /tmp of its own; what to do in it is in guest.sh. Missing packages are
installed where that is possible (root, on Debian). All state is in a temporary folder, and a guest that does not end
is killed with all its processes.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
MODULES = Path("/usr/lib/uml/modules")
PROGRAMS = {
    "linux.uml": "user-mode-linux",
    "rpc.nfsd": "nfs-kernel-server",
    "mount.nfs4": "nfs-common",
    "rpcbind": "rpcbind",
    "modprobe": "kmod",
    "ip": "iproute2",
    "mkfs.ext4": "e2fsprogs",
}
"""What is needed, and the Debian package it is in."""
DISK_BYTES = 1 << 30
MEMORY = "1G"
SYSTEM_PATH = "/usr/local/sbin:/usr/sbin:/sbin"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--timeout", type=float, default=1200, help="seconds after which the guest is killed")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    arguments = parser.parse_args()
    # A guest must not outlive a run that is cancelled.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    os.environ["PATH"] += f":{SYSTEM_PATH}"
    if (complaint := _provide_programs()) is not None:
        print(f"real NFS cannot be had here: {complaint}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="b10-nfs-") as folder:
        return _run(Path(folder), arguments.command, arguments.timeout)


def _missing() -> list[str]:
    return [program for program in PROGRAMS if shutil.which(program) is None]


def _provide_programs() -> str | None:
    """Install what is missing; why that is not possible, or None."""
    if os.geteuid() != 0:
        return "it needs root (the guest's server and mounts act on files of several users)"
    if not _missing():
        return None
    packages = sorted({PROGRAMS[program] for program in _missing()})
    if shutil.which("apt-get") is None:
        return f"{', '.join(_missing())} missing, and there is no apt-get to install Debian's {', '.join(packages)}"
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update", "-qq"], check=False, env=environment)
    install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages]
    subprocess.run(install, check=False, env=environment, stdout=subprocess.DEVNULL)
    return f"{', '.join(_missing())} missing; apt-get could not install {', '.join(packages)}" if _missing() else None


def _run(folder: Path, command: list[str], timeout_s: float) -> int:
    """Boot a guest whose state is in ``folder``, and wait for it; the exit status of its command."""
    disk = folder / "disk"
    with disk.open("wb") as file:
        file.truncate(DISK_BYTES)
    subprocess.run(["mkfs.ext4", "-q", str(disk)], check=True)
    # modprobe looks for modules of the running kernel below a root.
    modules = folder / "modules" / "lib" / "modules"
    modules.mkdir(parents=True)
    for version in MODULES.iterdir():
        (modules / version.name).symlink_to(version)
    hidden = _needed_below_tmp()
    init = folder / "init"
    guest = ["/bin/bash", str(Path(__file__).with_name("guest.sh")), str(folder), *hidden, "--", *command]
    init.write_text(f"#!/bin/bash\ncd {shlex.quote(str(REPOSITORY))}\nexec {shlex.join(guest)}\n")
    init.chmod(0o755)
    kernel = [
        "linux.uml",
        f"mem={MEMORY}",
        *("root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro"),
        f"ubd0={disk}",
        f"init={init}",
        *("con=null", "con0=null,fd:1", "loglevel=1"),
    ]
    # The kernel's own complaints of what a virtual machine lacks go to a file, for when it does not start.
    with (folder / "kernel.log").open("w+b") as log:
        process = subprocess.Popen(
            kernel,
            stdin=subprocess.DEVNULL,
            stderr=log,
            start_new_session=True,
            # Its memory is a file: where it would lie in /dev/shm, containers have little room.
            env=os.environ | {"TMPDIR": str(folder)},
        )
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            print(f"the guest was killed: it had not ended after {timeout_s:g} s", file=sys.stderr)
            return 124
        finally:
            _kill_session(process)
        status = folder / "status"
        if not status.exists():
            log.seek(0)
            print(log.read().decode(errors="replace"), file=sys.stderr)
            print("the guest ended without running its command to the end", file=sys.stderr)
            return 1
        return int(status.read_text())


def _needed_below_tmp() -> list[str]:
    """Folders that the guest's own /tmp would hide: the project, its virtual environment, that one's Python."""
    needed = {REPOSITORY, Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve()}
    return sorted(str(path) for path in needed if Path("/tmp") in path.parents)


def _kill_session(process: subprocess.Popen[bytes]) -> None:
    """End the kernel and the processes of this machine that run its processes."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


if __name__ == "__main__":
    sys.exit(main())
