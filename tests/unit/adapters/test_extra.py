"""Directories that an operator adds: the same rules as for other caches, and only where the pod's variable points."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from b10_transfer import OperationStatus, load, save
from b10_transfer.adapters import cache_roots, locate_caches
from b10_transfer.cli.main import main
from b10_transfer.config import Config
from b10_transfer.local.aside import moved_aside
from b10_transfer.maintenance.clear import clear_caches
from b10_transfer.repository.signing import SigningKey
from tests.conftest import IsolatedEnv, ReadTree

FILES = {"kernel.bin": b"1", "module/a/b.so": b"2", "module/index": b"3"}
LEFT_OUT = {"module/.lock": b"", "x.tmp": b"", "sub/lock": b""}


@pytest.fixture
def saved(isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch) -> IsolatedEnv:
    isolated_env.fill(isolated_env.home / "first", {**FILES, **LEFT_OUT})
    monkeypatch.setenv("B10_EXTRA_CACHES", f"acme={isolated_env.home}/first")
    report = save()
    assert (report.status, report.units) == (OperationStatus.SUCCESS, 2)
    return isolated_env


def test_entries_are_restored_to_the_path_of_the_variable(
    saved: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, read_tree: ReadTree
) -> None:
    monkeypatch.setenv("B10_EXTRA_CACHES", f"other={saved.home}/other, acme={saved.home}/second/")
    assert sorted(load().restored) == ["extra_acme/kernel.bin", "extra_acme/module"]
    assert read_tree(saved.home / "second") == FILES
    assert not (saved.home / "other").exists()


def test_existing_entry_is_not_replaced(
    saved: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, read_tree: ReadTree
) -> None:
    saved.fill(saved.home / "second", {"kernel.bin": b"own"})
    monkeypatch.setenv("B10_EXTRA_CACHES", f"acme={saved.home}/second")
    assert load(merge=True).restored == ("extra_acme/module",)
    assert read_tree(saved.home / "second") == {**FILES, "kernel.bin": b"own"}


@pytest.mark.parametrize("value", ["", "other=/nowhere/at/all"])
def test_pod_without_the_name_restores_nothing(saved: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("B10_EXTRA_CACHES", value)
    assert load().status is OperationStatus.DOES_NOT_EXIST


@pytest.mark.parametrize("place", ["", ".cache", ".ssh"])
def test_directory_of_another_use_is_refused(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    isolated_env.fill(isolated_env.home / place, {"id_rsa": b"secret"})
    monkeypatch.setenv("B10_EXTRA_CACHES", f"acme={isolated_env.home / place}")
    report = save()
    assert report.status is OperationStatus.ERROR
    assert "B10_EXTRA_CACHES" in report.reason


@pytest.mark.parametrize("value", ["acme", "acme=relative", "=/x", "Acme=/x", "acme=/", "a=/x,a=/y", "a=/x,", "a=/x=y"])
def test_wrong_value_is_an_error(isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("B10_EXTRA_CACHES", value)
    for operation in (load, save):
        assert "name=/path" in operation().reason


def test_second_name_of_one_path_is_an_error(isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    root = isolated_env.home / "first"
    isolated_env.fill(root, {"kernel": b"1"})
    (isolated_env.home / "link").symlink_to(root)
    monkeypatch.setenv("B10_EXTRA_CACHES", f"acme={root},other={isolated_env.home}/link")
    refused = locate_caches(Config.from_environment()).refused
    assert list(refused) == ["extra_other"]
    assert f"extra_acme and extra_other are both at {root}: remove one of them" in str(refused["extra_other"])
    assert save().units == 1
    monkeypatch.setenv("B10_CACHES", "extra_other")
    assert not locate_caches(Config.from_environment()).refused


# A folder is saved whole or not at all


def add_link(folder: Path) -> None:
    (folder / "a" / "lib.so").symlink_to("lib.so.1")


def add_pipe(folder: Path) -> None:
    os.mkfifo(folder / "a" / "pipe")


def add_file_with_a_line_break(folder: Path) -> None:
    (folder / "a" / "two\nlines").write_bytes(b"2")


def add_file_in_101_folders(folder: Path) -> None:
    deep = folder.joinpath(*["d"] * 101)
    deep.mkdir(parents=True)
    (deep / "file").write_bytes(b"2")


def add_file_that_every_user_can_write_to(folder: Path) -> None:
    (folder / "a" / "open").write_bytes(b"2")
    (folder / "a" / "open").chmod(0o666)


def add_folder_that_every_user_can_write_to(folder: Path) -> None:
    (folder / "a" / "open").mkdir()
    (folder / "a" / "open").chmod(0o777)


def add_file_of_another_user(folder: Path) -> None:
    (folder / "a" / "theirs").write_bytes(b"2")
    os.chown(folder / "a" / "theirs", 12345, 12345)


def add_store(folder: Path) -> None:
    os.environ["B10_STORE"] = str(folder / "a" / "store")
    (folder / "a" / "store").mkdir()


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of another user")


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A folder that every user may enter."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def fill_module(root: Path) -> Path:
    for name in ("module/a/lib.so.1", "module/data", "whole/a/b", "plain"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"1")
    return root / "module"


@pytest.mark.parametrize(
    ("add", "named"),
    [
        (add_link, "module/a/lib.so: it is a link (replace it with a copy of its target)"),
        (add_pipe, "module/a/pipe: it is neither a file nor a folder (remove it)"),
        (add_file_with_a_line_break, "module is not saved"),
        (add_file_in_101_folders, "it is more than 100 folders deep"),
        (add_file_that_every_user_can_write_to, "module/a/open: another user could have written it"),
        (add_folder_that_every_user_can_write_to, "module/a/open: another user could have written to it"),
        pytest.param(add_file_of_another_user, "module/a/theirs: another user could have", marks=needs_root),
        (add_store, "module/a/store: it is the store, the work directory or another cache"),
    ],
    ids=lambda value: value.__name__.removeprefix("add_") if callable(value) else "",
)
def test_folder_with_an_entry_that_cannot_be_saved_is_left_out_whole(
    isolated_env: IsolatedEnv,
    reachable: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    read_tree: ReadTree,
    add: Callable[[Path], None],
    named: str,
) -> None:
    monkeypatch.setenv("B10_STORE", str(isolated_env.store))  # undone after the test
    monkeypatch.setenv("B10_EXTRA_CACHES", f"acme={reachable}/first")
    add(fill_module(reachable / "first"))
    assert (save().units, save().status) == (2, OperationStatus.SKIPPED)
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert [f"{reachable}/first/module" in warning for warning in warnings] == [True]
    assert named in warnings[0]
    monkeypatch.setenv("B10_EXTRA_CACHES", f"acme={isolated_env.home}/second")
    assert sorted(load().restored) == ["extra_acme/plain", "extra_acme/whole"]
    assert read_tree(isolated_env.home / "second") == {"plain": b"1", "whole/a/b": b"1"}


def test_folder_that_gets_a_link_while_it_is_read_is_left_out(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    from b10_transfer.local import snapshot

    module = fill_module(isolated_env.home / "first")
    monkeypatch.setenv("B10_EXTRA_CACHES", f"acme={isolated_env.home}/first")
    pack = snapshot.pack

    def pack_late(*arguments: object) -> None:
        if not (module / "a" / "lib.so").is_symlink():
            add_link(module)
        pack(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(snapshot, "pack", pack_late)
    assert save().units == 2


def test_locks_and_temporary_files_are_no_part_of_a_folder(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = fill_module(isolated_env.home / "first")
    (module / "a" / "x.lock").symlink_to("nowhere")
    (module / "tmp.folder").mkdir()
    monkeypatch.setenv("B10_EXTRA_CACHES", f"acme={isolated_env.home}/first")
    assert save().units == 3


def test_many_partial_folders_make_few_warnings(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(30):
        add_link(fill_module(isolated_env.home / "first" / str(number)).parent / "module")
    monkeypatch.setenv("B10_EXTRA_CACHES", f"acme={isolated_env.home}/first")
    save()
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 11
    assert "20 more of the files and folders" in warnings[-1]


def test_partial_folder_is_neither_completed_by_a_load_nor_cleared(
    saved: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, read_tree: ReadTree
) -> None:
    root = saved.home / "second"
    saved.fill(root, {"module/a/own": b"own"})
    (root / "module" / "link").symlink_to("a/own")
    monkeypatch.setenv("B10_EXTRA_CACHES", f"acme={root}")
    assert load().restored == ("extra_acme/kernel.bin",)
    assert read_tree(root / "module" / "a") == {"own": b"own"}
    [cleared] = clear_caches(["extra_acme"])
    assert (cleared.files, len(cleared.errors)) == (1, 1)
    assert "module/link: it is a link" in cleared.errors[0]
    assert read_tree(root / "module" / "a") == {"own": b"own"}


@pytest.mark.parametrize(("entry", "restored"), [("kernel.bin", "module"), ("module", "kernel.bin")])
def test_entry_of_another_kind_is_left_alone(
    saved: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, entry: str, restored: str
) -> None:
    root = saved.home / "second"
    saved.fill(root, {"kernel.bin/own": b"1"} if entry == "kernel.bin" else {"module": b"1"})
    monkeypatch.setenv("B10_EXTRA_CACHES", f"acme={root}")
    assert load(merge=True).restored == (f"extra_acme/{restored}",)
    again = load(merge=True)
    assert (again.status, again.already_present) == (OperationStatus.SKIPPED, 2)


def test_folder_that_holds_another_cache_is_left_out_and_the_cache_itself_is_not_named(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    root = isolated_env.home / "first"
    isolated_env.fill(root, {"inner/kernel": b"1", "module/other/kernel": b"1", "module/own": b"1", "plain": b"1"})
    value = f"acme={root},inner={root}/inner,other={root}/module/other"
    monkeypatch.setenv("B10_EXTRA_CACHES", value)
    assert save().units == 3
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert [
        f"{root}/module/other: it is the store, the work directory or another cache" in warning for warning in warnings
    ] == [True]


def test_folder_with_files_of_a_cache_in_the_same_directory_is_left_out(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    kernel = {"launcher.so": b"1", "kernel.json": b"{}"}
    files = {f"{name}/{file}": data for name in ("A" * 43, "B" * 43) for file, data in kernel.items()}
    isolated_env.fill(isolated_env.triton, {**files, f"{'A' * 43}/own/file": b"1", "other/file": b"1"})
    monkeypatch.setenv("B10_EXTRA_CACHES", f"acme={isolated_env.triton}")
    save()
    shutil.rmtree(isolated_env.triton)
    restored = [name for name in load().restored if name.startswith("extra_")]
    assert restored == ["extra_acme/other"]
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert [f"{isolated_env.triton}/{'A' * 43} is left out" in warning for warning in warnings] == [True]


# Places of another use


@pytest.mark.parametrize(
    "place",
    [
        *("/bin/x", "/boot", "/dev/x", "/etc/ssl", "/lib/x", "/proc/self", "/run/secrets/x", "/sbin/x", "/sys/x"),
        *("/usr/lib/python3", "/usr/local/x", "/usr/src", "/var/log", "/var/log/x"),
        *("~/.aws/x", "~/.config/gcloud", "~/.config/gcloud/x", "~/.docker/x", "~/.gnupg/x", "~/.kube/cache"),
        *("~/.azure/x", "~/.ssh/x", "~/other/.ssh/x", "~/aws/x", "~/key/x"),
        *("~/.cache/huggingface/hub/x", "~/.cache/huggingface/x", "~/.cache/torch/hub/x", "~/.ollama/models"),
        *("~/hf/hub/x", "~/hf/datasets", "~/hf", "~/datasets/x", "~/torch/hub/x", "~/xdg/huggingface/x"),
        *("~/y/models--a--b/snapshots", "{store}", "{store}/v1", "{node}", "{node}/x", "{work}"),
    ],
)
def test_place_of_another_use_and_what_is_below_it_is_refused(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    home = isolated_env.home
    monkeypatch.setenv("LOCAL_WORK_DIR", str(isolated_env.work))
    monkeypatch.setenv("B10_NODE_CACHE", str(home / "node"))
    for name, folder in {"HF_HOME": "hf", "HF_DATASETS_CACHE": "datasets", "TORCH_HOME": "torch"}.items():
        monkeypatch.setenv(name, str(home / folder))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "xdg"))
    monkeypatch.setenv("AZURE_CONFIG_DIR", "~/aws")
    monkeypatch.setenv("KUBECONFIG", f"{home}/none:{home}/key")
    path = place.format(store=isolated_env.store, node=home / "node", work=isolated_env.work)
    path = os.path.expanduser(path)
    isolated_env.fill(home / "good", {"kernel": b"1"})
    monkeypatch.setenv("B10_EXTRA_CACHES", f"acme={path},good={home}/good")
    located = locate_caches(Config.from_environment())
    assert list(located.refused) == ["extra_acme"]
    assert "point B10_EXTRA_CACHES at a directory of its own" in str(located.refused["extra_acme"])
    assert save().units == 1


@pytest.mark.parametrize(
    "place",
    [
        *("/dev/shm/x", "/opt/cache", "/root/.cache/x", "/run/x", "/srv/x", "/tmp/x", "/var/cache/x", "/var/lib/x"),
        *(
            "/cache/x",
            "/usr/src/app/x",
            "/mnt/x",
            "/workspace/x",
            "~/.cache/x",
            "~/.cache/torch/x",
            "~/.local/share/x",
            "~/hf/kernels",
        ),
    ],
)
def test_place_of_a_cache_is_not_refused(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.setenv("HF_HOME", str(isolated_env.home / "hf"))
    monkeypatch.setenv("B10_EXTRA_CACHES", f"acme={os.path.expanduser(place)}")
    located = locate_caches(Config.from_environment())
    assert not located.refused
    assert "extra_acme" in [root.name for root in located.roots]


@pytest.mark.parametrize(
    ("variable", "entry", "use"),
    [
        ("HF_HOME=module/hub", "module/hub/token", "module/hub: it is a model hub"),
        ("HF_HOME=hub", "hub/token", "hub: it is a model hub"),
        ("TORCH_HOME=module", "module/hub/x", "module: it is a model hub"),
        ("XDG_CACHE_HOME=module/cache", "module/cache/x/y", "module/cache: it is a directory that many programs share"),
        ("GOOGLE_APPLICATION_CREDENTIALS=key.json", "key.json", "key.json: it is a place of credentials"),
        ("GNUPGHOME=module/gpg", "module/gpg/x", "module/gpg: it is a place of credentials"),
        ("KUBECONFIG=x:{root}/module/y", "module/y", "module/y: it is a place of credentials"),
        ("", "module/a/models--x--y/blobs/z", "module/a/models--x--y: it is part of a model hub"),
        ("", "spaces--x--y/z", "spaces--x--y: it is part of a model hub"),
        ("", "module/.cache/huggingface/token", "module/.cache/huggingface: it is part of a model hub"),
        ("", ".netrc", ".netrc: it is a place of credentials"),
        ("", "module/a/.ssh/id_rsa", "module/a/.ssh: it is a place of credentials"),
    ],
)
def test_unit_that_holds_a_place_of_another_use_is_neither_saved_nor_cleared(
    isolated_env: IsolatedEnv,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    variable: str,
    entry: str,
    use: str,
) -> None:
    root = isolated_env.home.parent / "first"
    isolated_env.fill(root, {entry: b"secret", "kernel": b"1", "module/kernel": b"1"})
    name, _, value = variable.partition("=")
    if name:
        monkeypatch.setenv(name, f"{root}/{value}".format(root=root))
    monkeypatch.setenv("B10_EXTRA_CACHES", f"acme={root}")
    report = save()
    assert report.units == (1 if entry.startswith("module/") else 2)
    warnings = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert [f"{root}/{use} (move it out of the cache)" in warning for warning in warnings] == [True]
    [cleared] = clear_caches(["extra_acme"])
    assert cleared.files == report.units
    assert (root / entry).read_bytes() == b"secret"
    monkeypatch.setenv("B10_EXTRA_CACHES", f"acme={isolated_env.home}/second")
    assert load().units == report.units


@pytest.mark.parametrize("variable", ["HF_HOME", "AZURE_CONFIG_DIR", "B10_STORE", "TRITON_CACHE_DIR"])
@pytest.mark.parametrize("place", ["module", "module/a"])
def test_load_puts_nothing_into_a_place_of_another_use(
    saved: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, read_tree: ReadTree, variable: str, place: str
) -> None:
    root = saved.home / "second"
    monkeypatch.setenv("B10_EXTRA_CACHES", f"acme={root}")
    monkeypatch.setenv(variable, str(root / place))
    if variable == "B10_STORE":
        (root / place).parent.mkdir(parents=True)
        shutil.move(saved.store, root / place)
    assert load(merge=True).restored == ("extra_acme/kernel.bin",)
    assert "module/index" not in read_tree(root)


def test_place_of_another_use_stays_if_a_cache_is_emptied_for_a_while(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, read_tree: ReadTree
) -> None:
    root = isolated_env.home / "first"
    isolated_env.fill(root, {"kernel": b"1", "hub/token": b"secret"})
    monkeypatch.setenv("B10_EXTRA_CACHES", f"acme={root}")
    monkeypatch.setenv("HF_HOME", str(root / "hub"))
    with moved_aside(cache_roots(Config.from_environment())):
        assert (root / "hub" / "token").exists()
        assert not (root / "kernel").exists()
    assert read_tree(root) == {"kernel": b"1", "hub/token": b"secret"}


def test_signing_key_is_not_published(isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    root = isolated_env.home / "first"
    isolated_env.fill(root, {"kernel": b"1", "key": SigningKey.generate().private_text().encode()})
    (root / "key").chmod(0o600)
    monkeypatch.setenv("B10_SIGNING_KEY", str(root / "key"))
    monkeypatch.setenv("B10_EXTRA_CACHES", f"acme={root}")
    assert save().units == 1
    monkeypatch.setenv("B10_EXTRA_CACHES", f"acme={isolated_env.home}/second")
    assert load().restored == ("extra_acme/kernel",)


# Names and packs


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("kernel.bin/own", "kernel.bin is a folder and is not saved: the store has a file of this name; rename"),
        ("module", "module is a file and is not saved: the store has a folder of this name; rename"),
    ],
)
def test_entry_of_which_the_store_has_another_kind_is_named_and_not_saved(
    saved: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, entry: str, message: str
) -> None:
    saved.fill(saved.home / "second", {entry: b"1"})
    monkeypatch.setenv("B10_EXTRA_CACHES", f"acme={saved.home}/second")
    assert save().status is OperationStatus.SKIPPED
    assert f"{saved.home}/second/{message}" in caplog.text


def test_pack_of_caches_that_this_pod_does_not_name_is_not_called_newer(
    saved: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.delenv("B10_EXTRA_CACHES")
    report = load()
    why = "holds only extra caches that B10_EXTRA_CACHES of this pod does not name: 'extra_acme'"
    assert (report.status, report.pack_states) == (OperationStatus.DOES_NOT_EXIST, {"not named": 1})
    assert f"{why}; left alone" in caplog.text
    listed = CliRunner().invoke(main, ["ls", "--packs"]).output
    assert f"not named: {why}" in listed
    assert "name the caches in B10_EXTRA_CACHES" in CliRunner().invoke(main, ["explain"]).output
    assert CliRunner().invoke(main, ["verify"]).exit_code == 0


def test_units_of_caches_that_this_pod_does_not_name_are_ignored_and_named(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    isolated_env.fill(isolated_env.home / "first", FILES)
    isolated_env.fill(isolated_env.triton, {"KERNEL/launcher.so": b"1"})
    monkeypatch.setenv("B10_EXTRA_CACHES", f"acme={isolated_env.home}/first")
    assert save().units == 3
    monkeypatch.delenv("B10_EXTRA_CACHES")
    shutil.rmtree(isolated_env.triton)
    assert load().units == 1
    listed = CliRunner().invoke(main, ["ls", "--packs"]).output
    assert "B10_EXTRA_CACHES of this pod does not name 'extra_acme': units of these caches are ignored" in listed
