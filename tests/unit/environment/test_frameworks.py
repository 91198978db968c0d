"""torch's and Triton's versions, read from files as their builds write them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from b10_transfer.environment.frameworks import TorchBuild, torch_build, triton_version

if TYPE_CHECKING:
    from tests.conftest import FillTree

CPU = b"""\
from typing import Optional

__all__ = ['__version__', 'debug', 'cuda', 'git_version', 'hip', 'rocm', 'xpu']
__version__ = '2.13.0+cpu'
debug = False
cuda: Optional[str] = None
git_version = 'cf30153c4c131c8164ee7798e5022d810682e2cb'
hip: Optional[str] = None
rocm: Optional[str] = None
xpu: Optional[str] = None
"""
CUDA = CPU.replace(b"+cpu", b"+cu130").replace(b"cuda: Optional[str] = None", b"cuda: Optional[str] = '13.0'")
ROCM = CPU.replace(b"+cpu", b"+rocm7.0").replace(b"hip: Optional[str] = None", b"hip: Optional[str] = '7.0.51831'")
XPU = CPU.replace(b"+cpu", b"+xpu").replace(b"xpu: Optional[str] = None", b"xpu: Optional[str] = '20250101'")
OLD = b"""\
__all__ = ['__version__', 'debug', 'cuda', 'git_version', 'hip']
__version__ = '2.0.1+cu118'
debug = False
cuda = '11.8'
git_version = 'e9ebda29d87ce0916ab08c06ab26fd3766a870e5'
hip = None
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder in which modules are found."""
    for name in ("torch", "triton"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.setattr(sys, "meta_path", [finder for finder in sys.meta_path if "Editable" not in str(finder)])
    sys.path_importer_cache.clear()
    return tmp_path


@pytest.mark.parametrize(
    ("source", "build"),
    [
        (CPU, TorchBuild("2.13.0+cpu")),
        (CUDA, TorchBuild("2.13.0+cu130", cuda="13.0")),
        (ROCM, TorchBuild("2.13.0+rocm7.0", hip="7.0.51831")),
        (XPU, TorchBuild("2.13.0+xpu", xpu="20250101")),
        (OLD, TorchBuild("2.0.1+cu118", cuda="11.8")),
        (b"", TorchBuild()),
        (b"__version__ = str(1)\ncuda = f()\n", TorchBuild()),
    ],
    ids=["cpu", "cuda", "rocm", "xpu", "torch 2.0", "empty", "computed"],
)
def test_torch_build_is_read_from_its_files(site: Path, fill: FillTree, source: bytes, build: TorchBuild) -> None:
    fill(site, {"torch/__init__.py": b"raise ImportError('must not be imported')", "torch/version.py": source})
    assert torch_build() == build


def test_torch_that_is_not_there_is_no_error(site: Path) -> None:
    assert torch_build() == TorchBuild()
    assert triton_version() == ""


def test_torch_without_a_version_file_is_no_error(site: Path, fill: FillTree) -> None:
    fill(site, {"torch/__init__.py": b""})
    assert torch_build() == TorchBuild()


@pytest.mark.parametrize(
    ("source", "version"),
    [
        (b"__version__ = '3.9.0'\n", "3.9.0"),
        (b'"""isort:skip_file"""\n__version__ = "3.4.0+git1234"\nfrom . import x\n', "3.4.0+git1234"),
        (b"# __version__ = '1.0'\n", ""),
        (b"", ""),
    ],
)
def test_version_of_triton_is_read_from_its_source(site: Path, fill: FillTree, source: bytes, version: str) -> None:
    fill(site, {"triton/__init__.py": source})
    assert triton_version() == version


def test_nothing_is_imported(site: Path, fill: FillTree) -> None:
    refuse = b"raise ImportError('must not be imported')\n"
    fill(
        site,
        {"torch/__init__.py": refuse, "torch/version.py": CPU, "triton/__init__.py": b"__version__ = '3'\n" + refuse},
    )
    torch_build()
    triton_version()
    assert not {"torch", "triton"} & sys.modules.keys()


@pytest.mark.parametrize(
    ("version", "is_before"),
    [("2.5.1+cu124", True), ("1.13.1", True), ("2.6.0", False), ("2.15.0a0+git1", False), ("", False), ("x", False)],
)
def test_releases_are_compared_by_their_numbers(version: str, is_before: bool) -> None:
    assert TorchBuild(version).is_before((2, 6)) is is_before
