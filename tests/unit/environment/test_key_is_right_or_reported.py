"""A key that cannot name what this pod compiles for is reported, or refused."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from b10_transfer import OperationStatus, load, save
from b10_transfer.environment import accelerator, imported_torch
from b10_transfer.environment.frameworks import TorchBuild
from tests.command import command
from tests.conftest import IsolatedEnv
from tests.unit.environment.test_accelerator import A10, CUDA, H100, ROCM, Device, Driver, NVMLError

KERNEL = {"KERNEL/launcher.so": b"machine code"}


class NoPermissionError(NVMLError):
    value = 4


class BrokenDriver(Driver):
    """A driver some of whose devices fail."""

    lost_handles: frozenset[int] = frozenset()
    lost_names: frozenset[str] = frozenset()
    forbidden: frozenset[int] = frozenset()

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Device:  # noqa: N802
        if index in self.forbidden:
            raise NoPermissionError("Insufficient Permissions")
        if index in self.lost_handles:
            raise NVMLError("GPU is lost")
        return super().nvmlDeviceGetHandleByIndex(index)

    def nvmlDeviceGetName(self, device: Device) -> str | bytes:  # noqa: N802
        if device.uuid in self.lost_names:
            raise NVMLError("Unknown Error")
        return super().nvmlDeviceGetName(device)


Install = Callable[..., BrokenDriver]


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Install:
    def install(*devices: Device, loaded: bool = True) -> BrokenDriver:
        made = BrokenDriver(list(devices), is_loaded=loaded)
        monkeypatch.setitem(sys.modules, "pynvml", made)
        return made

    return install


@pytest.fixture
def devices(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Makes device files that this pod has."""
    folder = tmp_path / "dev"
    folder.mkdir()
    monkeypatch.setattr(accelerator, "DEVICES", folder)

    def make(*names: str) -> None:
        for name in names:
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).touch()

    return make


@pytest.fixture
def torch_is(monkeypatch: pytest.MonkeyPatch) -> Callable[[TorchBuild], None]:
    def patch(build: TorchBuild) -> None:
        # The package exports a function of that module's name.
        monkeypatch.setattr(sys.modules["b10_transfer.environment.detect"], "torch_build", lambda: build)
        monkeypatch.setattr("b10_transfer.inspection.doctor.torch_build", lambda: build)

    for name in ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    return patch


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


# Without torch


def test_without_torch_each_operation_warns(
    isolated_env: IsolatedEnv, torch_is: Callable[[TorchBuild], None], caplog: pytest.LogCaptureFixture
) -> None:
    torch_is(TorchBuild())
    isolated_env.fill(isolated_env.triton, KERNEL)
    for operation in (save, load, save, lambda: load(namespace="empty")):
        caplog.clear()
        operation()
        [warning] = warnings_of(caplog)
        assert f"{sys.executable} has no torch" in warning
        assert "B10_PYTHON" in warning


def test_without_torch_the_commands_report_it(
    isolated_env: IsolatedEnv, torch_is: Callable[[TorchBuild], None]
) -> None:
    torch_is(TorchBuild())
    for name in ("info", "explain", "doctor"):
        assert "has no torch" in command(name).stdout


def test_with_torch_nothing_is_warned_of(
    isolated_env: IsolatedEnv, torch_is: Callable[[TorchBuild], None], caplog: pytest.LogCaptureFixture
) -> None:
    torch_is(TorchBuild("2.13.0+cpu"))
    load()
    assert warnings_of(caplog) == []


# Devices that cannot be identified


@pytest.fixture(params=["cuda", "cuda without permission", "rocm", "xpu", "xpu without libraries"])
def unidentified(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    torch_is: Callable[[TorchBuild], None],
    driver: Install,
    devices: Callable[..., None],
) -> str:
    """A pod with device files that its driver cannot identify; returns the expected advice."""
    if request.param.startswith("cuda"):
        torch_is(CUDA)
        devices("nvidia0", "nvidiactl")
        made = driver(H100, loaded=request.param != "cuda")
        made.forbidden = frozenset({0})
        return "NVIDIA_DRIVER_CAPABILITIES=compute,utility"
    if request.param == "rocm":
        torch_is(ROCM)
        devices("kfd")
        return "/dev/dri"
    torch_is(TorchBuild("2.13.0+xpu", xpu="20250101"))
    devices("dri/renderD128")
    monkeypatch.setattr(accelerator, "_vendor", lambda _node: "0x8086")

    def ask() -> str:
        if request.param == "xpu":
            return ""
        raise OSError("libze_loader.so.1: cannot open shared object file")

    monkeypatch.setattr(imported_torch, "xpu_device", ask)
    return "compute runtime"


def test_unidentified_device_is_an_error_with_advice(
    isolated_env: IsolatedEnv, unidentified: str, caplog: pytest.LogCaptureFixture
) -> None:
    isolated_env.fill(isolated_env.triton, KERNEL)
    for report in (load(), save()):
        assert report.status is OperationStatus.ERROR
        assert "nothing is loaded or saved" in report.reason
        assert unidentified in report.reason
        assert "\n" not in report.reason
    assert all(record.exc_info is None for record in caplog.records)
    assert not isolated_env.store.exists()


def test_commands_predict_that_error(isolated_env: IsolatedEnv, unidentified: str) -> None:
    isolated_env.fill(isolated_env.triton, KERNEL)
    info = command("info", "--json").json
    assert (info["load"]["status"], info["save"]["status"]) == ("ERROR", "ERROR")
    assert unidentified in info["remarks"][0]
    assert command("explain").exit_code == 3
    answer = command("doctor")
    assert answer.exit_code == 1
    assert unidentified in answer.stdout


@pytest.mark.parametrize("hidden", ["", "-1", "NoDevFiles"])
def test_pod_that_hides_its_devices_is_a_cpu(
    isolated_env: IsolatedEnv,
    monkeypatch: pytest.MonkeyPatch,
    torch_is: Callable[[TorchBuild], None],
    driver: Install,
    devices: Callable[..., None],
    caplog: pytest.LogCaptureFixture,
    hidden: str,
) -> None:
    torch_is(CUDA)
    devices("nvidia0")
    driver(loaded=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert load().status is OperationStatus.DOES_NOT_EXIST
    assert warnings_of(caplog) == []


@pytest.mark.parametrize(
    ("asked_for", "level"), [(None, "INFO"), ("void", "INFO"), ("all", "WARNING"), ("0,1", "WARNING")]
)
def test_torch_for_a_device_that_this_pod_has_not_is_reported(
    isolated_env: IsolatedEnv,
    monkeypatch: pytest.MonkeyPatch,
    torch_is: Callable[[TorchBuild], None],
    driver: Install,
    devices: Callable[..., None],
    caplog: pytest.LogCaptureFixture,
    asked_for: str | None,
    level: str,
) -> None:
    caplog.set_level(logging.INFO)
    torch_is(CUDA)
    driver(loaded=False)
    if asked_for is not None:
        monkeypatch.setenv("NVIDIA_VISIBLE_DEVICES", asked_for)
    assert load().status is OperationStatus.DOES_NOT_EXIST
    [record] = [record for record in caplog.records if "torch is built for CUDA 13.0" in record.getMessage()]
    assert record.levelname == level


# Devices that are broken


@pytest.mark.parametrize("kind", ["handle", "name"])
@pytest.mark.parametrize(
    "visible",
    [
        {"CUDA_VISIBLE_DEVICES": "1", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"},
        {"CUDA_VISIBLE_DEVICES": "1"},
        {"CUDA_VISIBLE_DEVICES": "GPU-bbbb"},
        {"NVIDIA_VISIBLE_DEVICES": "1"},
        {"NVIDIA_VISIBLE_DEVICES": "GPU-bbbb1111-0000"},
    ],
    ids=str,
)
def test_broken_device_that_is_not_visible_is_not_reported(driver: Install, visible: dict[str, str], kind: str) -> None:
    made = driver(H100, A10)
    if kind == "handle":
        made.lost_handles = frozenset({0})
    else:
        made.lost_names = frozenset({H100.uuid})
    found = accelerator.detect(CUDA, visible)
    assert (found.kind, found.name, found.remarks) == ("cuda", A10.name, ())


def test_broken_device_next_to_a_sound_one_is_one_warning(
    isolated_env: IsolatedEnv,
    torch_is: Callable[[TorchBuild], None],
    driver: Install,
    caplog: pytest.LogCaptureFixture,
) -> None:
    torch_is(CUDA)
    driver(H100, A10).lost_handles = frozenset({0})
    assert load().status is OperationStatus.DOES_NOT_EXIST
    [warning] = warnings_of(caplog)
    assert warning.startswith("GPU 0 cannot be queried: GPU is lost")


def test_only_visible_device_that_is_broken_is_an_error_in_one_line(
    isolated_env: IsolatedEnv, torch_is: Callable[[TorchBuild], None], driver: Install, caplog: pytest.LogCaptureFixture
) -> None:
    torch_is(CUDA)
    driver(H100).lost_names = frozenset({H100.uuid})
    report = load()
    assert report.status is OperationStatus.ERROR
    assert "GPU 0 cannot be queried: Unknown Error" in report.reason
    [record] = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert record.exc_info is None
    answer = command("doctor")
    assert answer.exit_code == 1
    assert "Traceback" not in answer.stdout + answer.stderr


def test_driver_that_fails_during_a_query_is_an_error_in_one_line(
    isolated_env: IsolatedEnv,
    monkeypatch: pytest.MonkeyPatch,
    torch_is: Callable[[TorchBuild], None],
    driver: Install,
    devices: Callable[..., None],
) -> None:
    torch_is(CUDA)
    devices("nvidia0")
    made = driver(H100)

    def fail() -> int:
        raise NVMLError("Driver/library version mismatch")

    monkeypatch.setattr(made, "nvmlDeviceGetCount", fail)
    assert "Driver/library version mismatch" in load().reason
    assert made.users == 0


def test_numbers_count_the_devices_that_the_container_may_use(driver: Install) -> None:
    made = driver(H100, A10)
    made.forbidden = frozenset({0})
    found = accelerator.detect(CUDA, {"CUDA_VISIBLE_DEVICES": "0"})
    assert (found.name, found.remarks) == (A10.name, ())
