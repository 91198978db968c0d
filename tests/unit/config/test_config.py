"""Settings: each variable's rule, its value, and the error for a value that breaks the rule."""

from __future__ import annotations

import getpass
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from b10_transfer import OperationStatus, config, load, save
from b10_transfer.adapters import ADAPTERS, cache_roots, locate_caches, places
from b10_transfer.adapters.inductor import InductorAdapter, default_inductor_dir
from b10_transfer.adapters.triton import TritonAdapter
from b10_transfer.config import BucketUrl, Config, read_autosave, read_deadline, read_instant, read_wait
from b10_transfer.config import store as store_location
from b10_transfer.config.launcher import LauncherConfig
from b10_transfer.environment import interpreter
from b10_transfer.errors import ConfigurationError, without_secrets

if TYPE_CHECKING:
    from tests.conftest import IsolatedEnv

MB = 1024 * 1024


@pytest.fixture(autouse=True)
def home(isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of the test's own, and no shared volume."""
    monkeypatch.setattr(store_location, "MOUNT", isolated_env.home / "no" / "mount")
    return isolated_env.home


def read(**environ: str) -> Config:
    return Config.from_environment(environ)


def refusal(**environ: str) -> ConfigurationError:
    """The error about the one variable that is given; it must name it, its value and a rule."""
    [(name, value)] = environ.items()
    try:
        refused = locate_caches(Config.from_environment(environ)).refused
        error = next(error for error in refused.values() if error.variable == name)
    except ConfigurationError as raised:
        error = raised
    assert error.variable == name
    assert error.value == without_secrets(value)
    assert error.rule
    assert all(text in str(error) for text in (name, repr(error.value), error.rule))
    return error


# Numbers

NUMBERS = {
    "MAX_CACHE_SIZE_MB": ("max_pack_bytes", 1024, 1024, 1, MB),
    "MAX_CONCURRENT_SAVES": ("max_concurrent_saves", 50, 100, 1, 1),
    "CLEANUP_LOCK_TIMEOUT_SECONDS": ("lock_timeout_s", 30, 3600, 0, 1),
    "CLEANUP_INCOMPLETE_TIMEOUT_SECONDS": ("incomplete_timeout_s", 60, 7200, 0, 1),
}
"""Field, default, cap, minimum and unit of each."""
CAPS = {
    "MAX_CACHE_SIZE_CAP_MB": "MAX_CACHE_SIZE_MB",
    "MAX_CONCURRENT_SAVES_CAP": "MAX_CONCURRENT_SAVES",
    "LOCK_TIMEOUT_CAP_SECONDS": "CLEANUP_LOCK_TIMEOUT_SECONDS",
    "INCOMPLETE_TIMEOUT_CAP_SECONDS": "CLEANUP_INCOMPLETE_TIMEOUT_SECONDS",
}
NO_WHOLE_NUMBERS = ["-1", "+1", "1.5", "1e3", "1_000", " 1", "1 ", "one", "0x10", "٣", "²", "nan", "inf", "9" * 5000]


@pytest.mark.parametrize("name", NUMBERS)
def test_number_has_its_documented_default(name: str) -> None:
    field, default, _cap, _minimum, unit = NUMBERS[name]
    assert getattr(read(), field) == default * unit
    [documented] = [variable for variable in config.VARIABLES if variable.name == name]
    assert f"`{default}`" in documented.default


@pytest.mark.parametrize("name", NUMBERS)
def test_number_is_taken_as_it_is_up_to_its_cap(
    name: str, caplog: pytest.LogCaptureFixture, isolated_env: IsolatedEnv
) -> None:
    field, _default, cap, minimum, unit = NUMBERS[name]
    for value in (max(minimum, 1), cap - 1, cap):
        found = Config.from_environment({name: str(value)}, store=isolated_env.store)
        assert getattr(found, field) == value * unit
    assert caplog.records == []


@pytest.mark.parametrize("name", NUMBERS)
def test_number_above_its_cap_is_clamped_with_a_warning(name: str, caplog: pytest.LogCaptureFixture) -> None:
    field, _default, cap, _minimum, unit = NUMBERS[name]
    assert getattr(read(**{name: str(cap + 1)}), field) == cap * unit
    [warning] = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert f"{name}={cap + 1} is above its cap" in warning
    assert f"={cap} is used instead" in warning


@pytest.mark.parametrize(("cap_name", "name"), CAPS.items())
def test_cap_can_be_raised_and_lowered(cap_name: str, name: str, caplog: pytest.LogCaptureFixture) -> None:
    field, default, cap, _minimum, unit = NUMBERS[name]
    assert getattr(read(**{name: str(cap + 1), cap_name: str(cap + 2)}), field) == (cap + 1) * unit
    assert caplog.records[-1:] == [] or caplog.records[-1].levelno < logging.WARNING
    assert getattr(read(**{cap_name: str(default - 1)}), field) == (default - 1) * unit
    assert f"{cap_name}={default - 1} is used instead" in caplog.text


@pytest.mark.parametrize("name", [*NUMBERS, *CAPS])
@pytest.mark.parametrize("value", NO_WHOLE_NUMBERS, ids=lambda value: ascii(value)[:12])
def test_number_that_is_none_is_refused(name: str, value: str) -> None:
    assert "whole number" in refusal(**{name: value}).rule


@pytest.mark.parametrize("name", NUMBERS)
def test_number_below_its_minimum_is_refused(name: str) -> None:
    field, _default, _cap, minimum, _unit = NUMBERS[name]
    if minimum:
        assert f"at least {minimum}" in refusal(**{name: str(minimum - 1)}).rule
    else:
        assert getattr(read(**{name: "0"}), field) == 0


@pytest.mark.parametrize("name", [*NUMBERS, *CAPS, "B10_MERGE", "B10_LOCKS", "B10_NAMESPACE"])
def test_empty_value_counts_as_unset(name: str) -> None:
    assert read(**{name: ""}) == read()


# Flags and names


@pytest.mark.parametrize(("name", "field", "default"), [("B10_MERGE", "merge", False), ("B10_LOCKS", "locks", True)])
def test_flag_is_0_or_1(name: str, field: str, default: bool) -> None:
    assert getattr(read(), field) is default
    assert getattr(read(**{name: "0"}), field) is False
    assert getattr(read(**{name: "1"}), field) is True


@pytest.mark.parametrize("value", ["2", "yes", "true", "True", "on", "-1", " 1", "01"])
@pytest.mark.parametrize("name", ["B10_MERGE", "B10_LOCKS"])
def test_flag_that_is_something_else_is_refused(name: str, value: str) -> None:
    assert refusal(**{name: value}).rule == "it must be 0 or 1"


@pytest.mark.parametrize("namespace", ["a", "0", "llama-3.1_8b", "A" * 100, "a..b", "1-"])
def test_namespace_of_plain_characters_is_accepted(namespace: str) -> None:
    assert read(B10_NAMESPACE=namespace).namespace == namespace


@pytest.mark.parametrize("namespace", [".", "..", ".a", "-a", "_a", "a/b", "a b", "a\n", "ä", "a" * 101, "a\\b", "a\0"])
def test_namespace_with_other_characters_is_refused(namespace: str) -> None:
    assert "letters, digits" in refusal(B10_NAMESPACE=namespace).rule


def test_namespace_is_default_unless_it_is_given() -> None:
    assert read().namespace == "default"
    assert Config.from_environment({"B10_NAMESPACE": "one"}, namespace="two").namespace == "two"


@pytest.mark.parametrize("namespace", ["", "../other"])
def test_namespace_given_as_argument_keeps_to_the_same_rule(namespace: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^namespace='{namespace}' is not usable"):
        Config.from_environment({}, namespace=namespace)


def test_merge_given_as_argument_overrides_its_variable() -> None:
    assert Config.from_environment({"B10_MERGE": "1"}, merge=False).merge is False
    assert Config.from_environment({"B10_MERGE": "0"}, merge=True).merge is True


# The deadline


def test_deadline_is_60_seconds_unless_it_is_given() -> None:
    assert read_deadline(environ={}) == 60
    assert read_deadline(environ={"B10_DEADLINE_SECONDS": "2.5"}) == 2.5
    assert read_deadline(7, {"B10_DEADLINE_SECONDS": "2.5"}) == 7


@pytest.mark.parametrize("value", ["nan", "NaN", "-nan", "inf", "-inf", "0", "-1", "0.0", "86401", "soon", "1m", "1,5"])
def test_deadline_that_is_no_positive_number_of_seconds_is_refused(value: str) -> None:
    with pytest.raises(ConfigurationError, match="number of seconds above 0") as raised:
        read_deadline(environ={"B10_DEADLINE_SECONDS": value})
    assert (raised.value.variable, raised.value.value) == ("B10_DEADLINE_SECONDS", value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0, -1, True, "soon"])
def test_deadline_given_as_argument_keeps_to_the_same_rule(value: Any) -> None:
    with pytest.raises(ConfigurationError, match="number of seconds above 0") as raised:
        read_deadline(value, {})
    assert (raised.value.variable, raised.value.value) == ("deadline_s", str(value))


# Inductor's directory


@pytest.mark.parametrize("path", ["/tmp/inductor", "/tmp/a/b/../c", "/cache/inductor", "/bdn/cache/model"])
def test_inductor_directory_below_an_allowed_folder_is_accepted(path: str) -> None:
    env = read(TORCHINDUCTOR_CACHE_DIR=path).reader
    found = InductorAdapter().locate(env)
    InductorAdapter().check_place(env, found)
    assert found == Path(os.path.realpath(os.path.expanduser(path)))


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/tmp",
        "/tmp/",
        "/cache",
        "/bdn/cache",
        "/bdn/elsewhere",
        "~/.cache",
        "~",
        "~/elsewhere",
        "/etc/inductor",
        "/tmpfoo/inductor",
        "/var/tmp/inductor",
        "/tmp/../etc/inductor",
        "/tmp/a/../../etc/inductor",
        "~/.cache/../.ssh/inductor",
        "inductor",
        "/tmp/inductor\0",
    ],
    ids=ascii,
)
def test_inductor_directory_elsewhere_is_refused(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    monkeypatch.setenv("HOME", "/home/somebody")
    refusal(TORCHINDUCTOR_CACHE_DIR=path)


def test_link_that_leads_out_of_an_allowed_folder_is_refused(home: Path) -> None:
    (home / ".cache").mkdir()
    (home / ".cache" / "link").symlink_to("/etc")
    assert "/etc/inductor" in refusal(TORCHINDUCTOR_CACHE_DIR=str(home / ".cache" / "link" / "inductor")).rule


def test_link_that_leads_into_an_allowed_folder_is_resolved(home: Path) -> None:
    (home / "link").symlink_to(home / ".cache" / "inductor")
    assert (
        InductorAdapter().locate(read(TORCHINDUCTOR_CACHE_DIR=str(home / "link")).reader)
        == home / ".cache" / "inductor"
    )


def test_inductor_directory_follows_the_temporary_directory(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/srv/scratch")
    monkeypatch.setattr(getpass, "getuser", lambda: "somebody")
    assert InductorAdapter().locate(read().reader) == Path("/srv/scratch/torchinductor_somebody")


def test_torchs_default_is_accepted_wherever_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch sets the variable to its default once it has compiled."""
    monkeypatch.setattr(tempfile, "tempdir", "/srv/scratch")
    monkeypatch.setattr(getpass, "getuser", lambda: "somebody")
    default = "/srv/scratch/torchinductor_somebody"
    assert InductorAdapter().locate(read(TORCHINDUCTOR_CACHE_DIR=default).reader) == Path(default)
    refusal(TORCHINDUCTOR_CACHE_DIR="/srv/scratch/torchinductor_other")


def test_user_without_a_name_has_a_default_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found: 1000680000")

    monkeypatch.setattr(tempfile, "tempdir", "/tmp")
    monkeypatch.setattr(getpass, "getuser", nobody)
    monkeypatch.setattr(os, "getuid", lambda: 1000680000)
    assert default_inductor_dir() == Path("/tmp/torchinductor_uid_1000680000")


def test_characters_of_a_user_name_that_torch_replaces_are_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/tmp")
    monkeypatch.setattr(getpass, "getuser", lambda: 'A\\b/c:d*e?f"g<h>i|j')
    assert default_inductor_dir() == Path("/tmp/torchinductor_A_b_c_d_e_f_g_h_i_j")


# Triton's directory


def triton_dir(**environ: str) -> Path:
    return TritonAdapter().locate(read(**environ).reader)


def test_triton_directory_is_below_the_home_unless_it_is_given(home: Path) -> None:
    assert triton_dir() == home / ".triton" / "cache"
    assert triton_dir(TRITON_HOME="/srv/triton") == Path("/srv/triton/.triton/cache")
    assert triton_dir(TRITON_CACHE_DIR="/srv/kernels", TRITON_HOME="/srv/triton") == Path("/srv/kernels")
    assert triton_dir(TRITON_CACHE_DIR="~/kernels") == Path.cwd() / "~/kernels"  # as Triton reads it


def test_triton_directory_that_is_relative_is_refused() -> None:
    assert refusal(TRITON_CACHE_DIR="kernels").rule == "it must be an absolute path"


# The store


def test_store_is_a_directory(home: Path) -> None:
    assert read(B10_STORE="/mnt/store").store == Path("/mnt/store")
    assert read(B10_STORE="/mnt/../srv//store/").store == Path("/srv/store")
    assert read(B10_STORE="~/store").store == home / "store"


def test_store_that_is_relative_is_made_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert Config.from_environment({}, store="store").store == Path.cwd() / "store"


@pytest.mark.parametrize("text", ["store", "./store", "../store"])
def test_variable_with_a_relative_store_is_refused(text: str) -> None:
    assert refusal(B10_STORE=text).rule == "it must be an absolute path or a URL"


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("file:///mnt/store", "/mnt/store"),
        ("FILE:///mnt/store", "/mnt/store"),
        ("file://localhost/mnt/store", "/mnt/store"),
        ("file:///mnt/my%20store", "/mnt/my store"),
        ("file:///mnt/100%25", "/mnt/100%"),
    ],
)
def test_store_may_be_a_file_url(url: str, path: str) -> None:
    assert read(B10_STORE=url).store == Path(path)


@pytest.mark.parametrize("scheme", ["https", "HTTPS", "hdfs", "ftp"])
def test_store_of_an_unknown_kind_is_refused_clearly(scheme: str) -> None:
    rule = refusal(B10_STORE=f"{scheme}://bucket/prefix").rule
    assert f"{scheme.lower()}:// stores are not supported" in rule
    assert "use a directory, file://, s3://" in rule


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("s3://bucket/some/prefix", "s3://bucket/some/prefix"),
        ("S3://bucket/prefix/", "s3://bucket/prefix"),
        ("s3://bucket", "s3://bucket"),
        ("gs://my-bucket_1/a.b", "gs://my-bucket_1/a.b"),
        ("az://container/prefix", "az://container/prefix"),
        ("abfss://container@account.dfs.core.windows.net/p", "abfss://container@account.dfs.core.windows.net/p"),
    ],
)
def test_store_may_be_a_bucket(url: str, expected: str) -> None:
    found = read(B10_STORE=url)
    assert isinstance(found.store, BucketUrl)
    assert found.store == expected


@pytest.mark.parametrize(
    "url",
    [
        "s3://",
        "s3:///prefix",
        "s3://a/../b",
        "s3://a/b//c",
        "s3://a/b?x=1",
        "s3://a/b#c",
        "s3://a/b c",
        "s3://a:b/c",
    ],
)
def test_bucket_that_is_none_is_refused(url: str) -> None:
    assert "bucket/prefix" in refusal(B10_STORE=url).rule


@pytest.mark.parametrize(
    "url",
    [
        "file://mnt/store",
        "file://host/mnt/store",
        "file://",
        "file:///mnt/%00",
        "/mnt/\0",
        "/mnt/store\n",
        "/mnt/\tstore",
    ],
    ids=ascii,
)
def test_store_that_names_no_directory_here_is_refused(url: str) -> None:
    refusal(B10_STORE=url)


@pytest.mark.parametrize("url", ["s3://key:secret@bucket/a", "https://key:secret@host/a"])
def test_credentials_in_a_url_are_not_repeated(url: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        Config.from_environment({"B10_STORE": url})
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("url", ["file://[mnt/store", "file://[::1/store", "s3://[bucket"])
def test_url_that_is_none_is_refused(url: str) -> None:
    refusal(B10_STORE=url)


@pytest.mark.parametrize("url", ["file:///mnt/store?region=eu", "file:///mnt/store#2", "file:///mnt/a?b/store"])
def test_no_part_of_a_url_is_silently_ignored(url: str) -> None:
    refusal(B10_STORE=url)


def test_stores_variables_have_an_order(home: Path) -> None:
    fs = {"B10FS_CACHE_DIR": "/mnt/two"}
    assert Config.from_environment({**fs, "B10_STORE": "/mnt/one"}, store="/mnt/zero").store == Path("/mnt/zero")
    assert Config.from_environment({**fs, "B10_STORE": "/mnt/one"}).store == Path("/mnt/one")
    assert Config.from_environment(fs).store == Path("/mnt/two")


def test_store_given_as_argument_may_be_a_path_or_a_url() -> None:
    assert Config.from_environment({}, store=Path("/mnt/store")).store == Path("/mnt/store")
    assert Config.from_environment({}, store="file:///mnt/store").store == Path("/mnt/store")


@pytest.mark.parametrize("store", ["", "https://bucket"])
def test_store_given_as_argument_keeps_to_the_same_rule(store: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^store='{store}' is not usable"):
        Config.from_environment({}, store=store)


def test_shared_volume_is_used_where_there_is_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    mount = tmp_path / "cache" / "model"
    mount.mkdir(parents=True)
    monkeypatch.setattr(store_location, "MOUNT", mount)
    assert read().store == mount / "compile_cache"
    assert read().store_parents_may_be_made


def test_without_a_shared_volume_the_store_is_in_the_home(home: Path) -> None:
    assert read().store == home / ".cache" / "b10-transfer" / "store"
    assert read().store_parents_may_be_made


def test_store_that_is_not_shared_is_announced_once_at_info(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    read()
    read()
    [record] = caplog.records
    assert record.levelno == logging.INFO
    assert "not shared between machines" in record.getMessage()
    assert "set B10_STORE" in record.getMessage()


def test_store_that_is_configured_is_not_announced(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    read(B10_STORE="/mnt/store")
    read(B10FS_CACHE_DIR="/mnt/store")
    assert caplog.records == []


def test_parents_of_a_store_are_made_only_below_a_known_mount(monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing parent elsewhere mostly is a volume that is not mounted."""
    monkeypatch.setattr(store_location, "MOUNT", Path("/cache/model"))
    for name in ("B10_STORE", "B10FS_CACHE_DIR"):
        assert read(**{name: "/cache/model/a/b"}).store_parents_may_be_made
        assert not read(**{name: "/cache/model"}).store_parents_may_be_made
        assert not read(**{name: "/cache/models/a"}).store_parents_may_be_made
        assert not read(**{name: "/cache/model/../a"}).store_parents_may_be_made
        assert not read(**{name: "/mnt/store"}).store_parents_may_be_made


# The work directory


@pytest.mark.parametrize("path", ["/app", "/app/work", "/tmp", "/tmp/work", "/cache", "/cache/a/../work"])
def test_work_directory_in_an_allowed_folder_is_accepted(path: str) -> None:
    assert read(LOCAL_WORK_DIR=path).work_dir == Path(os.path.realpath(path))


@pytest.mark.parametrize(
    "path", ["/", "/apple", "/home/work", "/tmp/../home/work", "~/work", "/var/tmp", "/app\0"], ids=ascii
)
def test_work_directory_elsewhere_is_refused(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    refusal(LOCAL_WORK_DIR=path)


def test_work_directory_is_app_if_that_can_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, _mode: path == Path("/app"))
    assert read().work_dir == Path("/app")


def test_work_directory_is_the_temporary_one_if_app_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda _path, _mode: False)
    monkeypatch.setattr(tempfile, "tempdir", "/srv/scratch")
    assert read().work_dir == Path("/srv/scratch")


# The documentation


class Recording(Mapping[str, str]):
    """An environment that notes which variables were read."""

    def __init__(self) -> None:
        self.asked: set[str] = set()

    def __getitem__(self, name: str) -> str:
        self.asked.add(name)
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def test_every_variable_that_is_read_is_documented_and_none_else() -> None:
    environ = Recording()
    cache_roots(Config.from_environment(environ))
    read_deadline(environ=environ)
    read_wait(environ=environ)
    read_instant(environ=environ)
    read_autosave(environ=environ)
    variables = [*config.VARIABLES, *(variable for adapter in ADAPTERS for variable in adapter.variables)]
    documented = " ".join(f"{variable.name} {variable.default}" for variable in variables)
    # They say which directories are no caches, and where a volume is expected.
    of_the_system = {
        "KUBERNETES_SERVICE_HOST",
        "TMPDIR",
        *("LOGNAME", "USER", "LNAME", "USERNAME"),
        *places.HUB_VARIABLES,
        *places.SHARED_VARIABLES,
        "SGLANG_DIFFUSION_CACHE_ROOT",
    }
    assert {name for name in environ.asked - of_the_system if name not in documented} == set()
    read_elsewhere = {interpreter.VARIABLE}  # by the environment key, which needs no configuration
    assert {variable.name for variable in variables} - environ.asked == read_elsewhere


def test_configuration_is_read_from_the_process_by_default(isolated_env: IsolatedEnv) -> None:
    found = Config.from_environment()
    assert (found.store, found.work_dir) == (isolated_env.store, isolated_env.work)
    roots = {root.name: root.path for root in cache_roots(found)}
    assert (roots["inductor"], roots["triton"]) == (isolated_env.inductor, isolated_env.triton)


# Which caches


def test_every_cache_is_taken_unless_some_are_named() -> None:
    without_default = {
        *("tunableop", "flashinfer_entries", "flashinfer_v2", "flashinfer_tuning"),
        *("jax", "aiter", "aiter_templates"),
    }
    every = {adapter.name for adapter in ADAPTERS} - without_default
    for value, expected in [
        ("all", every),
        ("triton", {"triton"}),
        ("inductor, triton", {"inductor", "triton"}),
        ("-triton", every - {"triton"}),
        ("-triton,-inductor", every - {"inductor", "triton"}),
    ]:
        assert {root.name for root in cache_roots(read(B10_CACHES=value))} == expected


@pytest.mark.parametrize(
    "value", ["inductor,-triton", "inductor,", ",", "-", "all,triton", "Inductor", "-all", "nothing"]
)
def test_selection_that_means_nothing_is_refused(value: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^B10_CACHES="):
        cache_roots(read(B10_CACHES=value))


# Variables that protect


@pytest.mark.parametrize("name", ["B10_TRUSTED_KEYS", "B10_SIGNING_KEY", "B10_READ_ONLY"])
@pytest.mark.parametrize("value", ["", " ", "\t\n"])
def test_variable_that_protects_is_refused_if_it_is_empty(name: str, value: str) -> None:
    """A manifest whose own variable is unset must not lift the protection."""
    assert "set but empty" in refusal(**{name: value}).rule


def test_empty_trusted_keys_never_load_a_pack(isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    isolated_env.fill(isolated_env.triton, {"KERNEL/launcher.so": b"x"})
    assert save().status is OperationStatus.SUCCESS
    (isolated_env.triton / "KERNEL" / "launcher.so").unlink()
    monkeypatch.setenv("B10_TRUSTED_KEYS", "")
    report = load()
    assert (report.status, report.units) == (OperationStatus.ERROR, 0)
    assert "B10_TRUSTED_KEYS" in report.reason


@pytest.mark.parametrize(
    "url",
    [
        "s3://user:pass-word@bucket/prefix",
        "s3://bucket/prefix?X-Amz-Signature=pass-word",
        "https://user:p@ss/pass-word@host/path",
        "http://host/?token=pass-word",
    ],
)
def test_secrets_of_a_url_are_in_no_message(
    isolated_env: IsolatedEnv, caplog: pytest.LogCaptureFixture, url: str
) -> None:
    caplog.set_level(logging.DEBUG)
    report = load(store=url)
    assert report.status is OperationStatus.ERROR
    assert "pass-word" not in report.reason + caplog.text


def test_secrets_of_the_servers_url_are_in_no_message(caplog: pytest.LogCaptureFixture) -> None:
    LauncherConfig.from_environment({"B10_TRANSFER_VLLM_URL": "ftp://user:pass-word@host/?token=pass-word"})
    assert "B10_TRANSFER_VLLM_URL" in caplog.text
    assert "pass-word" not in caplog.text
