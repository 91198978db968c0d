"""``export`` and ``import``: a warm store in one file, checked on both sides."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import random
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result

from b10_transfer import OperationStatus, load, save
from b10_transfer.cli.main import main
from b10_transfer.repository.signing import SigningKey

if TYPE_CHECKING:
    from tests.conftest import IsolatedEnv, ReadTree

KEY = SigningKey.generate()


def command(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture
def warm(isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch) -> str:
    """A store with one signed pack, whose id this is."""
    isolated_env.fill(isolated_env.triton, {"KEY/a.so": b"a" * 1000})
    monkeypatch.setenv("B10_SIGNING_KEY", KEY.private_text())
    return save().pack


def test_exported_packs_warm_a_pod_elsewhere(
    warm: str, monkeypatch: pytest.MonkeyPatch, read_tree: ReadTree, tmp_path: Path
) -> None:
    assert command("export", tmp_path / "warm.tar").exit_code == 0
    result = command("import", tmp_path / "warm.tar", "--store", tmp_path / "image")
    assert (result.exit_code, "1 pack, " in result.output) == (0, True)
    monkeypatch.setenv("B10_STORE", str(tmp_path / "image"))
    monkeypatch.setenv("B10_TRUSTED_KEYS", KEY.public_text())  # the signature has come along
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "new"))
    assert load().status is OperationStatus.SUCCESS
    assert read_tree(tmp_path / "new") == {"KEY/a.so": b"a" * 1000}
    assert "torch" in command("ls").output


def test_superseded_packs_are_exported_with_the_merged_one(
    isolated_env: IsolatedEnv, monkeypatch: pytest.MonkeyPatch, read_tree: ReadTree, tmp_path: Path
) -> None:
    monkeypatch.setenv("B10_MAX_PACKS", "1")
    for kernel in ("ONE", "TWO"):
        isolated_env.fill(isolated_env.triton, {f"{kernel}/a.so": kernel.encode()})
        save()
    assert len(list(isolated_env.store.rglob("*.tar.zst"))) == 3
    assert command("export", tmp_path / "warm.tar").exit_code == 0
    with tarfile.open(tmp_path / "warm.tar") as archive:
        assert len([name for name in archive.getnames() if name.endswith(".tar.zst")]) == 3
    command("import", tmp_path / "warm.tar", "--store", tmp_path / "image")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "new"))
    assert load(store=tmp_path / "image").status is OperationStatus.SUCCESS
    assert read_tree(tmp_path / "new") == read_tree(isolated_env.triton)


def test_importing_twice_changes_nothing(warm: str, tmp_path: Path) -> None:
    command("export", tmp_path / "warm.tar")
    result = command("import", tmp_path / "warm.tar")
    assert (result.exit_code, "1 there already" in result.output) == (0, True)


def test_read_only_pod_imports_nothing(warm: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("B10_READ_ONLY", "1")
    assert command("export", tmp_path / "warm.tar").exit_code == 0
    result = command("import", tmp_path / "warm.tar", "--store", tmp_path / "image")
    assert (result.exit_code, "this pod may not change the store" in result.stderr) == (1, True)
    assert not (tmp_path / "image").exists()


def test_only_packs_of_this_pod_are_exported_by_default(
    isolated_env: IsolatedEnv, warm: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    assert command("export", tmp_path / "none.tar").exit_code == 3
    assert command("export", tmp_path / "all.tar", "--all-environments").exit_code == 0


def test_other_namespaces_stay_behind(warm: str, tmp_path: Path) -> None:
    assert command("export", tmp_path / "none.tar", "--namespace", "other").exit_code == 3


def test_damaged_pack_is_not_exported(isolated_env: IsolatedEnv, warm: str, tmp_path: Path) -> None:
    [pack] = isolated_env.store.rglob("*.tar.zst")
    data = bytearray(pack.read_bytes())
    data[5] ^= 1
    pack.chmod(0o644)
    pack.write_bytes(data)
    result = command("export", tmp_path / "warm.tar")
    assert (result.exit_code, "was not copied" in result.stderr) == (3, True)


def test_pack_without_a_trusted_signature_is_not_imported(
    warm: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    command("export", tmp_path / "warm.tar")
    monkeypatch.setenv("B10_TRUSTED_KEYS", SigningKey.generate().public_text())
    result = command("import", tmp_path / "warm.tar", "--store", tmp_path / "image")
    assert (result.exit_code, "was not copied" in result.stderr) == (1, True)
    assert not list((tmp_path / "image").rglob("*.tar.zst"))


def test_export_replaces_a_file_only_when_it_is_whole(
    warm: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "warm.tar"
    path.write_text("precious")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("b10_transfer.maintenance.export._pack", fail)
    result = command("export", path)
    assert (result.exit_code, "No space left" in result.stderr) == (1, True)
    assert path.read_text() == "precious"
    assert [found.name for found in tmp_path.glob(".warm.tar.*")] == []


@pytest.mark.parametrize("options", [(), ("--oci",), ("--all-environments",)])
def test_export_of_nothing_leaves_an_earlier_file_as_it_is(
    isolated_env: IsolatedEnv, tmp_path: Path, options: tuple[str, ...]
) -> None:
    isolated_env.store.mkdir()
    path = tmp_path / "warm.tar"
    path.write_text("precious")
    result = command("export", path, *options)
    assert (result.exit_code, path.read_text()) == (3, "precious")
    assert f"nothing to export to {path}: the store has no usable pack" in result.stderr
    path.unlink()
    result = command("export", path, *options)
    assert (result.exit_code, path.exists()) == (3, False)


def digest_of(descriptor: dict[str, Any], layout: Path) -> Path:
    """The blob that a descriptor names, if it is as described."""
    kind, _, digest = descriptor["digest"].partition(":")
    path: Path = layout / "blobs" / kind / digest
    assert hashlib.sha256(path.read_bytes()).hexdigest() == digest
    assert path.stat().st_size == descriptor["size"]
    return path


def test_image_layout_holds_the_store_as_its_only_layer(
    warm: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    layout = tmp_path / "warm"
    assert command("export", "--oci", layout).exit_code == 0
    assert json.loads((layout / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    [described] = json.loads((layout / "index.json").read_text())["manifests"]
    manifest = json.loads(digest_of(described, layout).read_text())
    [layer] = manifest["layers"]
    config = json.loads(digest_of(manifest["config"], layout).read_text())
    assert config["rootfs"]["diff_ids"] == [layer["digest"]]
    with tarfile.open(digest_of(layer, layout)) as archive:
        # The filter is newer than Python 3.11.2, Debian's own.
        options: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        archive.extractall(tmp_path / "image", **options)
    assert len([path for path in layout.rglob("*") if path.is_file()]) == 5
    monkeypatch.setenv("B10_STORE", str(tmp_path / "image"))
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "new"))
    assert load().status is OperationStatus.SUCCESS


@pytest.mark.skipif(not shutil.which("umoci"), reason="no umoci (Debian has it)")
def test_image_layout_is_one_to_other_tools(warm: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert command("export", "--oci", tmp_path / "warm").exit_code == 0
    unpack = ["umoci", "unpack", "--rootless", "--image", f"{tmp_path}/warm:latest", str(tmp_path / "bundle")]
    subprocess.run(unpack, check=True, capture_output=True)
    monkeypatch.setenv("B10_STORE", str(tmp_path / "bundle" / "rootfs"))
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "new"))
    assert load().status is OperationStatus.SUCCESS


def test_image_layout_replaces_nothing(warm: str, tmp_path: Path) -> None:
    (tmp_path / "warm").mkdir()
    (tmp_path / "warm" / "precious").touch()
    assert command("export", "--oci", tmp_path / "warm").exit_code == 1
    assert [path.name for path in tmp_path.glob("*warm*")] == ["warm"]
    assert [path.name for path in (tmp_path / "warm").iterdir()] == ["precious"]


def member(name: str, **fields: object) -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(found, field, value)
    return found


INSIDE = f"v1/default/{'0' * 32}/packs/{'0' * 12}-{'0' * 16}.tar.zst"
HUGE = 3 << 30


def sparse(headers: dict[str, str]) -> tarfile.TarInfo:
    """A member that says it is large, of which the file holds nothing."""
    sizes = {"GNU.sparse.name": INSIDE, "GNU.sparse.size": str(HUGE), "GNU.sparse.realsize": str(HUGE)}
    return member(INSIDE, pax_headers={**sizes, **headers} if "size" not in headers else headers)


Hostile = Callable[[], tarfile.TarInfo]


@pytest.mark.parametrize(
    "hostile",
    [
        lambda: member("../../evil"),
        lambda: member("/etc/evil"),
        lambda: member("v1/default/../../evil"),
        lambda: member(INSIDE, type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        lambda: member(INSIDE, type=tarfile.LNKTYPE, linkname="/etc/passwd"),
        lambda: member(INSIDE, type=tarfile.FIFOTYPE),
        lambda: member(INSIDE.replace("packs", "leases")),
        lambda: sparse({"GNU.sparse.major": "0", "GNU.sparse.minor": "1", "GNU.sparse.map": f"{HUGE},0"}),
        lambda: sparse({"GNU.sparse.numblocks": "1", "GNU.sparse.offset": str(HUGE), "GNU.sparse.numbytes": "0"}),
        lambda: sparse({"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}),
        lambda: sparse({"size": str(HUGE)}),
        lambda: sparse({"size": "-1"}),
        lambda: member(INSIDE, type=tarfile.GNUTYPE_SPARSE),
        lambda: member(INSIDE, type=tarfile.CONTTYPE),
    ],
)
def test_file_that_is_not_an_export_is_refused_and_nothing_is_published(
    isolated_env: IsolatedEnv, tmp_path: Path, hostile: Hostile
) -> None:
    path = tmp_path / "evil.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(hostile())
    result = command("import", path)
    assert (result.exit_code, "it is not an export" in result.stderr) == (1, True)
    assert f"could not import {path}: " in result.stderr and "pack /" not in result.stderr
    assert not list(isolated_env.store.rglob("*")) if isolated_env.store.exists() else True
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("rest", [b"", b"x" * 512, b"\0" * 511, tarfile.TarInfo("x" * 90).tobuf()[:-1] + b"x"])
def test_export_without_its_end_is_refused(warm: str, tmp_path: Path, rest: bytes) -> None:
    """The tar module takes what is no header for the end, and packs behind it would be missing without a word."""
    assert command("export", tmp_path / "warm.tar").exit_code == 0
    whole = (tmp_path / "warm.tar").read_bytes().rstrip(b"\0")
    (tmp_path / "warm.tar").write_bytes(whole + bytes(-len(whole) % 512) + rest)
    result = command("import", tmp_path / "warm.tar", "--store", tmp_path / "image")
    assert (result.exit_code, "it is not an export" in result.stderr) == (1, True)
    assert not (tmp_path / "image").exists()


@pytest.mark.parametrize("content", [b"", b"not a tar", b"\0" * 10240, b"\x1f\x8b" + b"x" * 600])
def test_file_that_is_no_archive_publishes_nothing(isolated_env: IsolatedEnv, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    result = command("import", path)
    assert result.exit_code in (0, 1)
    assert "0 packs" in result.output or "it is not an export" in result.stderr


def test_forged_pack_in_an_export_stays_out(isolated_env: IsolatedEnv, tmp_path: Path) -> None:
    path = tmp_path / "forged.tar"
    with tarfile.open(path, "w") as archive:
        archive.addfile(member(INSIDE, size=7), io.BytesIO(b"garbage"))
    result = command("import", path)
    assert (result.exit_code, "was not copied" in result.stderr) == (1, True)


def test_file_that_is_not_there_is_an_error_that_names_it(tmp_path: Path) -> None:
    result = command("import", tmp_path / "none.tar")
    assert (result.exit_code, "none.tar" in result.stderr) == (1, True)


def damage(store: Path, content: bytes) -> Path:
    [pack] = store.rglob("*.tar.zst")
    pack.chmod(0o644)
    pack.write_bytes(content)
    return pack


@pytest.mark.parametrize("content", [b"", b"rubbish" * 1000], ids=["empty", "rubbish"])
@pytest.mark.parametrize("is_marked", [False, True])
def test_backup_replaces_a_damaged_pack_on_request(
    isolated_env: IsolatedEnv, warm: str, tmp_path: Path, content: bytes, is_marked: bool
) -> None:
    command("export", tmp_path / "backup.tar")
    pack = damage(isolated_env.store, content)
    shutil.rmtree(isolated_env.triton)
    if is_marked:
        (pack.parents[1] / "quarantine").mkdir()
        (pack.parents[1] / "quarantine" / warm).write_text("{}")
    result = command("import", tmp_path / "backup.tar")
    assert (result.exit_code, "there already" in result.output) == (1, False)
    assert "damaged in the store; `import --replace-damaged` replaces it" in result.stderr
    assert pack.read_bytes() == content
    result = command("import", "--replace-damaged", tmp_path / "backup.tar")
    assert (result.exit_code, "1 replaced" in result.output) == (0, True)
    assert load().status is OperationStatus.SUCCESS


def test_pack_that_was_marked_as_damaged_and_is_gone_is_replaced_too(
    isolated_env: IsolatedEnv, warm: str, tmp_path: Path
) -> None:
    command("export", tmp_path / "backup.tar")
    pack = damage(isolated_env.store, b"")
    (pack.parents[1] / "quarantine").mkdir()
    (pack.parents[1] / "quarantine" / warm).write_text("{}")
    pack.unlink()
    shutil.rmtree(isolated_env.triton)
    assert command("import", tmp_path / "backup.tar").exit_code == 1
    assert command("import", "--replace-damaged", tmp_path / "backup.tar").exit_code == 0
    assert load().status is OperationStatus.SUCCESS


def test_recalled_pack_stays_recalled(isolated_env: IsolatedEnv, warm: str, tmp_path: Path) -> None:
    command("export", tmp_path / "backup.tar")
    command("recall", warm)
    for options in ((), ("--replace-damaged",)):
        result = command("import", *options, tmp_path / "backup.tar")
        assert (result.exit_code, "it is recalled in the store; `reinstate` undoes that" in result.stderr) == (1, True)
    shutil.rmtree(isolated_env.triton)
    assert load().status is OperationStatus.DOES_NOT_EXIST


def test_pruned_pack_is_named(isolated_env: IsolatedEnv, warm: str, tmp_path: Path) -> None:
    command("export", tmp_path / "backup.tar")
    command("prune", "--keep", "0", "--yes")
    result = command("import", tmp_path / "backup.tar")
    assert (result.exit_code, "marked for deletion in the store" in result.stderr) == (1, True)


def test_pack_of_the_same_id_and_other_content_is_named(
    isolated_env: IsolatedEnv, warm: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    command("export", tmp_path / "backup.tar")
    monkeypatch.delenv("B10_SIGNING_KEY")
    isolated_env.fill(isolated_env.triton, {"EVIL/a.so": b"evil"})
    other = save(store=tmp_path / "other").pack
    [forged] = (tmp_path / "other").rglob(f"{other}.tar.zst")
    damage(isolated_env.store, forged.read_bytes())
    result = command("import", tmp_path / "backup.tar")
    assert (result.exit_code, "another pack with that id" in result.stderr) == (1, True)


NAME = f"v1/default/{'a' * 32}/packs/01a228e00000-0000000000000001.tar.zst"


def hostile(path: Path, member: tarfile.TarInfo, content: bytes = b"") -> Path:
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(member, io.BytesIO(content))
    return path


def sparse_member(version: str, size: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(NAME)
    records = {"GNU.sparse.name": NAME, "GNU.sparse.realsize": str(size), "GNU.sparse.size": str(size)}
    if version == "1.0":
        records |= {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
    else:
        records |= {"GNU.sparse.map": f"{size},0"}
    member.pax_headers = records
    return member


@pytest.mark.parametrize("version", ["0.1", "1.0"])
def test_sparse_member_is_refused_and_takes_no_room(isolated_env: IsolatedEnv, tmp_path: Path, version: str) -> None:
    content = b"1\n3221225472\n0\n".ljust(512, b"\0") if version == "1.0" else b""
    member = sparse_member(version, 3 << 30)
    member.size = len(content)
    path = hostile(tmp_path / "evil.tar", member, content)
    result = command("import", path)
    assert result.exit_code == 1
    assert f"could not import {path}: it is not an export" in result.stderr
    assert sum(file.stat().st_blocks for file in isolated_env.work.rglob("*")) == 0


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE,
                                  tarfile.CONTTYPE, tarfile.GNUTYPE_SPARSE])  # fmt: skip
def test_member_that_is_no_plain_file_is_refused(tmp_path: Path, kind: bytes) -> None:
    member = tarfile.TarInfo(NAME)
    member.type, member.linkname = kind, "/etc/passwd"
    result = command("import", hostile(tmp_path / "evil.tar", member), "--store", tmp_path / "image")
    assert (result.exit_code, "it is not an export" in result.stderr) == (1, True)
    assert not (tmp_path / "image").exists()


def test_huge_header_in_a_sparse_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    member = tarfile.TarInfo("././@PaxHeader")
    member.type, member.size = tarfile.XHDTYPE, 3 << 30
    with open(tmp_path / "evil.tar", "wb") as file:
        file.write(member.tobuf(tarfile.USTAR_FORMAT))
        file.truncate(4 << 30)
    result = command("import", tmp_path / "evil.tar")
    assert (result.exit_code, "a header of more than 65536 bytes" in result.stderr) == (1, True)


@pytest.mark.parametrize("number", range(200))
def test_no_damaged_export_is_a_traceback(warm: str, tmp_path: Path, number: int) -> None:
    command("export", tmp_path / "warm.tar")
    data = bytearray((tmp_path / "warm.tar").read_bytes())
    chance = random.Random(number)
    for _ in range(chance.randint(1, 8)):
        data[chance.randrange(1024 if chance.random() < 0.7 else len(data))] = chance.randrange(256)
    if chance.random() < 0.2:
        del data[chance.randrange(len(data)) :]
    (tmp_path / "damaged.tar").write_bytes(data)
    result = command("import", tmp_path / "damaged.tar", "--store", tmp_path / "image")
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code in (0, 1)
